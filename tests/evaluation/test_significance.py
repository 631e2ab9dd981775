from __future__ import annotations

import itertools
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Record
from agentic_r.evaluation.significance import Contest, contest, corrected, holm, randomisation

NAMES = ("new", "old")


def record(root: int, n: int, em: float, dataset: str = "d", hits: int = 0) -> Record:
    return Record(dataset, f"{root}-{n}", f"r{root}", em, em, 2, 2, hits)


def pair(
    clusters: int, lift: float, seed: int, dataset: str = "d"
) -> tuple[list[Record], list[Record]]:
    draw = random.Random(seed)
    old, new = [], []
    for root in range(clusters):
        easy = draw.random() * (1 - lift)
        for n in range(draw.randint(1, 4)):
            old.append(record(root, n, float(draw.random() < easy), dataset))
            new.append(record(root, n, float(draw.random() < easy + lift), dataset))
    return old, new


def textbook_p(old: list[Record], new: list[Record]) -> float:
    """Every way of swapping the two systems' results, root by root."""
    roots = sorted({r.root for r in old})
    count = len(old)
    observed = abs(sum(r.em for r in new) - sum(r.em for r in old)) / count
    extreme = 0
    for coins in itertools.product((False, True), repeat=len(roots)):
        swap = dict(zip(roots, coins, strict=True))
        left = [b if swap[a.root] else a for a, b in zip(old, new, strict=True)]
        right = [a if swap[a.root] else b for a, b in zip(old, new, strict=True)]
        difference = abs(sum(r.em for r in right) - sum(r.em for r in left)) / count
        extreme += difference >= observed - 1e-12
    return extreme / 2 ** len(roots)


@pytest.mark.parametrize("seed", range(4))
def test_with_few_roots_the_test_is_the_textbook(seed: int) -> None:
    old, new = pair(9, 0.3, seed)
    assert contest(old, new, NAMES, samples=1000).p == pytest.approx(textbook_p(old, new))


def test_drawn_and_exact_agree() -> None:
    old, new = pair(14, 0.3, 8)
    exact = contest(old, new, NAMES, samples=2**14).p
    drawn = contest(old, new, NAMES, samples=1500).p
    assert drawn == pytest.approx(exact, abs=0.04)
    assert drawn > 0


def test_the_randomisation_test_has_its_size() -> None:
    """Without a difference, p is at most 5 % in about 5 of 100 cases."""
    ps = []
    for seed in range(400):
        old, new = pair(60, 0.0, seed)
        ps.append(contest(old, new, NAMES, samples=300, seed=seed).p)
    share = sum(p <= 0.05 for p in ps) / len(ps)
    assert 0.02 <= share <= 0.075  # standard error .011; ties make the test a little cautious
    assert np.mean(ps) == pytest.approx(0.5, abs=0.08)


def test_a_real_difference_is_found() -> None:
    old, new = pair(200, 0.25, 1)
    found = contest(old, new, NAMES)
    assert found.p < 0.001
    assert found.settled
    assert found.low < found.difference < found.high
    assert found.low > 0
    assert (found.name, found.over, found.n, found.clusters) == ("new", "old", len(old), 200)


def test_the_detectable_difference_is_detected_in_eight_of_ten() -> None:
    one = contest(*pair(150, 0.0, 77), NAMES, samples=2000)
    found = 0
    for seed in range(120):
        old, new = pair(150, 0.0, 5000 + seed)
        draw = random.Random(seed)
        # Raise the true rate by the detectable difference: that share of all questions becomes
        # right for the new system where it was wrong.
        wrong = [at for at, r in enumerate(new) if not r.em]
        for at in draw.sample(wrong, min(len(wrong), round(one.detectable * len(new)))):
            new[at] = msgspec.structs.replace(new[at], em=1.0)
        found += contest(old, new, NAMES, samples=300, seed=seed).p <= 0.05
    assert 0.6 <= found / 120 <= 0.95


def test_equal_systems() -> None:
    old, _ = pair(20, 0.0, 1)
    found = contest(old, old, NAMES, samples=200)
    assert (found.difference, found.p, found.changed) == (0, 1, 0)
    assert not found.settled


@pytest.mark.parametrize(("em", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_few_questions_without_an_exception_are_no_certainty(em: float, expected: float) -> None:
    old = [record(root, 0, 0.0) for root in range(10)]
    new = [record(root, 0, em) for root in range(10)]
    found = contest(old, new, NAMES, samples=50)
    reach = 1 - 0.025 ** (1 / 10)
    assert found.difference == expected
    assert (found.low, found.high) == pytest.approx((expected - reach, min(1.0, expected + reach)))
    assert found.detectable == pytest.approx(reach)
    assert contest(old, new, NAMES, "searches", samples=50).detectable == 0.0


def test_an_average_counts_data_sets_alike_and_draws_them_apart() -> None:
    small_old, small_new = pair(10, 0.0, 2, "small")
    large_old, large_new = pair(100, 0.3, 3, "large")
    small = contest(small_old, small_new, NAMES, samples=400)
    large = contest(large_old, large_new, NAMES, samples=400)
    both_old, both_new = [*small_old, *large_old], [*small_new, *large_new]
    both = contest(both_old, both_new, NAMES, samples=400, average=True)
    assert both.difference == pytest.approx((small.difference + large.difference) / 2)
    assert both.high - both.low < small.high - small.low
    assert both.clusters == 110
    pooled = contest(both_old, both_new, NAMES, samples=400)
    assert pooled.difference != pytest.approx(both.difference)


def test_ratios_swap_their_weights_too() -> None:
    old = [Record("d", "1", "a", 0, 0, 1, 1, 0), Record("d", "2", "b", 0, 0, 1, 4, 4)]
    new = [Record("d", "1", "a", 0, 0, 1, 3, 3), Record("d", "2", "b", 0, 0, 1, 4, 4)]
    found = contest(old, new, NAMES, "hit_at_3", samples=100)
    assert found.difference == pytest.approx(1.0 - 4 / 5)
    assert found.p == 1.0  # one coin: both sides differ as much
    assert found.changed == 1


def test_what_cannot_be_compared() -> None:
    old, new = pair(5, 0.0, 1)
    with pytest.raises(DataError, match="expected the same questions"):
        contest(old, new[:-1], NAMES)
    with pytest.raises(DataError, match=r"got metric 'bleu', expected one of em, f1"):
        contest(old, new, NAMES, "bleu")
    with pytest.raises(DataError, match=r"tokens of question '0-0' was not measured"):
        contest(old, new, NAMES, "tokens")
    with pytest.raises(DataError, match="got 0 samples"):
        contest(old, new, NAMES, samples=0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_monotone_and_between_p_and_bonferroni(ps: list[float]) -> None:
    found = holm(ps)
    for p, q in zip(ps, found, strict=True):
        assert p <= q <= min(1.0, len(ps) * p) + 1e-12
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    assert [found[at] for at in order] == sorted(found)


def test_only_several_are_corrected() -> None:
    base = Contest("a", "b", "em", 0.1, 0.0, 0.2, 0.03, 10, 10, 4, 0.1)
    assert corrected([base]) == [base]
    both = corrected([base, msgspec.structs.replace(base, p=0.5)])
    assert [c.p_holm for c in both] == [pytest.approx(0.06), 0.5]
    assert base.settled
    assert not both[0].settled


def test_no_coin_at_all_is_no_evidence() -> None:
    assert randomisation({"": np.array([[1.0, 1.0, 1.0, 1.0]])}, 100, 0) == 1.0
