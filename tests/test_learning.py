"""The loop's training stages, from the command line as a user runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

import pytest

from agentic_r.cli import main
from agentic_r.errors import DataError
from agentic_r.exchange.training_sets import write_training_set
from agentic_r.io import write_jsonl
from agentic_r.learning import notes
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.trainer import TrainResult
from agentic_r.settings import RetrieverTrainConfig
from agentic_r.taught import not_held_out
from agentic_r.types import Example, Question

from .runs import write_config

FAST = ["--retriever.max_length", "32", "--retriever.train.batch", "4"]


def train(config: Path, *options: str, learner: str = "retriever") -> int:
    return main(["train", str(config), learner, *FAST, *options])


def read(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--retriever.train.matryoshka", "[999]"], "got 999, expected at most 384"),
        (["--retriever.train.tracker", "wandb"], "wandb is not installed"),
        (["--retriever.train.lora_rank", "4"], "peft is not installed"),
        (["--retriever.train.keep", "best", "--retriever.train.evaluations", "0"], "evaluations"),
        (
            ["--retriever.train.recipe", "upstream", "--retriever.train.loss", "listwise-kl"],
            "recipe",
        ),
        (
            ["--utility.rule", "upstream", "--retriever.train.loss", "rank-net"],
            'learns graded targets, and utility.rule = "upstream" gives none',
        ),
    ],
)
def test_what_training_would_refuse_is_refused_before_any_work(
    tmp_path: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = __import__("importlib.util").util.find_spec
    missing = ("peft", "wandb")
    monkeypatch.setattr("importlib.util.find_spec", lambda n: None if n in missing else find(n))
    assert train(write_config(tmp_path, runs=tmp_path / "runs"), *options) != 0
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("manifest.json"))


def test_the_best_weights_need_dev_questions_that_name_passages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before any work, not after the labels are made."""
    write_jsonl(tmp_path / "corpus.jsonl", [{"id": f"{n}", "contents": f"{n}"} for n in range(9)])
    made = ({"id": f"{n}", "question": f"{n}?", "golden_answers": [f"{n}"]} for n in range(20))
    hops = ({"hops": [{"question": f"{n}?", "answer": f"{n}"}]} for n in range(20))
    rows = [row | {"metadata": each} for row, each in zip(made, hops, strict=True)]
    write_jsonl(tmp_path / "questions.jsonl", rows)
    files = ("corpus", "questions")
    data = "\n".join(f'{name} = "{tmp_path / name}.jsonl"' for name in files)
    config = write_config(
        tmp_path, f'[data]\nsource = "files"\n{data}\n', runs=tmp_path / "runs", agent="tiny"
    )
    assert train(config, "--retriever.train.keep", "best") == 2
    assert "no dev question names the passage of a hop" in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("manifest.json"))


def test_the_best_weights_are_chosen_by_what_the_agent_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, runs=tmp_path / "runs")
    reasoned = ("--retriever.input", "question+reasoning+query", "--retriever.train.keep", "best")
    assert train(config, *reasoned) == 0
    assert "dev hit@3" in capsys.readouterr().out
    dev = read(tmp_path / "runs" / "small" / "iteration-1" / "retriever" / "dev.jsonl")
    assert dev[0]["step"] == 0 and len(dev) > 1


def test_a_reranker_needs_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(write_config(tmp_path), learner="reranker") == 2
    assert "retriever.rerank.epochs is 0" in capsys.readouterr().err


