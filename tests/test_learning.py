"""The loop's training stages, from the command line as a user runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agentic_r.cli import main
from agentic_r.data.questions import Questions
from agentic_r.exchange.training_sets import write_training_set
from agentic_r.io import write_jsonl
from agentic_r.learning import asked_hops
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
            [
                *("--retriever.input", "question+reasoning+query"),
                *("--retriever.train.patience", "2"),
            ],
            "retriever.train.hold_out: got 0, expected more",
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


def test_a_reranker_needs_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(write_config(tmp_path), learner="reranker") == 2
    assert "retriever.rerank.epochs is 0" in capsys.readouterr().err


def test_hops_that_name_their_passage_become_dev_queries() -> None:
    hops = [
        {"question": "Who wrote Hives?", "answer": "Ada Bo", "passage_id": "p1"},
        {"question": "Who is #1's mother?", "answer": "Eva"},
        {"question": "Where was #2 born?", "answer": "Ulm", "passage_id": "p3"},
    ]
    asked = Questions(
        [Question("q", "Where was the writer of Hives born?", ("Ulm",), "d", {"hops": hops})]
    )
    first, last = asked_hops(asked, "question+query")
    assert first.query == "Where was the writer of Hives born? [SEP] Who wrote Hives?"
    assert (first.positives, first.negatives) == (("p1",), ())
    assert (last.query, last.positives) == (
        "Where was the writer of Hives born? [SEP] Where was Eva born?",
        ("p3",),
    )
    (_, last) = asked_hops(asked, "question+history+query")
    assert last.query.endswith(
        "Who wrote Hives? [SEP] Who is Ada Bo's mother? [SEP] Where was Eva born?"
    )


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
    assert "in-batch accuracy" in said
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
    assert "--retriever.base" in capsys.readouterr().out


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
