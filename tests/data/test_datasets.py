from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.data.datasets import (
    SPLITS,
    Source,
    gold,
    load_beir,
    load_dataset,
    load_datasets,
    load_qrels,
    sampled,
)
from agentic_r.data.questions import Questions
from agentic_r.errors import DataError
from agentic_r.types import Question


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_sets(folder: Path, count: int = 5) -> None:
    for name, split in (("nq", "test"), ("musique", "dev"), ("curatedtrec", "test")):
        rows = [
            {"id": f"test_{n}", "question": f"{name} {n}?", "golden_answers": ["a.c"]}
            for n in range(count)
        ]
        write(folder / name / f"{split}.jsonl", *rows)


def test_several_sets_are_keyed_by_name_and_id(tmp_path: Path) -> None:
    write_sets(tmp_path)
    names = ("nq", "musique")
    questions = load_datasets([Source(name, str(tmp_path / name)) for name in names])
    assert len({question.key for question in questions}) == 10
    assert [q.dataset for q in questions] == ["nq"] * 5 + ["musique"] * 5
    assert {q.id for q in questions[:5]} == {q.id for q in questions[5:]}


def test_a_name_is_enough_for_the_papers_sets() -> None:
    assert set(SPLITS) == set(
        ["nq", "triviaqa", "popqa", "bamboogle", "hotpotqa", "2wikimultihopqa", "musique"]
    )
    where = "hf://datasets/RUC-NLPIR/FlashRAG_datasets"
    assert Source("nq").where == f"{where}/nq/test.jsonl"
    assert Source("hotpotqa").where == f"{where}/hotpotqa/dev.jsonl"
    assert Source("nq", split="dev").where == f"{where}/nq/dev.jsonl"
    with pytest.raises(DataError, match=r"data set 'squad': nothing says which split"):
        _ = Source("squad").where
    assert Source("squad", "my/squad.jsonl").where == "my/squad.jsonl"


def test_curatedtrec_answers_are_patterns_unless_said_otherwise(tmp_path: Path) -> None:
    write_sets(tmp_path, 1)
    folder = str(tmp_path / "curatedtrec")
    assert load_dataset(Source("curatedtrec", folder, "test"))[0].metadata == {"patterns": True}
    plain = Source("curatedtrec", folder, "test", answers="text")
    assert load_dataset(plain)[0].metadata == {}
    nq = Source("nq", str(tmp_path / "nq"), answers="patterns")
    assert load_dataset(nq)[0].metadata == {"patterns": True}


@given(size=st.integers(0, 12), count=st.integers(1, 10), seed=st.integers(0, 5))
def test_a_sample_is_in_order_and_depends_on_the_seed_alone(
    size: int, count: int, seed: int
) -> None:
    questions = Questions(Question(str(n), "Q", ("a",), "set") for n in range(count))
    taken = sampled(questions, size, seed)
    assert len(taken) == (min(size, count) if size else count)
    assert [int(q.id) for q in taken] == sorted({int(q.id) for q in taken})
    assert sampled(questions, size, seed) == taken


def test_other_seeds_draw_other_samples() -> None:
    questions = Questions(Question(str(n), "Q", ("a",), "set") for n in range(100))
    assert sampled(questions, 10, 0) != sampled(questions, 10, 1)


def test_one_name_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got data set 'nq' twice"):
        load_datasets([Source("nq"), Source("nq", str(tmp_path))])


BEIR = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td9\t1\n"


def test_beir_queries_and_judgements(tmp_path: Path) -> None:
    rows = [{"_id": "q1", "text": "one?", "metadata": {}}, {"_id": 2, "text": "two?"}]
    queries = write(tmp_path / "queries.jsonl", *rows)
    (tmp_path / "test.tsv").write_text(BEIR)
    assert load_qrels(tmp_path / "test.tsv") == {"q1": {"d1": 2, "d2": 0}, "q2": {"d9": 1}}
    (question,) = load_beir(queries, tmp_path / "test.tsv", "scifact")
    assert (question.key, question.answers) == (("scifact", "q1"), ())
    assert gold(question) == {"d1": 2}


def test_trec_judgements_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "beir").write_text(BEIR)
    (tmp_path / "trec").write_text("q1 0 d1 2\nq1 0 d2 0\nq2 0 d9 1\n")
    assert load_qrels(tmp_path / "beir") == load_qrels(tmp_path / "trec")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "without judgements"),
        ("query-id corpus-id score\n", "without judgements"),
        ("q1 d1\n", ":1: got 2 columns"),
        ("q1 0 d1 yes\n", ":1: got grade 'yes', expected an integer"),
        ("q1 0 d1 1\nq1 0 d1 0\n", ":2: 'q1' and 'd1' were judged otherwise before"),
    ],
)
def test_malformed_judgements(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "qrels").write_text(text)
    with pytest.raises(DataError, match=message):
        load_qrels(tmp_path / "qrels")


def test_malformed_queries(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("q1 0 d1 1\n")
    with pytest.raises(DataError, match=r":1: .*missing required field `text`"):
        load_beir(write(tmp_path / "a.jsonl", {"_id": "q1"}), tmp_path / "qrels")
    twice = write(tmp_path / "b.jsonl", *[{"_id": "q1", "text": "x"}] * 2)
    with pytest.raises(DataError, match=r":2: got id 'q1', which line 1 has too"):
        load_beir(twice, tmp_path / "qrels")
    other = write(tmp_path / "c.jsonl", {"_id": "q7", "text": "x"})
    with pytest.raises(DataError, match=r"such as 'q1', are none of the 1 questions"):
        load_beir(other, tmp_path / "qrels")


def test_judgements_of_a_question_file(tmp_path: Path) -> None:
    write_sets(tmp_path, 2)
    (tmp_path / "qrels").write_text("test_1 0 p7 1\n")
    source = Source("nq", str(tmp_path / "nq"), qrels=str(tmp_path / "qrels"))
    assert [gold(question) for question in load_dataset(source)] == [{}, {"p7": 1}]


def test_gold_from_hops_and_lists() -> None:
    hop = {"question": "Q", "answer": "a", "passage_id": "p1"}
    assert gold(Question("1", "Q", ("a",), metadata={"hops": [hop]})) == {"p1": 1}
    assert gold(Question("1", "Q", ("a",), metadata={"gold_passage_ids": ["p1", 2]})) == {
        "p1": 1,
        "2": 1,
    }
    assert gold(Question("1", "Q", ("a",))) == {}
