"""BM25, the lexical baseline; of a large corpus its index lies on the disk, mapped into memory.

    FILE.bm25/bm25.json   what of, and every file's digests; written last
    FILE.bm25/*           the library's own files

It stands beside the table of the corpus file and is made at the first opening, as that is, without
holding more than a slice of the passages.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bm25s
import msgspec
import numpy as np
import numpy.typing as npt
import Stemmer

from agentic_r.data.corpus import Corpus
from agentic_r.data.table import held
from agentic_r.errors import ConfigError
from agentic_r.io import write_atomic
from agentic_r.protocols import SEPARATOR
from agentic_r.retriever import blocks
from agentic_r.retriever.postings import Postings
from agentic_r.types import Hit

MANIFEST_FILE = "bm25.json"

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells what it does, at level debug

_RULES = "lucene, english stems and stop words, 1"
"""What passages and queries go through; an index made by others is made anew."""

_SLICE = 16_384
"""Passages whose counts are held at once."""

_TOKENISED = 2_048
"""Passages whose words are held at once."""


class Manifest(msgspec.Struct, frozen=True):
    """What an index on the disk was made from."""

    corpus: str
    rules: str
    words: int
    files: dict[str, blocks.Whole]


class BM25Retriever:
    """Ranks passages by BM25 (Lucene's variant) over English stems.

    Passages and queries go through the same tokeniser: the upstream index was stemmed and its
    queries were not (faults C69). Raises DataError where the index of a large corpus is damaged.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self._stemmer = Stemmer.Stemmer("english")
        self._check: blocks.Check | None = None
        self._index: Any = None
        if corpus.beside is None:
            self._index = self._made()
            return
        folder = corpus.beside.with_name(f"{corpus.beside.name}.bm25")
        manifest = _fresh(folder, corpus)
        if manifest is None:
            assert corpus.source is not None
            with held(corpus.source):  # another process may have made it meanwhile
                manifest = _fresh(folder, corpus) or self._write(folder)
        self._check = blocks.Check(folder, manifest.files, f"delete {folder}")
        if manifest.words:
            self._index = bm25s.BM25.load(folder, mmap=True, show_progress=False)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return the `k` best hits for each query, best first, ties in corpus order.

        Passages that share no word with the query fill up to `k` with score 0; k beyond the
        corpus gives all of it. The separator between question and query is no word. Raises
        ConfigError for k < 1 and DataError where a file has turned out to be damaged.
        """
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        if self._check is not None:
            self._check.refuse()
        if not queries:
            return []
        tokens = self._tokens([query.replace(SEPARATOR, " ") for query in queries])
        return [self._hits(words, min(k, len(self.corpus))) for words in tokens]

    def _hits(self, words: list[str], k: int) -> list[Hit]:
        if words and self._index is not None:
            scores = np.asarray(self._index.get_scores(words))
        else:
            scores = np.zeros(len(self.corpus))
        best = _best(scores, k)
        return [Hit(self.corpus[int(row)], float(scores[row])) for row in best]

    def _made(self) -> Any:
        """Index the corpus; None where it has no word, which the library cannot index."""
        words: dict[str, int] = {}
        ids = [each for part in self._ids(words) for each in part]
        if not words:
            return None
        index = bm25s.BM25()
        index.index((ids, words), show_progress=False)
        return index

    def _streamed(self, folder: Path) -> Any:
        """Index a large corpus; None where it has no word. What is mapped lies in `folder`."""
        words: dict[str, int] = {}
        with contextlib.closing(Postings(folder)) as postings:
            for part in self._ids(words):
                postings.add(part)
            if not words:
                return None
            index = bm25s.BM25()
            # One word makes an index of the library whole; then it is given the real matrix.
            index.index(([np.zeros(1, np.int32)], {"": 0}), show_progress=False)
            index.scores = postings.matrix(folder, index.k1, index.b)
        index.vocab_dict = {**words, "": len(words)}  # as the library has it
        return index

    def _ids(self, words: dict[str, int]) -> Iterator[list[npt.NDArray[np.int32]]]:
        """Yield slices of passages as numbers of words, which are added to `words`."""
        for start in range(0, len(self.corpus), _SLICE):
            stop = min(start + _SLICE, len(self.corpus))
            ids: list[npt.NDArray[np.int32]] = []
            for at in range(start, stop, _TOKENISED):
                part = self.corpus.passages(at, min(at + _TOKENISED, stop))
                for tokens in self._tokens([passage.contents for passage in part]):
                    numbers = [words.setdefault(word, len(words)) for word in tokens]
                    ids.append(np.array(numbers, np.int32))
            yield ids

    def _write(self, folder: Path) -> Manifest:
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=temporary) as passing:
            index = self._streamed(Path(passing))
            if index is not None:
                index.save(temporary, show_progress=False)
        files = {path.name: blocks.measure(path) for path in sorted(temporary.iterdir())}
        words = 0 if index is None else len(index.vocab_dict)
        manifest = Manifest(self.corpus.digest, _RULES, words, files)
        write_atomic(temporary / MANIFEST_FILE, msgspec.json.encode(manifest))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
        return manifest

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        tokens: list[list[str]] = bm25s.tokenize(
            texts, stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False
        )
        return tokens


def _fresh(folder: Path, corpus: Corpus) -> Manifest | None:
    """Return the manifest of an index that still fits the corpus, or None."""
    try:
        raw = (folder / MANIFEST_FILE).read_bytes()
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    fits = (manifest.corpus, manifest.rules) == (corpus.digest, _RULES)
    return manifest if fits else None


def _best(scores: npt.NDArray[Any], k: int) -> list[int]:
    """Return the rows of the k highest scores, ties in row order, without sorting all of them."""
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > least)
        rows = np.concatenate([above, np.flatnonzero(scores == least)[: k - len(above)]])
        rows.sort()
    else:
        rows = np.arange(len(scores))
    return [int(row) for row in rows[np.argsort(-scores[rows], kind="stable")]]
