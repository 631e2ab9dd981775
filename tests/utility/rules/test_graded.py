from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.config import UtilityConfig
from agentic_r.types import Utility
from agentic_r.utility.label import rule_of
from agentic_r.utility.rules.graded import GradedRule, Unanswered
from agentic_r.utility.rules.verdict import (
    ANSWERED,
    NO_CORRECT,
    NO_RELEVANT,
    NOT_MEASURED,
    TOO_FEW,
)
from agentic_r.utility.select import select

RULE = GradedRule(unanswered="drop")


def row(
    rank: int, relevance: float | None, correctness: float | None = None, **more: object
) -> Utility:
    why = "not needed" if correctness is None else "measured"
    base = Utility("t", 0, "s", f"p{rank}", rank, relevance, correctness, why, content=f"c{rank}")
    return msgspec.structs.replace(base, **more)


def rows(*values: tuple[float | None, float | None]) -> list[Utility]:
    return [row(rank, *value) for rank, value in enumerate(values)]


def test_near_equal_correct_passages_are_positives_and_never_negatives() -> None:
    found = RULE.verdict(rows((95, 1.0), (90, 1.0), (80, 1.0), (70, None), (30, None), (99, 0.0)))
    assert found.positives == (0, 1)
    assert found.pool == (2, 3, 4, 5), "rank 2 is outside the margin, so that it does not count"
    assert found.reason == ""
    found = RULE.verdict(rows((95, 0.9), (90, 0.5), (80, 0.0), (30, None)))
    assert (found.positives, found.pool) == ((0,), (2, 3)), "what helped a little is spared"


def test_levels_are_measured_down_to_the_margin_below_the_first_full_success() -> None:
    values = [(95.0, None), (90.0, None), (84.0, None), (70.0, None), (20.0, None)]
    known = rows(*values)
    asked = []
    while needed := RULE.verdict(known).needed:
        asked.append(needed)
        for rank in needed:
            known[rank] = row(rank, values[rank][0], 1.0 if rank == 1 else 0.0)
    assert asked == [(0,), (1,), (2,)]
    assert RULE.verdict(known).positives == (1,)


def test_likely_false_negatives_are_spared() -> None:
    known = [
        row(0, 95, 1.0),
        row(1, 40, holds=True),
        row(2, 40, content="c0"),
        row(3, 40),
        row(4, None, why="failed: unread"),
        row(5, 98, why="failed: gone"),
    ]
    assert RULE.verdict(known).pool == (3,)


def test_what_was_read_before_is_a_negative_first_and_no_positive() -> None:
    known = [row(0, 99, read=True), row(1, 95, 1.0), row(2, 90, read=True, holds=True)]
    known += [row(rank, 10.0) for rank in range(3, 20)]
    found = RULE.verdict(known)
    assert (found.positives, found.first) == ((1,), (0,))
    (example,), _ = select("d", "q", known, rule=GradedRule(negatives=3), seed=2)
    assert "p0" in example.negatives
    assert "p2" not in example.negatives
    assert len(example.negatives) == 3
    assert found.targets[:3] == (0.0, 0.95, 0.0)


def test_a_repeated_text_is_one_positive() -> None:
    found = RULE.verdict([row(0, 95, 1.0), row(1, 95, 1.0, content="c0"), row(2, 10)])
    assert (found.positives, found.pool) == ((0,), (2,))


def test_fewer_searches_break_ties() -> None:
    tied = [row(0, 90, 1.0, further=2.0), row(1, 90, 1.0, further=0.0), row(2, 10)]
    assert RULE.verdict(tied).positives == (1, 0)
    assert GradedRule(fewer_searches=False).verdict(tied).positives == (0, 1)


def test_the_rule_by_itself_is_that_of_the_settings() -> None:
    assert rule_of(UtilityConfig()) == GradedRule()


