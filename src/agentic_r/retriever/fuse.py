"""Several retrievers as one, by the ranks that they give."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_r.errors import ConfigError
from agentic_r.protocols import Retriever
from agentic_r.types import Hit, Passage

K0 = 60
"""The constant of reciprocal rank fusion (Cormack et al. 2009)."""


class FusedRetriever:
    """Ranks passages by the sum over retrievers of weight / (60 + rank), ranks from 1.

    Each retriever is asked for `depth` passages, or k where that is more. Passages are the same
    where their ids are; the first retriever's text counts.
    """

    def __init__(
        self,
        retrievers: Sequence[Retriever],
        weights: Sequence[float] | None = None,
        *,
        depth: int = 100,
    ) -> None:
        self._retrievers = tuple(retrievers)
        self._weights = tuple(weights) if weights is not None else (1.0,) * len(self._retrievers)
        self._depth = depth
        if not self._retrievers or len(self._weights) != len(self._retrievers):
            raise ConfigError(
                f"fusion: got {len(self._retrievers)} retrievers and {len(self._weights)} weights, "
                "expected at least one retriever and a weight for each"
            )

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return the `k` best hits for each query; equal sums keep the first retriever's order.

        Raises ConfigError for k < 1, and as the retrievers do.
        """
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        depth = max(k, self._depth)
        found = [retriever.search(queries, depth) for retriever in self._retrievers]
        return [self._fused([hits[at] for hits in found], k) for at in range(len(queries))]

    def _fused(self, lists: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
        sums: dict[str, float] = {}
        passages: dict[str, Passage] = {}
        for weight, hits in zip(self._weights, lists, strict=True):
            for rank, hit in enumerate(hits, 1):
                id = hit.passage.id
                sums[id] = sums.get(id, 0.0) + weight / (K0 + rank)
                passages.setdefault(id, hit.passage)
        best = sorted(sums, key=lambda id: -sums[id])[:k]
        return [Hit(passages[id], sums[id]) for id in best]
