"""Are two rows different: a paired bootstrap, a paired randomisation test, Holm's correction.

The randomisation test asks how often a difference as large comes up when, for each root entity,
a coin decides which system gets which result (Noreen, Computer-intensive Methods for Testing
Hypotheses, 1989). The bootstrap's interval says how large the difference is. Both take whole root
entities, since questions about one entity are right or wrong together.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Record, by_key
from agentic_r.evaluation.bootstrap import (
    NORMAL,
    Sums,
    drawn_totals,
    flipped_totals,
    generator,
)
from agentic_r.evaluation.compare import cluster_sums, same_questions
from agentic_r.evaluation.measures import measure

POWER = 0.841621
"""Standard errors beyond the interval at which 80 of 100 repetitions find a difference."""

SMALL = 0.05
"""A data set that can only tell differences larger than this is called too small."""

_ROUNDING = 1e-12
"""Differences that are equal on paper may differ by so much as floats."""


class Contest(msgspec.Struct, frozen=True):
    """One row against another on the same questions."""

    name: str
    """The row under test."""
    over: str
    """The row it is compared with."""
    metric: str
    """What was compared."""
    difference: float
    """Metric of `name` minus metric of `over`."""
    low: float
    """Lower end of the 95 % interval of the paired bootstrap."""
    high: float
    """Upper end of the interval."""
    p: float
    """How often chance alone makes a difference as large (two-sided)."""
    n: int
    """How many questions."""
    clusters: int
    """How many root entities: what was drawn and flipped."""
    changed: int
    """On how many of them the two rows differ at all."""
    detectable: float
    """The smallest true difference that 80 of 100 such tests would find."""
    p_holm: float | None = None
    """`p` corrected for all comparisons made together; None where it was the only one."""

    @property
    def settled(self) -> bool:
        """Whether the difference is significant at 5 %, corrected where many were tested."""
        return (self.p if self.p_holm is None else self.p_holm) <= 0.05


def contest(
    over: Sequence[Record],
    name: Sequence[Record],
    names: tuple[str, str],
    metric: str = "em",
    samples: int = 10_000,
    seed: int = 0,
    *,
    average: bool = False,
) -> Contest:
    """Compare two systems on the same questions; `names` are (row under test, row compared with).

    With `average` the metric is the mean over data sets, each of which is drawn by itself; else
    all questions count alike. Raises DataError for different questions, an unknown metric, one
    that was not measured, or fewer than one sample.
    """
    if samples < 1:
        raise DataError(f"got {samples} samples, expected at least 1")
    measure(metric)
    first, second = by_key(over, names[1]), by_key(name, names[0])
    same_questions(first, second)
    groups = _groups(first, average)
    parts = {
        group: cluster_sums({k: first[k] for k in keys}, {k: second[k] for k in keys}, metric)
        for group, keys in groups.items()
    }
    drawn = _mean([drawn_totals(s, samples, generator(seed, g)) for g, s in parts.items()])
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        raise DataError(f"no bootstrap sample holds a measured {metric}: there is no interval")
    clusters = sum(len(sums) for sums in parts.values())
    low, high = (float(end) for end in np.percentile(finite, [2.5, 97.5]))
    detectable = (NORMAL + POWER) * float(np.std(finite))
    if low == high and measure(metric).fraction:
        # Every draw says the same: no certainty, but as many roots in a row without an exception.
        detectable = 1.0 - 0.025 ** (1.0 / clusters)
        low, high = max(-1.0, low - detectable), min(1.0, high + detectable)
    return Contest(
        name=names[0],
        over=names[1],
        metric=metric,
        difference=float(_mean([sums.sum(axis=0) for sums in parts.values()])),
        low=low,
        high=high,
        p=randomisation(parts, samples, seed),
        n=len(first),
        clusters=clusters,
        changed=sum(int(_changed(sums).sum()) for sums in parts.values()),
        detectable=detectable,
    )


def randomisation(parts: Mapping[str, Sums], samples: int, seed: int) -> float:
    """Return the two-sided p of a mean difference over groups of [before, weight, after, weight].

    All outcomes of the coins are gone through where there are no more of them than `samples`; else
    so many are drawn, and the observed one counts among them, so p is never 0.
    """
    observed = abs(float(_mean([sums.sum(axis=0) for sums in parts.values()])))
    deltas = {g: (sums[:, [2, 3, 0, 1]] - sums)[_changed(sums)] for g, sums in parts.items()}
    coins = sum(len(delta) for delta in deltas.values())
    exact = coins < 60 and 2**coins <= samples
    if exact:
        flips = np.array(list(itertools.product((0.0, 1.0), repeat=coins))).reshape(2**coins, coins)
        ends = np.cumsum([len(delta) for delta in deltas.values()])[:-1]
        totals = [
            parts[g].sum(axis=0) + flip @ delta
            for flip, (g, delta) in zip(np.split(flips, ends, axis=1), deltas.items(), strict=True)
        ]
    else:
        totals = [
            flipped_totals(parts[g], delta, samples, generator(seed, f"flips:{g}"))
            for g, delta in deltas.items()
        ]
    found = np.abs(_mean(totals))
    as_large = int((~np.isfinite(found) | (found >= observed - _ROUNDING)).sum())
    return as_large / len(found) if exact else (1 + as_large) / (1 + samples)


def holm(ps: Sequence[float]) -> list[float]:
    """Correct p-values that were tested together (Holm, 1979), in the order given."""
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    corrected = [0.0] * len(ps)
    so_far = 0.0
    for rank, at in enumerate(order):
        so_far = max(so_far, min(1.0, (len(ps) - rank) * ps[at]))
        corrected[at] = so_far
    return corrected


def corrected(contests: Sequence[Contest]) -> list[Contest]:
    """Return the contests with Holm's correction, where there is more than one."""
    if len(contests) < 2:
        return list(contests)
    ps = holm([c.p for c in contests])
    return [msgspec.structs.replace(c, p_holm=p) for c, p in zip(contests, ps, strict=True)]


def _groups(
    records: Mapping[tuple[str, str], Record], average: bool
) -> dict[str, list[tuple[str, str]]]:
    if not average:
        return {"": list(records)}
    groups: dict[str, list[tuple[str, str]]] = {}
    for key in records:
        groups.setdefault(key[0] or " ", []).append(key)
    return groups


def _mean(totals: Sequence[Sums]) -> npt.NDArray[np.float64]:
    """Average over groups of totals [..., 4] the differences after minus before [...]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = [t[..., 2] / t[..., 3] - t[..., 0] / t[..., 1] for t in totals]
    mean: npt.NDArray[np.float64] = np.mean(found, axis=0)
    return mean


def _changed(sums: Sums) -> npt.NDArray[np.bool_]:
    changed: npt.NDArray[np.bool_] = (sums[:, :2] != sums[:, 2:]).any(axis=1)
    return changed
