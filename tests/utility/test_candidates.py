from __future__ import annotations

from collections.abc import Sequence

import pytest

from agentic_r.errors import ConfigError
from agentic_r.types import Hit, Passage, Question, Search, Trajectory, Turn
from agentic_r.utility.candidates import candidates, candidates_at


class Counting:
    """Finds passages named after the query, and remembers each call."""

    def __init__(self, repeat: bool = False) -> None:
        self.calls: list[list[str]] = []
        self.repeat = repeat

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        self.calls.append(list(queries))
        names = ["0", *map(str, range(k - 1))] if self.repeat else [str(n) for n in range(k)]
        return [[Hit(Passage(f"{query}/{name}", name), 0.5) for name in names] for query in queries]


def trajectory(name: str, *sent: str) -> Trajectory:
    turn = Turn("", "search", tuple(Search("bare", each) for each in sent))
    return Trajectory(name, Question(name, "?", ("a",)), (turn,))


def test_every_search_gets_its_candidates_for_the_string_as_sent() -> None:
    retriever = Counting()
    rows = candidates(
        [trajectory("a", "x", "y"), trajectory("b"), trajectory("c", "x")], retriever, 3
    )
    assert retriever.calls == [["x", "y"]]
    assert [(row[0].trajectory_id, row[0].search) for row in rows] == [("a", 0), ("a", 1), ("c", 0)]
    assert [each.passage.id for each in rows[2]] == ["x/0", "x/1", "x/2"]
    assert [each.rank for each in rows[2]] == [0, 1, 2]


def test_a_passage_found_twice_counts_once() -> None:
    (row,) = candidates_at([(trajectory("a", "x"), 0)], Counting(repeat=True), 4)
    assert [(each.passage.id, each.rank) for each in row] == [("x/0", 0), ("x/1", 1), ("x/2", 2)]


def test_nothing_to_search_makes_no_call_and_depth_is_checked() -> None:
    retriever = Counting()
    assert candidates([trajectory("a")], retriever, 5) == []
    assert retriever.calls == []
    with pytest.raises(ConfigError, match="got 0, expected 1 or more"):
        candidates([trajectory("a", "x")], retriever, 0)
