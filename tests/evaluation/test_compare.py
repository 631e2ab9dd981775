from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Record, Row
from agentic_r.evaluation.compare import (
    Metric,
    compare,
    compare_all,
    gap_closed,
    row_to_beat,
)
from agentic_r.types import Question, Trajectory, Turn


def made(id: str, root: str, em: float, asked: int = 2, hits: int = 0) -> Record:
    return Record("made", id, root, em, em, 2, asked, hits)


def systems(clusters: int, lift: float, seed: int) -> tuple[list[Record], list[Record]]:
    """Two systems on clusters of unequal sizes, right or wrong mostly together."""
    generator = random.Random(seed)
    before, after = [], []
    for root in range(clusters):
        easy = generator.random()
        for n in range(generator.randint(1, 6)):
            rates = (easy, min(1.0, easy + lift))
            for held, rate in zip((before, after), rates, strict=True):
                held.append(
                    made(
                        f"{root}-{n}",
                        f"r{root}",
                        float(generator.random() < rate),
                        generator.randint(0, 3),
                        0,
                    )
                )
    hit = [msgspec.structs.replace(r, hits=r.asked) if r.em else r for r in after]
    return before, hit


def slow(
    before: list[Record], after: list[Record], metric: str, samples: int
) -> tuple[float, float, float]:
    """The textbook: draw entities, list their questions, compute both metrics, sort."""

    def value(records: list[Record]) -> float:
        if metric == "hit_at_3":
            return sum(r.hits or 0 for r in records) / sum(r.asked or 0 for r in records)
        return sum(getattr(r, metric) for r in records) / len(records)

    roots = sorted({r.root for r in before})
    by_root = {
        root: ([r for r in before if r.root == root], [r for r in after if r.root == root])
        for root in roots
    }
    generator = random.Random(4)
    drawn = []
    for _ in range(samples):
        picked = [generator.choice(roots) for _ in roots]
        left = [r for root in picked for r in by_root[root][0]]
        right = [r for root in picked for r in by_root[root][1]]
        drawn.append(value(right) - value(left))
    drawn.sort()
    return (
        value(after) - value(before),
        drawn[round(0.025 * (samples - 1))],
        drawn[round(0.975 * (samples - 1))],
    )


@pytest.mark.parametrize("metric", ["em", "f1", "hit_at_3"])
def test_it_agrees_with_the_textbook(metric: Metric) -> None:
    before, after = systems(40, 0.15, 1)
    found = compare(before, after, metric)
    difference, low, high = slow(before, after, metric, 3000)
    assert found.difference == pytest.approx(difference)
    assert found.low == pytest.approx(low, abs=0.012)
    assert found.high == pytest.approx(high, abs=0.012)
    assert (found.n, found.clusters, found.metric) == (len(before), 40, metric)


def test_two_entities_have_three_outcomes_and_so_an_exact_interval() -> None:
    before = [made("1", "a", 0.0), made("2", "b", 0.0)]
    after = [made("1", "a", 0.0), made("2", "b", 1.0)]
    found = compare(before, after)
    assert (found.difference, found.low, found.high) == (0.5, 0.0, 1.0)


def test_one_entity_cannot_vary_whatever_its_size() -> None:
    before = [made(str(n), "a", 0.0) for n in range(10)]
    after = [made(str(n), "a", float(n < 7)) for n in range(10)]
    found = compare(before, after)
    assert found.low == found.difference == found.high == 0.7


def test_large_entities_weigh_by_their_questions() -> None:
    before = [made(f"a{n}", "a", 0.0) for n in range(9)] + [made("b", "b", 0.0)]
    after = [made(f"a{n}", "a", 1.0) for n in range(9)] + [made("b", "b", 0.0)]
    assert compare(before, after).difference == 0.9


def test_identical_systems_have_zero_in_the_interval() -> None:
    before, _ = systems(30, 0.0, 2)
    found = compare(before, before)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_equally_good_but_independent_systems_have_zero_inside() -> None:
    before, after = systems(120, 0.0, 3)
    found = compare(before, after)
    assert found.low < 0.0 < found.high


def test_a_constant_shift_has_no_width() -> None:
    generator = random.Random(5)
    before = [made(str(n), f"r{n % 20}", generator.random() / 2) for n in range(100)]
    after = [msgspec.structs.replace(r, em=r.em + 0.25) for r in before]
    found = compare(before, after)
    assert found.low == pytest.approx(0.25) and found.high == pytest.approx(0.25)