@pytest.mark.slow
def test_query_side_and_reranker_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, runs=tmp_path / "runs")
    options = ["--retriever.train.side", "query", "--retriever.train.hold_out", "0.3"]
    options += ["--retriever.train.tracker", "tensorboard"] if "tensorboard" in sys.modules else []
    options += ["--retriever.rerank.epochs", "1", "--retriever.rerank.max_length", "48"]
    assert train(config, *options, learner="reranker") == 0
    said = capsys.readouterr().out
    assert "right on top" in said
    assert "Re-ranker: " in said
    folder = tmp_path / "runs" / "small"
    stage = folder / "iteration-1"
    assert (stage / "reranker" / "model" / "config.json").is_file()
    dev = read(stage / "retriever" / "dev.jsonl")
    assert [row["step"] for row in dev] == [0, len(read(stage / "retriever" / "curve.jsonl"))]
    # The passages are where they were: no second index was made.
    assert not (stage / "index").exists()
    settings = json.loads((stage / "retriever" / "model" / "agentic_r.json").read_text())
    base = json.loads((folder / "base" / "index" / "manifest.json").read_text())
    assert settings["trained_for"] == base["inputs"]["encoder"]
    assert main(["search", str(config), "who", *FAST, *options]) == 0
    assert capsys.readouterr().out.startswith("iteration 1 retriever")
    assert main(["evaluate", str(config), "--split", "dev", *FAST, *options]) == 0
    assert "re-ranked iteration 1, k=2" in capsys.readouterr().out


def test_a_published_file_needs_no_questions_and_no_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The corpus and upstream's rows; the agent that the config names cannot be loaded here."""
    corpus, given = tmp_path / "corpus.jsonl", tmp_path / "retriever_training_data.jsonl"
    write_jsonl(corpus, ({"id": f"p{n}", "contents": f"text {n}"} for n in range(9)))
    rows = [
        Example("d", f"q{n}", f"Who? [SEP] query {n}", (str(n),), ("6", "7", "8")) for n in range(6)
    ]
    write_training_set(given, "upstream", rows)
    files = f'[data]\nsource = "files"\ncorpus = "{corpus}"\n'
    config = write_config(tmp_path, files, runs=tmp_path / "runs", agent="no/such-model")
    options = ["--examples", str(given), "--form", "upstream", "--row-numbers"]
    assert train(config, *options, "--retriever.train.loss", "rank-net") == 0
    assert "To use it: --name NEW --retriever.base" in capsys.readouterr().out


