from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from agentic_r.types import Utility
from agentic_r.utility.select import NOT_MEASURED, OVER_CAP, UpstreamRule, select


def utilities(
    relevance: Sequence[float | None], correctness: Sequence[float | None], search: int = 0
) -> list[Utility]:
    return [
        Utility(
            "t",
            search,
            "sent",
            f"p{rank}",
            rank,
            relevance[rank],
            correctness[rank],
            "not needed" if correctness[rank] is None else "measured",
        )
        for rank in range(len(relevance))
    ]


def test_an_example_holds_three_positives_and_negatives_in_rank_order() -> None:
    relevance = [30.0] * 8 + [90.0] * 4 + [70.0] * 8
    correctness = [None] * 8 + [1.0, 1.0, 1.0, 1.0] + [None] * 8
    examples, dropped = select("d", "q", utilities(relevance, correctness))
    assert dropped == {}
    (example,) = examples
    assert example.query == "sent"
    assert example.positives == ("p8", "p9", "p10")
    assert len(example.negatives) == 15
    ranks = [int(name[1:]) for name in example.negatives]
    assert ranks == sorted(set(ranks) - {8, 9, 10, 11})


def test_negatives_depend_on_the_search_and_the_seed_only() -> None:
    relevance, correctness = [90.0] + [0.0] * 19, [1.0] + [None] * 19
    rows = utilities(relevance, correctness) + utilities(relevance, correctness, search=1)
    shuffled = rows.copy()
    random.Random(3).shuffle(shuffled)
    first, _ = select("d", "q", rows, seed=4)
    assert select("d", "q", shuffled, seed=4)[0] == first
    assert select("d", "q", rows[20:], seed=4)[0] == first[1:]
    assert first[0].negatives != first[1].negatives
    assert select("d", "q", rows, seed=5)[0] != first
    assert select("d", "other", rows, seed=4)[0][0].negatives != first[0].negatives


def test_utilities_that_do_not_suffice_are_counted_not_guessed() -> None:
    rows = utilities([90.0, 80.0, 0.0, 0.0], [0.0, None, None, None])
    assert select("d", "q", rows, rule=UpstreamRule(negatives=2)) == ([], {NOT_MEASURED: 1})


def test_a_failed_continuation_is_told_from_one_that_was_not_needed() -> None:
    rows = utilities([90.0, 90.0, 0.0, 0.0], [1.0, None, None, None])
    rows[1] = msgspec.structs.replace(rows[1], why="failed: the server hung up")
    assert select("d", "q", rows, rule=UpstreamRule(negatives=2)) == ([], {NOT_MEASURED: 1})


def test_a_cap_keeps_a_seeded_few_of_a_question_and_counts_the_others() -> None:
    one, gold = [90.0] + [0.0] * 4, [1.0] + [None] * 4
    rows = [row for search in range(6) for row in utilities(one, gold, search)]
    for search, row in enumerate(rows[::5]):
        rows[5 * search] = msgspec.structs.replace(row, sent=f"s{search}")
    capped = UpstreamRule(negatives=2, per_question=2)
    some, dropped = select("d", "q", rows, rule=capped, seed=1)
    every, none = select("d", "q", rows, rule=UpstreamRule(negatives=2), seed=1)
    assert (len(some), len(every), none) == (2, 6, {})
    assert dropped == {OVER_CAP: 4}
    assert all(example in every for example in some)
    assert select("d", "q", rows[::-1], rule=capped, seed=1)[0] == some
    draws = {
        tuple(e.query for e in select("d", "q", rows, rule=capped, seed=n)[0]) for n in range(9)
    }
    assert len(draws) > 1
