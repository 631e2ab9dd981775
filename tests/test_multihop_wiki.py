"""Real passages and human questions, from the folder that AGENTIC_R_DATA names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agentic_r.cli import main
from agentic_r.config import load_config
from agentic_r.data.corpus import Corpus
from agentic_r.data.questions import Questions, hop_asked, hops, load_questions
from agentic_r.errors import ConfigError
from agentic_r.metrics import answer_in
from agentic_r.parts import open_data, require_questions

from .scripts import benchmark

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "multihop-wiki.toml"
FOLDER = Path(os.environ.get("AGENTIC_R_DATA") or "no-such-folder")
needs_data = pytest.mark.skipif(
    not (FOLDER / "corpus.jsonl").is_file(),
    reason="AGENTIC_R_DATA does not name the folder of the multihop-wiki data",
)
SMALL = [
    *("--retriever.max_length", "64", "--retriever.train.epochs", "1"),
    *("--retriever.train.negatives", "2", "--utility.candidates", "12"),
    *("--utility.negatives", "4", "--loop.iterations", "1", "--evaluation.ks", "[2]"),
    *("--retriever.k", "2", "--evaluation.bootstrap", "200"),
]


@pytest.fixture(scope="module")
def real() -> tuple[Corpus, Questions, Questions]:
    return (
        Corpus.load(FOLDER / "corpus.jsonl"),
        load_questions(FOLDER / "musique_train.jsonl"),
        load_questions(FOLDER / "musique_dev.jsonl"),
    )


def test_the_config_asks_for_its_files() -> None:
    with pytest.raises(ConfigError, match=r"data\.corpus: got nothing, .* give --data\.corpus"):
        load_config(CONFIG)
    with pytest.raises(ConfigError, match=r"data\.questions: got nothing"):
        require_questions(load_config(CONFIG, [("data.corpus", "c.jsonl")]))
    config = load_config(CONFIG, [("data.corpus", "c.jsonl"), ("data.questions", "q.jsonl")])
    assert config.agent.model == "oracle-reader"


def test_the_benchmark_says_what_it_misses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AGENTIC_R_DATA", raising=False)
    assert benchmark("multihop_wiki").main([]) == 2
    assert "AGENTIC_R_DATA is not set" in capsys.readouterr().err


@needs_data
def test_the_whole_corpus_loads_and_the_annotation_fits(
    real: tuple[Corpus, Questions, Questions],
) -> None:
    corpus, train, dev = real
    assert (len(corpus), len(train), len(dev)) == (9002, 70, 30)
    assert corpus.get("p01150").title
    for question in [*train, *dev]:
        for hop in hops(question):
            assert "#" not in hop.question
            assert hop.passage_id in corpus
            assert hop_asked(question, f" {hop.question.upper()}? ") == hop
    held = [
        answer_in(corpus.get(hop.passage_id).contents, hop.answer)
        for question in dev
        for hop in hops(question)
    ]
    assert all(held), "with oracle retrieval the reader answers every dev question"


@needs_data
def test_relations_in_place_of_sentences_are_queries_too(
    real: tuple[Corpus, Questions, Questions],
) -> None:
    _, _, dev = real
    question = dev[1]
    first, second = hops(question)
    assert (first.question, second.question) == (
        "Maiden Japan >> performer",
        "Iron Maiden >> location of formation",
    )
    assert hop_asked(question, "Iron Maiden >> location of formation") == second


@needs_data
def test_dev_is_carved_out_of_train_and_each_question_is_its_own_cluster() -> None:
    files = [("data.corpus", "corpus.jsonl"), ("data.questions", "musique_train.jsonl")]
    files.append(("data.test", "musique_dev.jsonl"))
    config = load_config(CONFIG, [(key, str(FOLDER / name)) for key, name in files])
    data = open_data(config)
    assert (len(data.train), len(data.dev), len(data.test)) == (63, 7, 30)
    assert not {q.id for q in data.train} & {q.id for q in data.dev}
    assert not any("root" in q.metadata for q in data.test)


@needs_data
def test_the_loop_runs_on_a_slice(
    real: tuple[Corpus, Questions, Questions],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus, train, dev = real
    chosen = {"musique_train.jsonl": train[:6], "musique_dev.jsonl": dev[:4]}
    ids: dict[str, None] = {}
    for name, questions in chosen.items():
        rows = [
            {
                "id": q.id,
                "question": q.text,
                "golden_answers": q.answers,
                "metadata": {"hops": q.metadata["hops"]},
            }
            for q in questions
        ]
        (tmp_path / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        for question in questions:
            gold = question.metadata["gold_passage_ids"]
            ids |= dict.fromkeys([*gold, *question.metadata["distractor_passage_ids"][:6]])
    passages = [
        {"id": id, "contents": f'"{p.title}"\n{p.text}'} for id in ids for p in [corpus.get(id)]
    ]
    lines = "".join(f"{json.dumps(passage)}\n" for passage in passages)
    (tmp_path / "corpus.jsonl").write_text(lines)
    monkeypatch.setenv("AGENTIC_R_DATA", str(tmp_path))

    assert benchmark("multihop_wiki").main(["--runs", str(tmp_path / "runs"), *SMALL]) == 0

    out = capsys.readouterr().out
    assert "EM by number of hops" in out
    report = json.loads((tmp_path / "runs" / "multihop-wiki" / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == [
        "BM25 query, k=2",
        "untouched query, k=2",
        "untouched question+query, k=2",
        "iteration 1, k=2",
        "oracle, k=2",
    ]
    assert rows["oracle, k=2"]["em"] == rows["oracle, k=2"]["hit_at_3"] == 1.0
    assert all(row["n"] == 4 for row in rows.values())
    assert report["setup"]["roots"] == 4
    assert report["labelling"][0]["kept"] > 0
    # The finished run is read back, not run again.
    assert main(["report", str(tmp_path / "runs" / "multihop-wiki")]) == 0
    assert "oracle, k=2" in capsys.readouterr().out
