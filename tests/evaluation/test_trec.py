from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.errors import ConfigError, DataError, MissingExtraError
from agentic_r.evaluation.trec import (
    measure_files,
    measure_retriever,
    qrel_lines,
    run_lines,
    token,
    write_trec,
)
from agentic_r.types import Hit, Passage, Question, Search, Trajectory, Turn

HOPS = [
    {"question": "Who wrote Hives?", "answer": "Ada", "passage_id": "p1"},
    {"question": "Where was Ada born?", "answer": "Ulm", "passage_id": "p 2"},
]


def hits(*ids: str) -> list[Hit]:
    return [Hit(Passage(id, "text"), 1.0 / rank) for rank, id in enumerate(ids, 1)]


def searched(id: str, *queries: str, **metadata: object) -> Trajectory:
    question = Question(id, "Q?", ("a",), "set", metadata)
    turns = tuple(Turn("t", "search", (Search(query, f"Q? [SEP]\t{query}"),)) for query in queries)
    return Trajectory(f"set/{id}", question, turns, "answered")


@given(st.text(max_size=12))
def test_any_text_is_one_column_and_can_be_read_back(text: str) -> None:
    column = token(text)
    assert len(column.split()) == 1
    assert column.isprintable() or "%" in column or not text.isprintable()
    assert unquote(column) == (text or "\0")


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=12))
def test_scores_keep_the_order_of_the_ranks(scores: list[float]) -> None:
    trajectory = searched("q", "x")
    top = [[[Hit(Passage(f"p{n}", "t"), score) for n, score in enumerate(scores)]]]
    rows = [line.split() for line in run_lines([trajectory], top, "tag")]
    assert [row[2] for row in rows] == [f"p{n}" for n in range(len(scores))]
    assert [int(row[3]) for row in rows] == list(range(1, len(scores) + 1))
    written = [float(row[4]) for row in rows]
    assert all(left > right for left, right in itertools.pairwise(written))
    if scores == sorted(set(scores), reverse=True):
        assert written == pytest.approx(scores)


def test_judgements_are_the_asked_hop_else_what_the_question_needs() -> None:
    known = searched("a", "who wrote hives", "where does it all begin", hops=HOPS)
    unknown = searched("b", "anything")
    graded = searched("c", "anything", qrels={"p9": 2, "p8": 0})
    assert list(qrel_lines([known, unknown, graded])) == [
        "set/a:0 0 p1 1\n",
        "set/a:1 0 p1 1\n",
        "set/a:1 0 p%202 1\n",
        "set/c:0 0 p9 2\n",
    ]


def test_files_read_back_with_the_library_measure_what_they_should(tmp_path: Path) -> None:
    trajectories = [
        searched("a", "Who wrote Hives?", "Where was Ada born?", hops=HOPS),
        searched("b", "anything"),
    ]
    top = [[hits("p7", "p1", "p3"), hits("p 2", "p1")], [hits("p1")]]
    run, qrels = write_trec(tmp_path, "one", trajectories, top, "my agent + tag")
    import ir_measures

    read = list(ir_measures.read_trec_run(str(run)))
    assert {row.query_id for row in read} == {"set/a:0", "set/a:1", "set/b:0"}
    assert {row.doc_id for row in read if row.query_id == "set/a:1"} == {"p%202", "p1"}
    found = measure_files(run, qrels)
    # Rank 2 and rank 1 of two judged searches; the search without judgements is left out.
    assert found["RR@10"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["nDCG@10"] == pytest.approx((1 / 1.584962500721156 + 1) / 2)
    assert found["R@10"] == found["Success@3"] == 1.0
    assert (tmp_path / "one.tsv").read_text().splitlines()[
        0
    ] == "set/a:0\tQ? [SEP] Who wrote Hives?"


def test_a_judged_search_that_found_nothing_counts(tmp_path: Path) -> None:
    trajectories = [searched("a", "Who wrote Hives?", "Where was Ada born?", hops=HOPS)]
    run, qrels = write_trec(tmp_path, "one", trajectories, [[hits("p1"), []]], "tag")
    assert measure_files(run, qrels, ["R@10"]) == {"R@10": 0.5}


def test_what_cannot_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, qrels = write_trec(tmp_path, "one", [searched("b", "x")], [[hits("p1")]], "tag")
    with pytest.raises(DataError, match="no search has a passage known to be relevant"):
        measure_files(run, qrels)
    with pytest.raises(ConfigError, match="expected names of ir_measures such as nDCG@10"):
        measure_files(run, qrels, ["nonsense@10"])
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtraError, match=r"agentic-r\[trec\]"):
        measure_files(run, qrels)


class Table:
    """Finds what it was told to find."""

    def __init__(self, found: dict[str, list[Hit]]) -> None:
        self.found = found

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        return [self.found.get(query, [])[:k] for query in queries]


def test_a_retriever_is_measured_without_any_agent() -> None:
    questions = [
        Question("1", "one", (), "beir", {"qrels": {"p1": 2, "p2": 1}}),
        Question("2", "two", (), "beir", {"qrels": {"p3": 1}}),
        Question("3", "three", (), "beir", {"qrels": {}}),
    ]
    retriever = Table({"one": hits("p2", "p1"), "two": hits("p9", "p8")})
    found = measure_retriever(questions, retriever, ["nDCG@10", "R@10", "RR@10"])
    gain = (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3))
    assert found == pytest.approx({"nDCG@10": gain / 2, "R@10": 0.5, "RR@10": 0.5})
    assert measure_retriever(questions, retriever, ["R@1"], depth=1) == {"R@1": 0.25}
    with pytest.raises(DataError, match="nothing to measure"):
        measure_retriever(questions[2:], retriever)
