from __future__ import annotations

import msgspec

from agentic_r.types import Utility
from agentic_r.utility.labelled import NO_TURNS, Costs, Labelled, collect
from agentic_r.utility.select import NO_RELEVANT, UpstreamRule


def row(name: str, top: float) -> Labelled:
    utilities = tuple(
        Utility("t", 0, "sent", f"p{rank}", rank, relevance, 1.0 if rank == 0 else None, "measured")
        for rank, relevance in enumerate((top, 10.0, 20.0))
    )
    return Labelled("d", name, utilities, (), (), 1, 0, 3, 1, 2)


def test_rows_become_labels_whatever_order_they_were_finished_in() -> None:
    rows = [row("b", 90.0), row("a", 30.0)]
    labels = collect(rows, rule=UpstreamRule(negatives=2))
    assert [each.question_id for each in labels.rows] == ["a", "b"]
    assert [each.positives for each in labels.examples] == [("p0",)]
    assert labels.report == {NO_RELEVANT: 1, NO_TURNS: 4}
    assert labels.costs == Costs(searches=2, continued=0, kept=1, continuations=2, exhaustive=6)
    assert collect(rows[::-1], rule=UpstreamRule(negatives=2)) == labels


def test_costs_are_said_and_calls_only_where_there_were_any() -> None:
    free = Costs(searches=1391, kept=604, continuations=2213, exhaustive=27820)
    assert free.lines() == [
        "1,391 searches labelled, 604 kept",
        "2,213 continuations, 1.59 a search (20.00 if all candidates were tried)",
    ]
    asked = msgspec.structs.replace(free, judge_calls=1402, subanswer_calls=410)
    assert asked.lines() == [
        *free.lines(),
        "1,812 calls of a judge's model (1,402 for relevance, 410 for sub-answers), "
        "3.00 a kept search",
    ]
    assert msgspec.structs.replace(asked, kept=0).lines()[-1].endswith("410 for sub-answers)")


def test_what_was_dropped_and_what_failed_is_said_with_the_costs() -> None:
    rows = [row("b", 90.0), row("a", 30.0)]
    failed = msgspec.structs.replace(rows[0].utilities[1], relevance=None, why="failed: 500 boom")
    spoilt = (rows[0].utilities[0], failed, rows[0].utilities[2])
    rows[0] = msgspec.structs.replace(rows[0], utilities=spoilt)
    said = collect(rows, rule=UpstreamRule(negatives=1)).lines()
    assert said[-2:] == [
        "searches that gave no example: no relevant candidate 1, no turns left 4",
        "1 of 6 candidates could not be measured, 1 of them: relevance failed: 500 boom",
    ]
    small = msgspec.structs.replace(rows[1], utilities=rows[1].utilities[1:2])
    assert "above 10 of 100: the judge may have another scale" in collect([small]).lines()[-1]


def test_a_row_keeps_everything_on_disk() -> None:
    before = row("a", 90.0)
    assert msgspec.json.decode(msgspec.json.encode(before), type=Labelled) == before
