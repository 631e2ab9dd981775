"""What the agent asks on dev questions, and what its searches should find."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_r.asked import asked, asked_hops, asks_dev
from agentic_r.config import load_config
from agentic_r.data.questions import Questions
from agentic_r.loop import stage_names
from agentic_r.types import Hit, Passage, Question, Search, Trajectory, Turn

from .runs import write_config

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
    return [(example.query, example.positives) for example in asked(trajectory)]


def test_a_search_that_asks_a_hop_should_find_its_passage() -> None:
    made = searched(("Who wrote Hives?", "p9"), ("Where was Eva born?", "p9"))
    assert found(made) == [
        ("sent Who wrote Hives?", ("p1",)),
        ("sent Where was Eva born?", ("p3",)),
    ]
    assert [example.negatives for example in asked(made)] == [(), ()]
    assert {(example.dataset, example.question_id) for example in asked(made)} == {("d", "q")}


def test_a_search_in_other_words_should_find_what_was_not_shown_yet() -> None:
    made = searched(("author of Hives", "p1"), ("birthplace of Eva", "p2"), ("Eva, born", "p3"))
    assert found(made) == [
        ("sent author of Hives", ("p1", "p3")),
        ("sent birthplace of Eva", ("p3",)),
        ("sent Eva, born", ("p3",)),
    ]
    assert found(searched(("a", "p1"), ("b", "p3"), ("c", "p2"))) == [
        ("sent a", ("p1", "p3")),
        ("sent b", ("p3",)),
    ]


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


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"retriever.train.hold_out": "0.1"}, False),
        ({"retriever.train.evaluations": "0"}, False),
        ({"retriever.train.hold_out": "0.1", "retriever.rerank.epochs": "1"}, True),
    ],
)
def test_dev_questions_are_asked_where_something_is_measured_on_them(
    tmp_path: Path, settings: dict[str, str], expected: bool
) -> None:
    config = load_config(write_config(tmp_path), list(settings.items()))
    assert asks_dev(config) is expected
    assert ("iteration-1/dev" in stage_names(config)) is expected
    assert "iteration-2/dev" not in stage_names(config)
