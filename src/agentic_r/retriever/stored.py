"""The dense retriever over a store: queries are encoded here, vectors searched there."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError
from agentic_r.retriever.dense import hits
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.publish import published_version
from agentic_r.retriever.ruler import QueryRuler
from agentic_r.retriever.stores import Store
from agentic_r.types import Hit


class StoredRetriever:
    """Searches what is published under an alias; the passages' texts are those of the corpus.

    Raises as `publish.published_version` does where that is of another encoder or corpus. It goes
    on with the version that it opened when the alias is moved to another encoder's.
    """

    def __init__(self, encoder: Encoder, store: Store, name: str, corpus: Corpus) -> None:
        self.encoder = encoder
        self.corpus = corpus
        self.version = published_version(store, name, encoder, corpus)
        self._store = store

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return the `k` best hits for each query, best first; which of equals, the store decides.

        Raises ConfigError for k < 1 and OutageError where the store cannot be reached.
        """
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        if not queries:
            return []
        unique = list(dict.fromkeys(queries))
        vectors = self.encoder.encode(unique, "query")
        scores, rows = self._store.search(self.version, vectors, min(k, len(self.corpus)))
        found = dict(zip(unique, hits(self.corpus, scores, rows), strict=True))
        return [list(found[query]) for query in queries]

    @property
    def ruler(self) -> QueryRuler | None:
        """Say how long a query may be; None where the tokenizer does not tell tokens apart."""
        return QueryRuler(self.encoder) if self.encoder.tokenizer.is_fast else None
