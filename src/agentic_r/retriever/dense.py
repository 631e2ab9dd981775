"""The dense retriever: an encoder, an index of its vectors and the corpus they stand for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from agentic_r.config import RetrieverTrainConfig
from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError
from agentic_r.retriever.encoder import Encoder, Vectors
from agentic_r.retriever.index import Index
from agentic_r.retriever.ruler import QueryRuler
from agentic_r.retriever.trainer import train
from agentic_r.settings.retriever import IndexConfig
from agentic_r.types import Example, Hit

_REMEMBERED = 32_768


class DenseRetriever:
    """Finds passages by the cosine between the query's vector and theirs.

    Query vectors are remembered (the last 32,768 strings), so a repeated query costs no forward
    pass. Nothing is mutated by training: `fit` returns another retriever.
    """

    def __init__(self, encoder: Encoder, index: Index, corpus: Corpus) -> None:
        self.encoder = encoder
        self.index = index
        self.corpus = corpus
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()

    @classmethod
    def build(
        cls,
        encoder: Encoder | str,
        corpus: Corpus,
        folder: Path | None = None,
        settings: IndexConfig | None = None,
        *,
        progress: bool = True,
    ) -> DenseRetriever:
        """Index `corpus` with an encoder (or its name) and, with a folder, save the index.

        `settings` are those of the table `retriever.index` of a config: exact by default.
        """
        encoder = Encoder.load(encoder) if isinstance(encoder, str) else encoder
        bar = "encoding passages" if progress else None
        return cls(encoder, Index.build(encoder, corpus, folder, settings, progress=bar), corpus)

    @classmethod
    def open(cls, encoder: Encoder | str, corpus: Corpus, folder: Path) -> DenseRetriever:
        """Open the index saved in `folder`; raises as `Index.open` does."""
        encoder = Encoder.load(encoder) if isinstance(encoder, str) else encoder
        return cls(encoder, Index.open(folder, encoder, corpus), corpus)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return the `k` best hits for each query, best first; all passages where k is more.

        An approximate index may find fewer than `k`.

        Raises ConfigError for k < 1.
        """
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        if not queries:
            return []
        unique = list(dict.fromkeys(queries))
        found = dict(zip(unique, self.search_vectors(self._encode(unique), k), strict=True))
        return [list(found[query]) for query in queries]

    def search_vectors(self, vectors: Vectors, k: int) -> list[list[Hit]]:
        """Return the `k` best hits for each row of query vectors; raises as `Index.search` does."""
        return hits(self.corpus, *self.index.search(vectors, k))

    @property
    def ruler(self) -> QueryRuler | None:
        """Say how long a query may be; None where the tokenizer does not tell tokens apart."""
        return QueryRuler(self.encoder) if self.encoder.tokenizer.is_fast else None

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        folder: Path | None = None,
        progress: bool = True,
        **settings: Any,
    ) -> DenseRetriever:
        """Train a copy of the encoder on `examples` and index the corpus anew with it.

        With side = "query" the index stays as it is.

        `settings` are the fields of `RetrieverTrainConfig`; `folder` keeps checkpoints. Raises
        ConfigError for settings that cannot be, and as `trainer.train` does.
        """
        try:
            chosen = msgspec.convert(settings, RetrieverTrainConfig, strict=True)
            unknown = sorted(set(settings) - set(RetrieverTrainConfig.__struct_fields__))
        except msgspec.ValidationError as error:
            raise ConfigError(f"fit: {error}") from None
        if unknown:
            fields = ", ".join(RetrieverTrainConfig.__struct_fields__)
            raise ConfigError(f"fit: got {', '.join(unknown)}, expected some of {fields}")
        result = train(self.encoder, self.corpus, examples, chosen, seed, folder, progress=progress)
        if chosen.side == "query":
            return DenseRetriever(result.encoder, self.index, self.corpus)
        return DenseRetriever.build(result.encoder, self.corpus, progress=progress)

    def _encode(self, queries: Sequence[str]) -> Vectors:
        new = [query for query in queries if query not in self._vectors]
        fresh = dict(zip(new, self.encoder.encode(new, "query"), strict=True)) if new else {}
        found = np.stack([fresh[q] if q in fresh else self._vectors[q] for q in queries])
        for row, query in enumerate(queries):
            self._vectors[query] = found[row].copy()
            self._vectors.move_to_end(query)
        while len(self._vectors) > _REMEMBERED:
            self._vectors.popitem(last=False)
        return found


def hits(corpus: Corpus, scores: Vectors, rows: npt.NDArray[np.int64]) -> list[list[Hit]]:
    """Return the hits of each query by what an index found: scores and rows [q, k], -1 for none."""
    return [
        [
            Hit(corpus[int(row)], float(score))
            for row, score in zip(places, values, strict=True)
            if row >= 0
        ]
        for places, values in zip(rows, scores, strict=True)
    ]
