from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.data import Corpus, Questions, hop_asked, hops, load_questions
from agentic_r.errors import DataError
from agentic_r.types import Question

HOPS: list[dict[str, Any]] = [
    {"question": "Who directed Solaris?", "answer": "Tarkovsky", "passage_id": "p1"},
    {
        "question": "Where was #1 born?",
        "answer": "Zavrazhye",
        "passage_id": 7,
        "queries": ["birthplace of #1", "#1's  birthplace", "see #3"],
    },
]


def question(**metadata: Any) -> Question:
    return Question("q", "text", ("a",), metadata=metadata)


def questions_file(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_load(tmp_path: Path) -> None:
    path = questions_file(
        tmp_path,
        {"id": "x", "question": "Q?", "golden_answers": ["a", 1842], "metadata": {"root": "r"}},
        {"id": 3, "question": "R?", "golden_answers": ["b", True], "level": "hard"},
    )
    assert load_questions(path, "set") == [
        Question("x", "Q?", ("a", "1842"), "set", {"root": "r"}),
        Question("3", "R?", ("b", "True"), "set"),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "without questions"),
        ([{"id": "1", "question": "Q"}], ":1: got a line without golden_answers"),
        ([{"question": "Q", "golden_answers": ["a"]}], ":1: got a line without id"),
        ([{"id": "1", "question": "Q", "golden_answers": []}], ":1: got golden_answers"),
        ([{"id": "1", "question": "Q", "golden_answers": [" "]}], ":1: got golden_answers"),
        (
            [{"id": "1", "question": "Q", "golden_answers": "a"}],
            ":1: got .*expected `array`, got `str`",
        ),
        ([{"id": "1", "question": "", "golden_answers": ["a"]}], ":1: got an empty question"),
        ([{"id": 1, "question": "Q", "golden_answers": ["a"]}] * 2, ":2: .*which line 1 has too"),
    ],
)
def test_load_refuses(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_questions(questions_file(tmp_path, *rows))


def test_the_answer_of_a_multiple_choice_is_the_text_of_the_choice(tmp_path: Path) -> None:
    path = questions_file(
        tmp_path,
        {"id": "a", "question": "Q?", "golden_answers": [1], "choices": ["Ulm", "Bonn", 7]},
        {"id": "b", "question": "Q?", "golden_answers": [0, 2], "choices": ["Ulm", "Bonn", 7]},
        {"id": "c", "question": "Q?", "golden_answers": ["1"], "choices": ["Ulm", "1"]},
        {"id": "d", "question": "Q?", "golden_answers": [1], "choices": []},
    )
    found = load_questions(path, "set")
    assert [q.answers for q in found] == [("Bonn",), ("Ulm", "7"), ("1",), ("1",)]
    assert found[0].metadata == {"choices": ["Ulm", "Bonn", "7"]}
    assert found[3].metadata == {}
    assert [q.text for q in found[1:]] == ["Q? (A) Ulm (B) Bonn (C) 7", "Q? (A) Ulm (B) 1", "Q?"]


def test_choices_stay_on_one_line_and_have_letters(tmp_path: Path) -> None:
    row = {"id": "a", "question": "Q? ", "golden_answers": [0], "choices": ["one\ntwo", "b"]}
    assert load_questions(questions_file(tmp_path, row))[0].text == "Q? (A) one two (B) b"
    row["choices"] = [str(n) for n in range(27)]
    with pytest.raises(DataError, match=":1: got 27 choices, expected at most 26"):
        load_questions(questions_file(tmp_path, row))


@pytest.mark.parametrize("place", [2, -1])
def test_a_choice_that_is_not_there(tmp_path: Path, place: int) -> None:
    row = {"id": "a", "question": "Q?", "golden_answers": [place], "choices": ["Ulm", "Bonn"]}
    with pytest.raises(DataError, match=rf":1: got answer {place}, expected .* 0 to 1"):
        load_questions(questions_file(tmp_path, row))


def test_patterns_are_checked_and_marked(tmp_path: Path) -> None:
    rows = [{"id": n, "question": "Q?", "golden_answers": [a]} for n, a in enumerate(("a+", "(b"))]
    assert load_questions(questions_file(tmp_path, rows[0]), patterns=True)[0].metadata == {
        "patterns": True
    }
    with pytest.raises(DataError, match=r":2: got answer '\(b', expected a regular expression"):
        load_questions(questions_file(tmp_path, *rows), patterns=True)


def test_hops_fill_in_earlier_answers_only() -> None:
    first, second = hops(question(hops=HOPS))
    assert (first.index, first.forms) == (0, ("Who directed Solaris?",))
    assert second.question == "Where was Tarkovsky born?"
    assert second.forms[1:] == ("birthplace of Tarkovsky", "Tarkovsky's  birthplace", "see #3")
    assert second.passage_id == "7"
    assert hops(question()) == []


def test_malformed_hops_name_the_question() -> None:
    with pytest.raises(DataError, match=r"question 'q': metadata\[\"hops\"\]"):
        hops(question(hops=[{"question": "x"}]))


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("who directed  SOLARIS", 0),
        ("Where was Tarkovsky born", 1),
        ("Tarkovsky's birthplace?", 1),
        ("Where was #1 born?", None),
        ("Where was Lem born?", None),
        ("", None),
    ],
)
def test_hop_asked(query: str, index: int | None) -> None:
    hop = hop_asked(question(hops=HOPS), query)
    assert (hop.index if hop else None) == index


