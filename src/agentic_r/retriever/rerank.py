"""The best passages of a retriever, ranked anew by a model that sees query and passage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agentic_r.errors import ConfigError
from agentic_r.protocols import Retriever
from agentic_r.retriever.blend import blended, order
from agentic_r.types import Hit


class Reranker(Protocol):
    """Anything that scores pairs."""

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the relevance of each (query, passage text), higher is better."""
        ...


class RerankedRetriever:
    """Asks a retriever for `depth` passages and ranks them by a re-ranker's scores.

    With a `weight` below 1 the retriever's own scores count for the rest.
    """

    def __init__(
        self, inner: Retriever, model: Reranker, *, depth: int = 50, weight: float = 1.0
    ) -> None:
        self._inner = inner
        self._model = model
        self._depth = depth
        self._weight = weight

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return the `k` best hits for each query; a pair that occurs twice is scored once.

        Raises ConfigError for k < 1, and as the retriever does.
        """
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        if not self._weight:
            return self._inner.search(queries, k)
        found = self._inner.search(queries, max(k, self._depth))
        pairs = [
            (query, hit.passage.contents)
            for query, hits in zip(queries, found, strict=True)
            for hit in hits
        ]
        unique = list(dict.fromkeys(pairs))
        scores = dict(zip(unique, self._model.scores(unique), strict=True))
        ranked = []
        for query, hits in zip(queries, found, strict=True):
            own = [hit.score for hit in hits]
            again = [scores[query, hit.passage.contents] for hit in hits]
            mixed = blended(own, again, self._weight)
            ranked.append([Hit(hits[at].passage, mixed[at]) for at in order(mixed)[:k]])
        return ranked