def test_without_success_relevance_decides_where_that_is_wanted() -> None:
    rule = GradedRule()
    known = [row(0, 90, 0.0), row(1, 95, 0.0), row(2, 70, 0.0), row(3, 98, read=True), row(4, 10)]
    assert RULE.verdict(known).reason == NO_CORRECT
    found = rule.verdict(known)
    assert (found.positives, found.pool, found.reason) == ((1, 0), (2, 3, 4), "")
    assert rule.verdict([row(0, 90, None), row(1, 10)]).needed == (0,)
    assert rule.verdict([row(0, 90, why="failed: gone"), row(1, 10)]).reason == NOT_MEASURED
    assert rule.verdict([row(0, 90, 1.0), row(1, 95, 0.0), row(2, 10)]).positives == (0,)
    (example,), _ = select("d", "q", known, rule=rule)
    assert example.targets is not None and example.targets[:2] == (0.475, 0.45)
    passages = example.positives + example.negatives
    targets = dict(zip(passages, example.targets, strict=True))
    assert targets["p3"] == 0.0, "what was read is no better than the positives"


def test_targets_are_graded_and_follow_the_passages_of_the_example() -> None:
    known = rows((80, 0.0), (70, 1.0), (20, None))
    assert RULE.verdict(known).targets == (0.4, 0.7, 0.1)
    (example,), _ = select("d", "q", known, rule=RULE)
    assert (example.positives, example.negatives) == (("p1",), ("p0", "p2"))
    assert example.targets == (0.7, 0.4, 0.1)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ([], NO_RELEVANT),
        ([row(0, None, why="failed: x")], NOT_MEASURED),
        (rows((59.0, None), (10, None)), NO_RELEVANT),
        ([row(0, 99, read=True), row(1, 10)], NO_RELEVANT),
        (rows((90.0, 0.0), (10, None)), NO_CORRECT),
        ([row(0, 90.0, why="failed: gone"), row(1, 10)], NOT_MEASURED),
        ([row(0, 90.0, 1.0), row(1, 10.0, holds=True)], TOO_FEW),
        ([row(0, 90.0, 1.0, baseline=1.0), row(1, 10.0)], ANSWERED),
    ],
)
def test_every_reason_for_dropping_a_search(known: list[Utility], reason: str) -> None:
    found = RULE.verdict(known)
    assert (found.needed, found.reason) == ((), reason)


candidate = st.tuples(
    st.one_of(st.none(), st.sampled_from((0.0, 30.0, 60.0, 64.0, 75.0, 90.0, 100.0))),
    st.sampled_from((0.0, 0.0, 0.5, 1.0)),
    st.fixed_dictionaries(
        {
            "holds": st.booleans(),
            "read": st.booleans(),
            "content": st.sampled_from(("a", "b", "c", "d", "e")),
            "further": st.sampled_from((0.0, 1.0)),
        }
    ),
)


@given(
    st.lists(candidate, max_size=20),
    st.sampled_from((0.0, 10.0, 100.0)),
    st.sampled_from(("drop", "relevance")),
)
def test_lazy_equals_exhaustive_and_the_promises_hold(
    table: list[tuple[float | None, float, dict[str, object]]],
    margin: float,
    unanswered: Unanswered,
) -> None:
    rule = GradedRule(margin=margin, unanswered=unanswered)
    open_ = [
        row(n, relevance, None, **{**more, "further": None})
        for n, (relevance, _, more) in enumerate(table)
    ]
    steps = 0
    while needed := rule.verdict(open_).needed:
        assert set(needed) & {n for n, each in enumerate(open_) if each.correctness is None}
        for n in needed:
            relevance, correctness, more = table[n]
            open_[n] = row(n, relevance, correctness, **more)
        steps += 1
        assert steps <= 20
    verdict = rule.verdict(open_)
    full = [row(n, r, c, **more) for n, (r, c, more) in enumerate(table)]
    assert rule.verdict(full) == verdict
    assert not set(verdict.positives) & set(verdict.pool)
    texts = [open_[n].content for n in verdict.positives]
    assert len(set(texts)) == len(texts)
    for n in verdict.pool:
        assert not open_[n].holds
        assert open_[n].content not in texts
        assert not open_[n].correctness
    for n in verdict.positives:
        assert open_[n].correctness or unanswered == "relevance"
        assert not open_[n].read
        assert (open_[n].relevance or 0.0) >= rule.threshold
    if verdict.positives and (unanswered == "drop" or open_[verdict.positives[0]].correctness):
        best = max(each.correctness or 0.0 for each in open_ if each.relevance is not None)
        assert open_[verdict.positives[0]].correctness == best
