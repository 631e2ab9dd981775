"""Drawing questions again: the cluster bootstrap, and the flips of the randomisation test.

Everything works on sums: a row a cluster (all questions about one root entity), a column a sum
over its questions. A draw of clusters is then a vector of counts, and its totals a product.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agentic_r.evaluation.benchmark import Record
from agentic_r.evaluation.measures import MEASURES

Sums = npt.NDArray[np.float64]

_BLOCK = 1 << 20
"""Cluster draws held in memory at a time: 8 MiB an array."""

NORMAL = 1.959964
"""Standard errors on either side of a 95 % interval."""


def generator(seed: int, dataset: str = "") -> np.random.Generator:
    """Return the generator of one data set's draws; that of "" is the seed's own."""
    key = [seed, zlib.crc32(dataset.encode())] if dataset else seed
    return np.random.default_rng(key)


def drawn_totals(sums: Sums, samples: int, draw: np.random.Generator) -> Sums:
    """Draw as many clusters as there are, with replacement, and sum them; `samples` times.

    [clusters, columns] -> [samples, columns].
    """
    count = len(sums)
    block = max(1, _BLOCK // count)
    totals = []
    for start in range(0, samples, block):
        size = min(block, samples - start)
        chosen = draw.integers(0, count, size=(size, count))
        flat = (chosen + np.arange(size)[:, None] * count).ravel()
        counts = np.bincount(flat, minlength=size * count).reshape(size, count)
        totals.append(counts.astype(np.float64) @ sums)
    return np.concatenate(totals)


def flipped_totals(sums: Sums, delta: Sums, samples: int, draw: np.random.Generator) -> Sums:
    """Sum all clusters, each one changed by its row of `delta` with probability one half.

    [clusters, columns] -> [samples, columns].
    """
    base = sums.sum(axis=0)
    block = max(1, _BLOCK // max(1, len(delta)))
    totals = []
    for start in range(0, samples, block):
        size = min(block, samples - start)
        flips = draw.integers(0, 2, size=(size, len(delta)), dtype=np.int8)
        totals.append(base + flips.astype(np.float64) @ delta)
    return np.concatenate(totals)


def clustered(records: Sequence[Record], names: Sequence[str]) -> Sums:
    """Sum the records of each root: a row a root, two columns a measure (above, below the line).

    What a record does not hold adds nothing to either. Questions are taken in key order, so the
    order of the records does not matter.
    """
    cells: dict[tuple[str, str], list[float]] = {}
    for record in sorted(records, key=lambda record: record.key):
        cell = cells.setdefault((record.dataset, record.root), [0.0] * (2 * len(names)))
        for at, name in enumerate(names):
            above, below = MEASURES[name].of(record) or (0.0, 0.0)
            cell[2 * at] += above
            cell[2 * at + 1] += below
    return np.array(list(cells.values()), dtype=np.float64)


def ratios(totals: Sums) -> Sums:
    """Divide the even columns by the odd ones; nan where a weight is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Sums = totals[..., 0::2] / totals[..., 1::2]
    return found


def draws(records: Sequence[Record], names: Sequence[str], samples: int, seed: int) -> Sums:
    """Draw the measures of one data set's records: [samples, measures], nan for an empty draw."""
    dataset = records[0].dataset
    return ratios(drawn_totals(clustered(records, names), samples, generator(seed, dataset)))


def interval(
    drawn: npt.NDArray[np.float64], clusters: int, *, fraction: bool
) -> tuple[float, float] | None:
    """Return the 95 % interval of drawn values, None where no draw measures anything.

    Percentiles of the draws. Where every draw of a fraction is 0 or every one is 1 they would
    claim certainty; then it is the exact interval of so many successes in a row (Clopper and
    Pearson), a cluster counting once.
    """
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return None
    low, high = (float(end) for end in np.percentile(finite, [2.5, 97.5]))
    if fraction and low == high and low in (0.0, 1.0):
        reach = 0.025 ** (1.0 / clusters)
        return (0.0, 1.0 - reach) if low == 0.0 else (reach, 1.0)
    return low, high
