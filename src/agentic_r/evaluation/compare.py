"""Is the difference between two systems more than luck: a paired, clustered bootstrap.

Both systems answered the same questions, so questions are compared in pairs; questions about
one entity share passages and succeed or fail together, so whole entities are resampled and not
single questions (the cluster bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap,
chapters 8 and 13).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Record, Row, by_key, record
from agentic_r.evaluation.bootstrap import Sums, drawn_totals, generator
from agentic_r.evaluation.measures import measure
from agentic_r.types import Trajectory

Metric = str
"""What two systems can be compared by: the names of `measures.MEASURES`."""


class Comparison(msgspec.Struct, frozen=True):
    """How much higher the second system is than the first, with a 95 % interval."""

    difference: float
    """Metric of `after` minus metric of `before`, on all questions."""
    low: float
    """Lower end of the interval: the 2.5th percentile of the resampled differences."""
    high: float
    """Upper end of the interval: the 97.5th percentile."""
    n: int
    """How many questions."""
    clusters: int
    """How many root entities they are about: what was resampled."""
    metric: str = "em"
    """What was compared."""

    def __str__(self) -> str:
        """Write the difference and its interval on one line."""
        return (
            f"{self.metric} {self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}] "
            f"({self.n} questions, {self.clusters} root entities)"
        )


class Compared(msgspec.Struct, frozen=True):
    """One comparison of two named rows of a table."""

    name: str
    """The row under test."""
    over: str
    """The row it is compared with."""
    metric: str
    """What was compared."""
    difference: float
    """Metric of `name` minus metric of `over`."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    n: int
    """How many questions."""
    clusters: int
    """How many root entities were resampled."""


def compare(
    before: Sequence[Record] | Sequence[Trajectory],
    after: Sequence[Record] | Sequence[Trajectory],
    metric: Metric = "em",
    samples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two systems on the same questions: `after` minus `before`, 95 % interval.

    Percentile bootstrap: root entities are drawn with replacement, as many as there are, and
    the metric of each system is the ratio of its sums over the drawn entities, so entities with
    many questions weigh more, as they do in the table. Draws without any measured search (only
    possible for hit@3) are left out. Trajectories are measured first; hit@3 needs records.

    Raises DataError for different questions, a question that comes twice, no questions, an
    unknown metric, a metric that was not measured, or fewer than one sample.
    """
    measure(metric)
    if samples < 1:
        raise DataError(f"got {samples} bootstrap samples, expected at least 1")
    first = by_key(_records(before), "before")
    second = by_key(_records(after), "after")
    same_questions(first, second)
    sums = cluster_sums(first, second, metric)
    drawn = _resample(sums, samples, seed)
    low, high = np.percentile(drawn, [2.5, 97.5])
    total = _difference(sums.sum(axis=0))
    return Comparison(
        float(total), float(low), float(high), n=len(first), clusters=len(sums), metric=metric
    )


def compare_all(
    records: Mapping[str, Sequence[Record]],
    over: str,
    metric: Metric = "em",
    samples: int = 10_000,
    seed: int = 0,
) -> list[Compared]:
    """Compare every named row with the row `over`, in the order of the mapping.

    Raises DataError where `over` is not among the names, and as `compare` does.
    """
    if over not in records:
        raise DataError(f"got no row {over!r} to compare with, expected one of {list(records)}")
    found = []
    for name, rows in records.items():
        if name == over:
            continue
        c = compare(records[over], rows, metric, samples, seed)
        found.append(Compared(name, over, metric, c.difference, c.low, c.high, c.n, c.clusters))
    return found


def row_to_beat(rows: Sequence[Row], prefix: str = "untouched") -> Row:
    """Pick the row with the highest EM among those named `prefix`...; the first one at a tie.

    Raises DataError where no row has such a name.
    """
    rivals = [row for row in rows if row.name.startswith(prefix)]
    if not rivals:
        raise DataError(
            f"got rows {[row.name for row in rows]}, expected one whose name begins {prefix!r}"
        )
    return max(rivals, key=lambda row: row.em)


def gap_closed(after: Row, over: Row, ceiling: Row) -> float | None:
    """Say which share of the EM gap between `over` and `ceiling` the row `after` closes.

    None where there is no gap: the ceiling is not above the row to beat.
    """
    gap = ceiling.em - over.em
    return (after.em - over.em) / gap if gap > 0 else None


def _records(items: Sequence[Record] | Sequence[Trajectory]) -> list[Record]:
    return [item if isinstance(item, Record) else record(item) for item in items]


def same_questions(
    first: Mapping[tuple[str, str], Record], second: Mapping[tuple[str, str], Record]
) -> None:
    """Refuse two systems that were measured on different questions, naming one of them."""
    if not first:
        raise DataError("got no questions to compare on, expected at least one")
    missing = sorted(key for key in first if key not in second)
    surplus = sorted(key for key in second if key not in first)
    if missing or surplus:
        raise DataError(
            f"got {len(first)} questions before and {len(second)} after, {len(missing)} only "
            f"before and {len(surplus)} only after (such as {(missing or surplus)[0]}); "
            "expected the same questions: evaluate both systems on one test file"
        )
    moved = sorted(key for key in first if first[key].root != second[key].root)
    if moved:
        raise DataError(
            f"question {moved[0]} has root {first[moved[0]].root!r} before and "
            f"{second[moved[0]].root!r} after; expected the same question file on both sides"
        )


def cluster_sums(
    first: Mapping[tuple[str, str], Record],
    second: Mapping[tuple[str, str], Record],
    metric: Metric,
) -> npt.NDArray[np.float64]:
    """Sum each root entity into a row of [before, its weight, after, its weight].

    Questions are taken in key order, so the result does not depend on the order of the records.
    """
    clusters: dict[tuple[str, str], list[float]] = {}
    for key in sorted(first):
        cell = clusters.setdefault((key[0], first[key].root), [0.0, 0.0, 0.0, 0.0])
        for at, item in ((0, first[key]), (2, second[key])):
            value, weight = _measured(item, metric)
            cell[at] += value
            cell[at + 1] += weight
    sums = np.array(list(clusters.values()), dtype=np.float64)
    if not sums[:, 1].sum() or not sums[:, 3].sum():
        raise DataError(
            f"{metric} was measured on no search of one side, so there is nothing to compare"
        )
    return sums


def _measured(item: Record, metric: Metric) -> tuple[float, float]:
    """Return what one question adds to the numerator and to the denominator of a metric."""
    part = measure(metric).of(item)
    if part is None:
        raise DataError(
            f"{measure(metric).head} of question {item.id!r} was not measured"
            + (
                "; make its record with score() and the hits of top3()"
                if metric == "hit_at_3"
                else ""
            )
        )
    return part


def _difference(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Turn sums [..., 4] into after minus before [...]; nan where a weight is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: npt.NDArray[np.float64] = sums[..., 2] / sums[..., 3] - sums[..., 0] / sums[..., 1]
    return found


def _resample(sums: Sums, samples: int, seed: int) -> npt.NDArray[np.float64]:
    """Draw whole clusters with replacement `samples` times; returns the finite differences."""
    found = _difference(drawn_totals(sums, samples, generator(seed)))
    finite = found[np.isfinite(found)]
    if not len(finite):
        raise DataError("no bootstrap sample holds a measured search, so there is no interval")
    return finite