def test_entities_are_drawn_whole() -> None:
    """Ten questions that always go together say no more than one: the interval stays wide."""
    generator = random.Random(6)
    changes = [float(generator.random() < 0.3) for _ in range(40)]
    together = [made(f"{r}-{n}", f"r{r}", changes[r]) for r in range(40) for n in range(10)]
    apart = [msgspec.structs.replace(record, root=record.id) for record in together]

    def width(records: list[Record]) -> float:
        zero = [msgspec.structs.replace(record, em=0.0) for record in records]
        found = compare(zero, records)
        return found.high - found.low

    ratio = width(together) / width(apart)
    assert 10**0.5 * 0.9 < ratio < 10**0.5 * 1.1


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 25), st.integers(0, 10_000))
def test_order_does_not_matter_and_swapping_the_systems_turns_the_sign(
    clusters: int, seed: int
) -> None:
    before, after = systems(clusters, 0.1, seed)
    found = compare(before, after, samples=300)
    mixed = random.Random(seed).sample(before, len(before))
    assert compare(mixed, after[::-1], samples=300) == found
    back = compare(after, before, samples=300)
    assert back.difference == pytest.approx(-found.difference)
    assert back.low == pytest.approx(-found.high) and back.high == pytest.approx(-found.low)
    assert found.low <= found.high


def test_the_seed_decides() -> None:
    before, after = systems(30, 0.1, 8)
    first = compare(before, after, samples=200, seed=1)
    assert compare(before, after, samples=200, seed=1) == first
    assert compare(before, after, samples=200, seed=2) != first


def test_roots_of_different_data_sets_are_different_entities() -> None:
    before = [
        Record("x", "1", "same", 0.0, 0.0, 1),
        Record("y", "1", "same", 0.0, 0.0, 1),
    ]
    assert compare(before, before).clusters == 2


def test_trajectories_can_be_compared_directly() -> None:
    asked = [Question(str(n), "who?", ("me",)) for n in range(4)]
    wrong = [Trajectory(q.id, q, (Turn("a", "answer", answer="you"),), "answered") for q in asked]
    right = [Trajectory(q.id, q, (Turn("a", "answer", answer="me"),), "answered") for q in asked]
    assert str(compare(wrong, right)) == "em +1.000 [+1.000, +1.000] (4 questions, 4 root entities)"


def test_what_cannot_be_compared_is_refused() -> None:
    one, other = [made("1", "a", 0.0)], [made("2", "a", 0.0)]
    with pytest.raises(DataError, match="expected the same questions"):
        compare(one, other)
    with pytest.raises(DataError, match="0 only before and 1 only after"):
        compare(one, one + other)
    with pytest.raises(DataError, match="twice"):
        compare(one + one, one)
    with pytest.raises(DataError, match="no questions"):
        compare([], [])
    with pytest.raises(DataError, match="root"):
        compare(one, [made("1", "b", 0.0)])
    with pytest.raises(DataError, match="expected one of em, f1"):
        compare(one, one, "bleu")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least 1"):
        compare(one, one, samples=0)
    with pytest.raises(DataError, match="was not measured"):
        compare([Record("d", "1", "a", 0, 0, 1)], [Record("d", "1", "a", 0, 0, 1)], "hit_at_3")
    with pytest.raises(DataError, match="measured on no search"):
        compare([made("1", "a", 0, asked=0)], [made("1", "a", 0, asked=0)], "hit_at_3")


def test_every_row_is_compared_with_the_one_to_beat() -> None:
    before, after = systems(10, 0.3, 9)
    found = compare_all({"base": before, "x": after, "same": before}, "base", samples=100)
    assert [(c.name, c.over) for c in found] == [("x", "base"), ("same", "base")]
    assert found[0].difference == compare(before, after, samples=100).difference
    assert found[1].difference == 0.0
    with pytest.raises(DataError, match="no row 'none'"):
        compare_all({"base": before}, "none")


def test_the_row_to_beat_is_the_best_untouched_one() -> None:
    rows = [
        Row(name, 1, em, em, None, 1.0, 1.0, 4)
        for name, em in (("BM25", 0.9), ("untouched a", 0.3), ("untouched b", 0.4), ("it", 0.8))
    ]
    best = row_to_beat(rows)
    assert best.name == "untouched b"
    assert gap_closed(rows[3], best, rows[0]) == pytest.approx(0.8)
    assert gap_closed(rows[3], best, best) is None
    with pytest.raises(DataError, match="expected one whose name begins"):
        row_to_beat(rows[:1])
