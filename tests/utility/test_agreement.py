"""Agreement of two judges: the correlation, the positives in common, and order bias."""

from __future__ import annotations

import asyncio
import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.protocols import JudgeRequest
from agentic_r.utility.agreement import Shuffled, agreement, tau_b, top

SCORES = st.lists(
    st.tuples(st.sampled_from([None, 0.0, 50.0, 70.0, 90.0]), st.sampled_from([None, 10.0, 80.0])),
    max_size=8,
)


def textbook(first: list[float | None], second: list[float | None]) -> float:
    """Tau-b by counting pairs: (agreeing - disagreeing) / sqrt of the pairs each side orders."""
    known = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    score = ordered_first = ordered_second = 0
    for (a, b), (c, d) in combinations(known, 2):
        score += (a > c) * (b > d) + (a < c) * (b < d) - (a > c) * (b < d) - (a < c) * (b > d)
        ordered_first += a != c
        ordered_second += b != d
    if not ordered_first or not ordered_second:
        return math.nan
    return score / math.sqrt(ordered_first * ordered_second)


@given(SCORES)
def test_tau_b_is_that_of_the_textbook(pairs: list[tuple[float | None, float | None]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    assert tau_b(first, second) == pytest.approx(textbook(first, second), nan_ok=True)


def test_positives_are_all_of_the_best_level() -> None:
    assert top([60.0, None, 90.0, 90.0], 60.0) == {2, 3}
    assert top([10.0, 59.0], 60.0) == set()
    assert top([None, None], 0.0) == set()


def test_what_is_counted_and_said() -> None:
    found = agreement([[90.0, 90.0, 0.0], [10.0, 20.0]], [[90.0, 0.0, 0.0], [None, 80.0]])
    assert (found.first, found.second, found.both) == (2, 2, 1)
    assert found.kept == (1, 2) and found.unread == (0, 1)
    assert found.ordered == 1 and found.correlation == pytest.approx(0.5)
    said = found.lines(("offline", "gold"))
    assert "positives in common 1 of 3 (33%)" in said
    assert "  gold: 2 positives in 2 searches, 1 score unread" in said
    empty = agreement([], [])
    assert empty.lines(("a", "b"))[2] == "positives in common 0 of 0 (none)"


class ByPlace:
    """A judge with nothing but order bias: the first passage that it is shown wins."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, ...]] = []

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        self.shown.append(request.passages)
        return [100.0 - place for place in range(len(request.passages))]


class ByText:
    """A judge without order bias."""

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        return [float(text) for text in request.passages]


def request(query: str = "q") -> JudgeRequest:
    return JudgeRequest("Who?", ("Ann",), query, None, "", tuple(str(n) for n in range(12)))


def test_order_bias_shows() -> None:
    judge = ByPlace()
    straight = asyncio.run(judge.relevance(request()))
    moved = asyncio.run(Shuffled(judge, 1).relevance(request()))
    assert judge.shown[1] != judge.shown[0] and sorted(judge.shown[1]) == sorted(judge.shown[0])
    assert agreement([straight], [moved]).correlation < 0.9
    assert asyncio.run(Shuffled(ByText(), 1).relevance(request())) == [float(n) for n in range(12)]


def test_the_order_is_the_same_each_time_and_another_for_another_query() -> None:
    judge = ByPlace()
    for query in ("q", "q", "other"):
        asyncio.run(Shuffled(judge, 3).relevance(request(query)))
    assert judge.shown[0] == judge.shown[1] != judge.shown[2]
