"""BM25, the lexical baseline."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import Stemmer

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError
from agentic_r.protocols import SEPARATOR
from agentic_r.types import Hit


class BM25Retriever:
    """Ranks passages by BM25 (Lucene's variant) over English stems.

    Passages and queries go through the same tokeniser: the upstream index was stemmed and its
    queries were not (faults C69).
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self._stemmer = Stemmer.Stemmer("english")
        self._index = bm25s.BM25()
        tokens = self._tokens([passage.contents for passage in corpus])
        # The library cannot index a corpus without a single word.
        self._empty = not any(tokens)
        if not self._empty:
            self._index.index(tokens, show_progress=False)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return the `k` best hits for each query, best first, ties in corpus order.

        Passages that share no word with the query fill up to `k` with score 0; k beyond the
        corpus gives all of it. The separator between question and query is no word. Raises
        ConfigError for k < 1.
        """
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        if not queries:
            return []
        tokens = self._tokens([query.replace(SEPARATOR, " ") for query in queries])
        return [self._hits(words, min(k, len(self.corpus))) for words in tokens]

    def _hits(self, words: list[str], k: int) -> list[Hit]:
        if words and not self._empty:
            scores = np.asarray(self._index.get_scores(words))
        else:
            scores = np.zeros(len(self.corpus))
        best = np.argsort(-scores, kind="stable")[:k]
        return [Hit(self.corpus[int(row)], float(scores[row])) for row in best]

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        tokens: list[list[str]] = bm25s.tokenize(
            texts, stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False
        )
        return tokens
