"""What the batcher computes, one class for each kind; equal ones are computed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from agentic_r.serve import wire
from agentic_r.serve.offer import Encoding, Offer, Reranker
from agentic_r.serve.shards import Partial
from agentic_r.types import Hit


@runtime_checkable
class ByVector(Protocol):
    """A retriever that can be searched with vectors of queries."""

    def search_vectors(self, vectors: Any, k: int) -> list[list[Hit]]:
        """Return the `k` best hits for each row."""
        ...


class Rendered(NamedTuple):
    """The JSON of a query's hits, and whether a shard was missing."""

    body: bytes
    partial: bool


@dataclass(frozen=True)
class SearchRendered:
    """Search and write the hits as `/retrieve` sends them."""

    offer: Offer
    k: int
    scores: bool

    @property
    def most(self) -> int | None:
        """Queries that the retriever takes at once."""
        return self.offer.batch

    def run(self, texts: Sequence[str]) -> list[Rendered]:
        """Return each text's hits, written."""
        found = self.offer.retriever.search(texts, self.k)
        return [
            Rendered(wire.render(hits, self.scores), isinstance(hits, Partial)) for hits in found
        ]


@dataclass(frozen=True)
class SearchHits:
    """Search and keep the hits as they are."""

    offer: Offer
    k: int

    @property
    def most(self) -> int | None:
        """Queries that the retriever takes at once."""
        return self.offer.batch

    def run(self, texts: Sequence[str]) -> list[list[Hit]]:
        """Return each text's hits."""
        return self.offer.retriever.search(texts, self.k)


@dataclass(frozen=True)
class SearchVectors:
    """Search with vectors, written in bytes, for a router over shards."""

    retriever: ByVector
    k: int
    most: int | None = None

    def run(self, texts: Sequence[bytes]) -> list[list[wire.Found]]:
        """Return each vector's hits."""
        vectors = np.frombuffer(b"".join(texts), "<f4").reshape(len(texts), -1)
        found = self.retriever.search_vectors(vectors, self.k)
        return [wire.found(hits) for hits in found]


@dataclass(frozen=True)
class Encode:
    """Encode texts as queries or as passages."""

    encoder: Encoding
    kind: Any
    most: int | None = None

    def run(self, texts: Sequence[str]) -> list[Any]:
        """Return the vector of each text."""
        return list(self.encoder.encode(texts, self.kind))


@dataclass(frozen=True)
class Score:
    """Score texts for one query."""

    reranker: Reranker
    query: str
    most: int | None = None

    def run(self, texts: Sequence[str]) -> list[float]:
        """Return the score of each text."""
        return self.reranker.scores([(self.query, text) for text in texts])