@given(
    roots=st.lists(st.integers(0, 6), min_size=1, max_size=40),
    sizes=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    seed=st.integers(0, 3),
)
def test_split_is_disjoint_and_keeps_roots_together(
    roots: list[int], sizes: tuple[float, float], seed: int
) -> None:
    questions = Questions(
        Question(str(n), "Q", ("a",), metadata={"root": root}) for n, root in enumerate(roots)
    )
    dev, test, train = questions.split(*sizes, None, seed=seed)
    assert sorted([*dev, *test, *train], key=lambda q: int(q.id)) == questions
    assert len(dev) <= sizes[0] * len(questions) + 1e-6
    parts = [{q.metadata["root"] for q in part} for part in (dev, test, train)]
    assert sum(len(part) for part in parts) == len(set(roots))
    assert questions.split(*sizes, None, seed=seed) == (dev, test, train)


def test_split_by_counts_without_roots() -> None:
    questions = Questions(Question(str(n), "Q", ("a",)) for n in range(100))
    left, right = questions.split(30, 50, seed=1)
    assert (len(left), len(right)) == (30, 50)
    assert not {q.id for q in left} & {q.id for q in right}
    assert [int(q.id) for q in left] == sorted(int(q.id) for q in left)
    assert questions.split(30, 50, seed=2)[0] != left
    rest, part = questions.split(None, 10)
    assert (len(rest), len(part)) == (90, 10)


def test_split_refuses_what_cannot_be() -> None:
    questions = Questions([Question("1", "Q", ("a",))])
    with pytest.raises(DataError, match="got 1 questions, expected at least 2"):
        questions.split(1, 1)
    with pytest.raises(DataError, match=r"split size of 1\.5"):
        questions.split(1.5)


def test_real_multihop_questions_match_their_corpus() -> None:
    root = os.environ.get("AGENTIC_R_DATA", "")
    folder = next(
        (
            f
            for f in (Path(root), Path(root) / "multihop-wiki")
            if f.joinpath("corpus.jsonl").exists()
        ),
        None,
    )
    if not root or folder is None:
        pytest.skip("AGENTIC_R_DATA names no folder with multihop-wiki")
    corpus = Corpus.load(folder / "corpus.jsonl")
    questions = load_questions(folder / "musique_dev.jsonl", "musique")
    assert (len(corpus), len(questions)) == (9002, 30)
    for question in questions:
        for hop in hops(question):
            assert hop.passage_id in corpus
            assert hop_asked(question, hop.question.upper()) == hop
