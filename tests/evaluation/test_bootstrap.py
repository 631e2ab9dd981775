from __future__ import annotations

import random

import numpy as np
import pytest

from agentic_r.evaluation.benchmark import Record
from agentic_r.evaluation.bootstrap import (
    clustered,
    drawn_totals,
    draws,
    flipped_totals,
    generator,
    interval,
    ratios,
)
from agentic_r.evaluation.measures import MEASURES, mean


def records(clusters: int, seed: int, rate: float = 0.4) -> list[Record]:
    """Questions in clusters of unequal sizes, right or wrong mostly together."""
    draw = random.Random(seed)
    found = []
    for root in range(clusters):
        easy = rate if clusters > 10_000 else draw.betavariate(2 * rate, 2 * (1 - rate))
        for n in range(draw.randint(1, 5)):
            right = float(draw.random() < easy)
            found.append(Record("made", f"{root}-{n}", f"r{root}", right, right, 2, 3, n % 3))
    return found


def textbook(held: list[Record], name: str, samples: int, seed: int) -> list[float]:
    """Draw roots one after the other, list their questions, compute the measure; slowly."""
    roots = list(dict.fromkeys(r.root for r in sorted(held, key=lambda r: r.key)))
    draw = generator(seed, "made")
    values = []
    for _ in range(samples):
        picked = [roots[int(draw.integers(0, len(roots)))] for _ in roots]
        again = [record for root in picked for record in held if record.root == root]
        parts = [part for record in again if (part := MEASURES[name].of(record)) is not None]
        values.append(sum(part[0] for part in parts) / sum(part[1] for part in parts))
    return values


@pytest.mark.parametrize("name", ["em", "hit_at_3", "searches"])
def test_the_draws_are_those_of_the_textbook(name: str) -> None:
    held = records(25, 3)
    found = draws(list(reversed(held)), [name], 60, seed=5)[:, 0]
    assert found == pytest.approx(textbook(held, name, 60, 5), abs=1e-12)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(0).random((30, 4))
    whole = drawn_totals(sums, 100, generator(1))
    flips = flipped_totals(sums, sums, 100, generator(1))
    monkeypatch.setattr("agentic_r.evaluation.bootstrap._BLOCK", 64)
    assert drawn_totals(sums, 100, generator(1)) == pytest.approx(whole)
    assert flipped_totals(sums, sums, 100, generator(1)).shape == flips.shape


def test_flips_stay_between_the_two_ends() -> None:
    sums, delta = np.zeros((6, 1)), np.ones((6, 1))
    found = flipped_totals(sums, delta, 4000, generator(2))
    assert set(found[:, 0]) == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0}
    assert found.mean() == pytest.approx(3.0, abs=0.1)


def test_what_is_not_measured_weighs_nothing() -> None:
    held = [Record("d", "1", "a", 1.0, 1.0, 1), Record("d", "2", "b", 0.0, 0.0, 3, 2, 1)]
    sums = clustered(held, ["em", "hit_at_3"])
    assert sums.tolist() == [[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 2.0]]
    assert ratios(sums.sum(axis=0)).tolist() == [0.5, 0.5]
    assert mean("tokens", held) is None
    assert interval(draws(held, ["tokens"], 20, 0)[:, 0], 2, fraction=False) is None


def test_certainty_is_not_claimed() -> None:
    assert interval(np.ones(100), 30, fraction=True) == (pytest.approx(0.025 ** (1 / 30)), 1.0)
    low, high = interval(np.zeros(100), 125, fraction=True) or (9.0, 9.0)
    assert (low, high) == (0.0, pytest.approx(0.0291, abs=1e-3))
    assert interval(np.full(100, 2.0), 30, fraction=False) == (2.0, 2.0)


@pytest.mark.parametrize("clusters", [40, 150])
def test_the_interval_covers_the_truth_as_often_as_it_says(clusters: int) -> None:
    """Simulated worlds with a known rate: 95 of 100 intervals hold it, within sampling error."""
    repeats, held = 300, 0
    for repeat in range(repeats):
        drawn = draws(records(clusters, 1000 + repeat), ["em"], 600, seed=repeat)[:, 0]
        ends = interval(drawn, clusters, fraction=True)
        assert ends is not None
        held += ends[0] <= 0.4 <= ends[1]
    # Standard error of the coverage: sqrt(.95 * .05 / 300) = .0126. Percentile intervals of few
    # clusters are known to be a little short.
    assert 0.91 <= held / repeats <= 0.985


def test_data_sets_are_drawn_apart_and_seeds_matter() -> None:
    first, again = generator(3, "nq").random(4), generator(3, "nq").random(4)
    assert (first == again).all()
    assert (first != generator(3, "popqa").random(4)).any()
    assert (first != generator(4, "nq").random(4)).any()
