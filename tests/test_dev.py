"""What the agent asks on dev questions, and what its searches should find."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_r.config import load_config
from agentic_r.data.corpus import Corpus
from agentic_r.data.questions import Questions
from agentic_r.dev import dev_hops, dev_searches, needs_dev, to_find
from agentic_r.loop import open_run, stage_names
from agentic_r.parts import Data
from agentic_r.steps import Loop, Retrieval
from agentic_r.testing import ScriptedLLM, TableRetriever
from agentic_r.types import Hit, Passage, Question, Search, Trajectory, Turn

from .runs import read_lines, write_config

HOPS = [
    {"question": "Who wrote Hives?", "answer": "Ada Bo", "passage_id": "p1"},
    {"question": "Who is #1's mother?", "answer": "Eva"},
    {"question": "Where was #2 born?", "answer": "Ulm", "passage_id": "p3"},
]
QUESTION = Question("q", "Where was the writer of Hives born?", ("Ulm",), "d", {"hops": HOPS})


def searched(*made: tuple[str, str]) -> Trajectory:
    """A trajectory of searches, each a query and the id of what it found."""
    turns = tuple(
        Turn(
            query,
            "search",
            searches=(Search(query, f"sent {query}", (Hit(Passage(id, "", ""), 1.0),)),),
        )
        for query, id in made
    )
    return Trajectory("t", QUESTION, turns)


def found(trajectory: Trajectory) -> list[tuple[str, tuple[str, ...]]]:
    return [(example.query, example.positives) for example in to_find(trajectory)]


def test_a_search_that_asks_a_hop_should_find_its_passage() -> None:
    made = searched(("Who wrote Hives?", "p9"), ("Where was Eva born?", "p9"))
    assert found(made) == [
        ("sent Who wrote Hives?", ("p1",)),
        ("sent Where was Eva born?", ("p3",)),
    ]
    assert [example.negatives for example in to_find(made)] == [(), ()]
    assert {(example.dataset, example.question_id) for example in to_find(made)} == {("d", "q")}


def test_a_search_in_other_words_is_taken_for_the_hop_whose_words_it_shares() -> None:
    made = searched(("author of Hives", "p9"), ("Eva, born", "p1"), ("what is known", "p2"))
    assert found(made) == [
        ("sent author of Hives", ("p1",)),
        ("sent Eva, born", ("p3",)),
        ("sent what is known", ("p3",)),
    ]


def test_a_search_that_shares_no_word_should_find_what_was_not_shown_yet() -> None:
    made = searched(("a", "p1"), ("b", "p3"), ("c", "p2"))
    assert found(made) == [("sent a", ("p1", "p3")), ("sent b", ("p3",))]


def test_a_hop_without_a_passage_and_a_search_made_twice_are_left_out() -> None:
    assert found(searched(("Who is Ada Bo's mother?", "p9"))) == []
    made = searched(("Who wrote Hives?", "p9"), ("Who wrote Hives?", "p9"))
    assert len(found(made)) == 1


def test_hops_that_name_their_passage_become_dev_queries() -> None:
    hops = [
        {"question": "Who wrote Hives?", "answer": "Ada Bo", "passage_id": "p1"},
        {"question": "Who is #1's mother?", "answer": "Eva"},
        {"question": "Where was #2 born?", "answer": "Ulm", "passage_id": "p3"},
    ]
    questions = Questions(
        [Question("q", "Where was the writer of Hives born?", ("Ulm",), "d", {"hops": hops})]
    )
    first, last = dev_hops(questions, "question+query")
    assert first.query == "Where was the writer of Hives born? [SEP] Who wrote Hives?"
    assert (first.positives, first.negatives) == (("p1",), ())
    assert (last.query, last.positives) == (
        "Where was the writer of Hives born? [SEP] Where was Eva born?",
        ("p3",),
    )
    (_, last) = dev_hops(questions, "question+history+query")
    assert last.query.endswith(
        "Who wrote Hives? [SEP] Who is Ada Bo's mother? [SEP] Where was Eva born?"
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1]),
        ({"retriever.train.hold_out": "0.1"}, []),
        ({"retriever.train.evaluations": "0"}, []),
        ({"retriever.train.hold_out": "0.1", "retriever.rerank.epochs": "1"}, [1]),
        ({"agent.train.epochs": "1"}, [1, 2]),
        ({"agent.train.method": "grpo"}, [1, 2]),
    ],
)
def test_dev_questions_are_asked_once_for_each_agent_where_they_are_needed(
    tmp_path: Path, settings: dict[str, str], expected: list[int]
) -> None:
    """An agent that learns asks other things in the next iteration."""
    config = load_config(write_config(tmp_path), list(settings.items()))
    assert needs_dev(config) is bool(expected)
    names = stage_names(config)
    assert [n for n in (1, 2) if f"iteration-{n}/dev" in names] == expected


@pytest.mark.parametrize("dialect", ["search-r1", "search-r1-rl"])
def test_the_right_passages_are_at_hand_however_the_dialect_puts_the_question(
    tmp_path: Path, dialect: str
) -> None:
    """Also where the agent asks in words of its own; what names no passage is not asked."""
    passages = [Passage(f"p{n}", f"T{n}", f"text {n}") for n in range(12)]
    hops = [
        {"question": "Who wrote Hives?", "answer": "Ada Bo", "passage_id": "p1"},
        {"question": "Where was #1 born?", "answer": "Ulm", "passage_id": "p2"},
    ]
    asked = Question("q", "Where was the writer of Hives born", ("Ulm",), "d", {"hops": hops})
    data = Data(
        Corpus(passages),
        Questions(),
        Questions([asked, Question("r", "Who?", ("X",))]),
        Questions(),
        "a test",
    )
    said = iter(("author of Hives", "birthplace of Ada Bo, born"))

    def answer(prompt: str) -> str:
        query = next(said, None)
        return f"<search> {query} </search>" if query else "<answer> Ulm </answer>"

    settings = [("agent.dialect", dialect), ("retriever.k", "1")]
    config = load_config(write_config(tmp_path, runs=tmp_path / "runs"), settings)
    untouched = Retrieval(TableRetriever({}, passages[9:]), "table")
    with open_run(config) as run:
        loop = Loop(run, config, data, ScriptedLLM(answer), "scripted")
        first, second = dev_searches(loop, "iteration-1/dev", untouched)
        assert dev_searches(loop, "iteration-1/dev", untouched) == [first, second]
    assert (first.positives, second.positives) == (("p1",), ("p2",))
    rows = read_lines(tmp_path / "runs" / "small" / "iteration-1" / "dev" / "trajectories.jsonl")
    shown = [turn["searches"][0]["hits"][0]["passage"]["id"] for turn in rows[0]["turns"][:2]]
    assert len(rows) == 1 and shown == ["p1", "p2"]
