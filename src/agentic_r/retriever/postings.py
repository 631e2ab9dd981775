"""The matrix of BM25 made on the disk: passages are read once, and memory holds one slice of them.

The library makes its matrix from all passages at once, 24 bytes and more for every different word
of every passage. Here a slice's words are counted and set aside; when the passages have been read,
every word's share of passages and the mean length are known, and slice by slice the scores go to
their places in two mapped files. The numbers are the library's own, to the last bit.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int32]


class Counts(NamedTuple):
    """How often which word is in which passage of a slice, in order of words, then passages."""

    words: Numbers
    rows: Numbers
    times: Numbers


class Postings:
    """Counts of one slice after the other, set aside in a file of `folder`."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._sizes: list[int] = []
        self._passages = np.zeros(0, np.int64)
        self._lengths: list[Numbers] = []
        self._rows = 0

    def add(self, passages: Iterable[Numbers]) -> None:
        """Count a slice of passages, each given as the numbers of its words."""
        held = list(passages)
        lengths = np.array([len(each) for each in held], np.int32)
        places = np.repeat(np.arange(len(held), dtype=np.int64), lengths)
        words = np.concatenate(held).astype(np.int64) if held else places
        pairs, times = np.unique(words * max(1, len(held)) + places, return_counts=True)
        words, places = np.divmod(pairs, max(1, len(held)))
        counts = Counts(
            words.astype(np.int32), (places + self._rows).astype(np.int32), times.astype(np.int32)
        )
        for each in counts:
            self._file.write(each.data)
        self._sizes.append(len(words))
        self._lengths.append(lengths)
        self._rows += len(held)
        found = np.bincount(words)
        if len(found) > len(self._passages):
            grown = len(found) - len(self._passages)
            self._passages = np.concatenate([self._passages, np.zeros(grown, np.int64)])
        self._passages[: len(found)] += found

    def matrix(self, folder: Path, k1: float, b: float) -> dict[str, Any]:
        """Write the scores of Lucene's BM25 into files of `folder`, column by column a word.

        Returns the arrays that the library searches: "data", "indices", "indptr", "num_docs".
        """
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._passages)])
        size = int(starts[-1])
        data = np.memmap(folder / "data", np.float32, "w+", shape=(size,))
        indices = np.memmap(folder / "indices", np.int32, "w+", shape=(size,))
        lengths = np.concatenate(self._lengths)
        worth = _worth(self._passages, self._rows)
        norms = k1 * ((1 - b) + b * lengths / lengths.mean())
        place = starts[:-1].copy()
        for words, rows, times in self._slices():
            first = np.flatnonzero(np.diff(words, prepend=-1))
            run = np.diff(first, append=len(words))
            at = np.arange(len(words)) - np.repeat(first, run) + place[words]
            data[at] = worth[words] * (times / (norms[rows] + times))
            indices[at] = rows
            place[words[first]] += run
        return {"data": data, "indices": indices, "indptr": starts, "num_docs": self._rows}

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _slices(self) -> Iterator[Counts]:
        self._file.seek(0)
        for size in self._sizes:
            words, rows, times = (
                np.frombuffer(self._file.read(4 * size), np.int32) for _ in range(3)
            )
            yield Counts(words, rows, times)


def _worth(passages: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float32]:
    """Return each word's inverse document frequency, as the library computes it."""
    values, places = np.unique(passages, return_inverse=True)
    # `math` and numpy differ in the last bit of some logarithms.
    each = [math.log(1 + (count - int(n) + 0.5) / (int(n) + 0.5)) for n in values]
    found: npt.NDArray[np.float32] = np.array(each, np.float32)[places]
    return found
