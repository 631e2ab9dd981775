"""A re-ranker's scores beside the retriever's own: how they are mixed, and by what weight."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

WEIGHTS = tuple(n / 10 for n in range(11))
"""Weights of the re-ranker that are tried on dev queries."""


class Judged(msgspec.Struct, frozen=True):
    """One dev query's passages as the retriever found them, best first."""

    own: tuple[float, ...]
    again: tuple[float, ...]
    good: tuple[bool, ...]


class Weighed(msgspec.Struct, frozen=True):
    """One weight on dev: hit rate among the first k, mean reciprocal rank, both 0-1."""

    weight: float
    hit: float
    mrr: float


def scaled(scores: Sequence[float]) -> list[float]:
    """Map the scores of one query to 0-1, the lowest to 0; equal ones are all 0."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 0.0 for score in scores]


def blended(own: Sequence[float], again: Sequence[float], weight: float) -> list[float]:
    """Mix two scores of the same passages of one query, both scaled to 0-1.

    `weight` 0-1 is the share of the second, the re-ranker's; at 1 its scores stay as they are.
    """
    if weight == 1.0:
        return list(again)
    pairs = zip(scaled(own), scaled(again), strict=True)
    return [(1 - weight) * first + weight * second for first, second in pairs]


def order(scores: Sequence[float]) -> list[int]:
    """Return the places of the scores, the best first; of equals the earlier."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])


def weigh(queries: Sequence[Judged], k: int) -> list[Weighed]:
    """Measure every weight of WEIGHTS on dev queries, none where there is no query."""
    return [_weighed(queries, weight, k) for weight in WEIGHTS if queries]


def best(found: Sequence[Weighed]) -> Weighed:
    """Return the best weight by hit rate, then by reciprocal rank, then the smallest.

    Without a better hit rate than the retriever's own, weight 0: to rank anew costs a hundred times
    what the search does.
    """
    chosen = max(found, key=lambda each: (each.hit, each.mrr, -each.weight))
    return chosen if chosen.hit > found[0].hit else found[0]


def _weighed(queries: Sequence[Judged], weight: float, k: int) -> Weighed:
    ranks = []
    for query in queries:
        ranked = order(blended(query.own, query.again, weight))
        ranks.append(next((n for n, at in enumerate(ranked, 1) if query.good[at]), 0))
    hit = sum(0 < rank <= k for rank in ranks) / len(ranks)
    return Weighed(weight, hit, sum(1 / rank for rank in ranks if rank) / len(ranks))