def test_a_files_examples_of_dev_and_test_questions_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its numbers are ids of this corpus, which is said."""
    corpus, asked = tmp_path / "corpus.jsonl", tmp_path / "questions.jsonl"
    write_jsonl(corpus, ({"id": str(n), "contents": f"text {n}"} for n in range(9)))
    lines = [
        {"id": f"q{n}", "question": f"Who is {n}?", "golden_answers": ["x"]} for n in range(10)
    ]
    write_jsonl(asked, lines)
    files = f'[data]\nsource = "files"\ncorpus = "{corpus}"\nquestions = "{asked}"\n'
    config = write_config(tmp_path, files, runs=tmp_path / "runs", agent="no/such-model")
    given = tmp_path / "examples.jsonl"
    rows = [Example("", f"q{n}", f"Who is {n}? [SEP] it", ("1",), ("6", "7")) for n in range(10)]
    write_jsonl(given, rows)
    assert train(config, "--examples", str(given)) == 0
    said = capsys.readouterr().out
    assert "Left out: 4 of 10 examples, which are of dev or test questions" in said
    assert "Passages are read as ids of the corpus; if they are row numbers" in said


@pytest.mark.parametrize(
    ("dataset", "id", "query", "left_out"),
    [
        ("mine", "test_1", "anything", True),
        ("mine", "test_2", "Who  wrote Hives? [SEP] it", True),
        ("other", "7", "who wrote hives?", True),
        ("other", "test_1", "Who wr [SEP] it", True),
        ("other", "test_1", "Where is Ulm? [SEP] it", False),
        ("other", "test_1#3", "a query", True),
        ("", "test_1", "a query", True),
        ("other", "5", "a query", False),
        ("mine", "5", "a query", True),
        ("mine", "train_1", "Where is Ulm? [SEP] it", False),
    ],
)
def test_an_example_is_of_a_question_by_its_text_or_its_id(
    dataset: str, id: str, query: str, left_out: bool
) -> None:
    held = [Question(name, "Who wrote Hives?", ("x",), "mine") for name in ("test_1", "5")]
    other = Example("mine", "train_9", "Where is Bonn?", ("p1",), ())
    example = Example(dataset, id, query, ("p1",), ())
    kept = not_held_out("f", [example, other], held, lambda _: None)
    assert kept == ([other] if left_out else [example, other])
    if left_out:
        with pytest.raises(DataError, match="f: all of its 1 examples are of dev or test"):
            not_held_out("f", [example], held, lambda _: None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "loss: info-nce, temperature 0.05, "),
        ({"recipe": "upstream"}, "loss: upstream's recipe, cross-entropy, temperature 0.01, "),
        (
            {"recipe": "upstream", "loss": "rank-net"},
            "loss: upstream's recipe, half cross-entropy, half RankNet, temperature 0.01, ",
        ),
    ],
)
def test_a_model_card_says_what_was_minimised(settings: dict[str, str], said: str) -> None:
    result = TrainResult(cast(Encoder, None), [], "fp32")
    assert said in notes(RetrieverTrainConfig(**settings), 3, result)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["retriever", "--form", "upstream"], "--form goes with --examples FILE"),
        (["retriever", "--row-numbers"], "--row-numbers goes with --examples FILE"),
        (["tiny-agent", "--fork", "x"], "--fork: tiny-agent reuses nothing of a run"),
        (["agent", "--plan", "--fork", "x"], "--fork: --plan reuses nothing of a run"),
    ],
)
def test_options_that_nothing_would_read(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(write_config(tmp_path)), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_file_for_another_corpus_than_the_world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "examples.jsonl"
    write_jsonl(given, [Example("d", "q", "Who? [SEP] it", ("doc-1",), ("doc-2",))])
    config = write_config(tmp_path, runs=tmp_path / "runs")
    assert train(config, "--examples", str(given)) == 1
    said = capsys.readouterr().err
    assert "passage 'doc-1' is not in the corpus" in said
    assert "generated world" in said and "--data.source files --data.corpus FILE" in said


def test_a_file_with_texts_brings_its_passages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "rows.jsonl"
    row = {"positive": "Ulm is a city.", "negative_1": "Bread is food."}
    write_jsonl(given, ({"anchor": f"query {n}", **row} for n in range(6)))
    config = write_config(tmp_path, runs=tmp_path / "runs", agent="no/such-model")
    texts = ["--examples", str(given), "--form", "sentence-transformers"]
    for unfit, expected in (
        (["--row-numbers"], "--row-numbers: the format sentence-transformers holds its passages"),
        (["--retriever.train.keep", "best"], "retriever.train.hold_out: got 0, expected more"),
        (
            ["--retriever.input", "question+reasoning+query", "--retriever.train.patience", "2"],
            "the hops of dev questions are asked without the agent's reasoning",
        ),
    ):
        assert train(config, *texts, *unfit) == 2
        assert expected in capsys.readouterr().err
    assert train(config, *texts, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "#   given/retriever" in said and "iteration-1" not in said
    assert train(config, *texts) == 0
    assert "--retriever.base" in capsys.readouterr().out


@pytest.mark.slow
def test_training_on_a_file_of_upstream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Upstream's rows with row numbers for ids: mapped when asked, refused otherwise."""
    config = write_config(tmp_path, runs=tmp_path / "runs")
    given = tmp_path / "retriever_training_data.jsonl"
    rows = [
        Example(
            "world", f"q{n}", f"Who? [SEP] query {n}", (str(n),), tuple(map(str, range(20, 35)))
        )
        for n in range(6)
    ]
    write_training_set(given, "upstream", rows)
    options = ["--examples", str(given), "--form", "upstream"]
    assert train(config, *options) == 1
    assert "if they are row numbers, say --row-numbers" in capsys.readouterr().err
    assert train(config, *options, "--row-numbers") == 0
    said = capsys.readouterr().out
    model = tmp_path / "runs" / "small" / "given" / "retriever" / "model"
    assert f"--retriever.base {model}" in said and (model / "config.json").is_file()
    assert train(config, *options, "--row-numbers", learner="agent") == 2
    assert "--examples: got agent, expected retriever" in capsys.readouterr().err
