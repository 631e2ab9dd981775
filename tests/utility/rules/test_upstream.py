from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.types import Utility
from agentic_r.utility.rules.upstream import UpstreamRule
from agentic_r.utility.rules.verdict import (
    ANSWERED,
    NO_CORRECT,
    NO_RELEVANT,
    NOT_MEASURED,
    TOO_FEW,
    Verdict,
    levels,
)

LEVELS = (0, 20, 40, 59, 60, 61, 80, 100)


def literal(
    relevance: Sequence[float], correctness: Sequence[float], negatives: int
) -> tuple[list[int], list[int]] | None:
    """Contracts B6, steps 3 to 6, word by word, on relevance divided by 100; None = dropped."""
    rows = [
        {"rank": i, "em": c, "local": r / 100}
        for i, (r, c) in enumerate(zip(relevance, correctness, strict=True))
    ]
    rows.sort(key=lambda row: (-row["em"], -row["local"]))
    top = rows[0]
    if top["local"] < 0.6 or top["em"] == 0:
        return None
    tied = [row for row in rows if row["em"] == top["em"] and row["local"] == top["local"]]
    rest = [row for row in rows if not (row["em"] == top["em"] and row["local"] == top["local"])]
    if len(rest) < negatives:
        return None
    return [int(row["rank"]) for row in tied], sorted(int(row["rank"]) for row in rest)


def kept(verdict: Verdict) -> tuple[list[int], list[int]] | None:
    return None if verdict.reason else (list(verdict.positives), list(verdict.pool))


@given(
    st.lists(st.tuples(st.sampled_from(LEVELS), st.booleans()), min_size=1, max_size=22),
    st.sampled_from((1, 5, 15)),
)
def test_the_rule_is_the_upstream_rule(table: list[tuple[int, bool]], negatives: int) -> None:
    relevance = [float(value) for value, _ in table]
    correctness = [float(right) for _, right in table]
    verdict = UpstreamRule(negatives=negatives).decide(relevance, dict(enumerate(correctness)))
    assert not verdict.needed
    assert kept(verdict) == literal(relevance, correctness, negatives)


@given(
    st.lists(
        st.tuples(st.sampled_from(LEVELS), st.sampled_from((0.0, 0.25, 0.5, 1.0))),
        min_size=1,
        max_size=22,
    )
)
def test_the_rule_is_the_upstream_rule_for_graded_rewards(table: list[tuple[int, float]]) -> None:
    relevance = [float(value) for value, _ in table]
    correctness = [value for _, value in table]
    verdict = UpstreamRule(negatives=3).decide(relevance, dict(enumerate(correctness)))
    assert kept(verdict) == literal(relevance, correctness, 3)


@given(st.lists(st.one_of(st.none(), st.sampled_from(LEVELS)), min_size=0, max_size=22))
def test_levels_hold_every_readable_rank_once(relevance: list[float | None]) -> None:
    found = list(levels(relevance))
    assert [value for value, _ in found] == sorted({value for value, _ in found}, reverse=True)
    ranks = [rank for _, level in found for rank in level]
    assert sorted(ranks) == [rank for rank, value in enumerate(relevance) if value is not None]


@pytest.mark.parametrize(
    ("relevance", "measured", "reason"),
    [
        ([], {}, NO_RELEVANT),
        ([None, None], {}, NOT_MEASURED),
        ([59.9, 0.0, 0.0], {}, NO_RELEVANT),
        ([80.0, 10.0], {}, TOO_FEW),
        ([80.0, None, None], {}, NOT_MEASURED),
        ([80.0, 60.0, 0.0, 0.0], {0: 0.0, 1: 0.0}, NO_CORRECT),
        ([80.0, 80.0, 0.0], {0: 1.0, 1: 1.0}, TOO_FEW),
        ([80.0, 80.0, 0.0, 0.0], {0: 1.0, 1: None}, NOT_MEASURED),
        ([80.0, 70.0, 0.0, 0.0], {0: None, 1: 1.0}, NOT_MEASURED),
        ([80.0, 70.0, 0.0, 0.0], {0: 1.0, 1: None}, ""),
        ([60.0, 0.0, 0.0], {0: 1.0}, ""),
    ],
)
def test_every_reason_for_dropping_a_search(
    relevance: list[float | None], measured: dict[int, float | None], reason: str
) -> None:
    verdict = UpstreamRule(negatives=2).decide(relevance, measured)
    assert not verdict.needed
    assert verdict.reason == reason


def test_unreadable_relevance_is_neither_positive_nor_negative() -> None:
    verdict = UpstreamRule(negatives=2).decide([None, 90.0, None, 10.0, 20.0], {1: 1.0})
    assert verdict == Verdict((), (1,), (3, 4), "")


def test_what_counts_is_what_a_passage_adds_to_the_baseline() -> None:
    def rows(baseline: float, *values: float) -> list[Utility]:
        return [
            Utility("t", 0, "s", f"p{rank}", rank, 90.0 - rank, value, "measured", baseline)
            for rank, value in enumerate(values)
        ]

    rule = UpstreamRule(negatives=1)
    assert rule.verdict(rows(0.0, 0.0, 1.0, 0.0)).positives == (1,)
    assert rule.verdict(rows(0.5, 0.5, 0.75, 0.25)).positives == (1,)
    assert rule.verdict(rows(0.5, 0.5, 0.25, 0.25)).reason == NO_CORRECT
    assert rule.verdict(rows(1.0, 1.0, 1.0, 1.0)).reason == ANSWERED


def test_one_signal_alone_as_the_variants_of_the_paper() -> None:
    """By relevance nothing is continued; by correctness everything is, and relevance is nothing."""
    rows = [
        Utility("t", 0, "s", str(rank), rank, 90.0 - rank // 2, None, "not needed")
        for rank in range(20)
    ]
    alone = UpstreamRule(signals="relevance").verdict(rows)
    assert (alone.needed, alone.positives, alone.reason) == ((), (0, 1), "")
    assert UpstreamRule(signals="relevance", threshold=95).verdict(rows).reason == NO_RELEVANT
    asked = UpstreamRule(signals="correctness").verdict(rows)
    assert asked.needed == tuple(range(20))
    done = [
        msgspec.structs.replace(row, correctness=float(row.rank in (4, 17)), why="measured")
        for row in rows
    ]
    assert UpstreamRule(signals="correctness").verdict(done).positives == (4, 17)
    none = [msgspec.structs.replace(row, correctness=0.0) for row in done]
    assert UpstreamRule(signals="correctness").verdict(none).reason == NO_CORRECT
