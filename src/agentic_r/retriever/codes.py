"""FAISS files of flat codes that are written in place, row by row, in any order.

Such a file is a header and then one code of fixed length a row, so it can be mapped into memory
and filled by several processes; FAISS, and every program that uses it, opens it as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Format = Literal["fp32", "fp16", "int8"]
"""Numbers of a stored vector: 4, 2 or 1 bytes each."""

MAPPED = faiss.IO_FLAG_MMAP_IFC
"""How FAISS opens a file without reading it whole."""


def empty(dimension: int, format: Format, sample: Vectors | None = None) -> Any:
    """Return an empty FAISS index of flat codes, inner product.

    int8 needs a sample of the vectors, from which it learns the range of each dimension.
    """
    if format == "fp32":
        return faiss.IndexFlatIP(dimension)
    quantiser = faiss.ScalarQuantizer
    kind = quantiser.QT_fp16 if format == "fp16" else quantiser.QT_8bit
    index = faiss.IndexScalarQuantizer(dimension, kind, faiss.METRIC_INNER_PRODUCT)
    if sample is not None and format == "int8":
        index.train(sample)
    return index


class CodesFile:
    """A file of `count` codes of the kind of `index`, which is empty."""

    def __init__(self, path: Path, index: Any, count: int) -> None:
        self.path = path
        self.count = count
        self._index = index
        self._size = int(index.sa_code_size())
        header = bytearray(faiss.serialize_index(index).tobytes())
        # Rows stand at byte 8, and the length of the codes comes last, for IndexFlat in floats.
        unit = 4 if isinstance(index, faiss.IndexFlat) else 1
        header[8:16] = count.to_bytes(8, "little")
        header[-8:] = (count * self._size // unit).to_bytes(8, "little")
        self._header = bytes(header)

    @property
    def code_size(self) -> int:
        """Bytes of one code."""
        return self._size

    @property
    def bytes(self) -> int:
        """Length of the whole file."""
        return len(self._header) + self.count * self._size

    def create(self) -> None:
        """Make the file, all zeros, unless one of this very form is there already."""
        if self.path.is_file() and self.path.stat().st_size == self.bytes:
            with self.path.open("rb") as file:
                if file.read(len(self._header)) == self._header:
                    return
        with self.path.open("wb") as file:
            file.write(self._header)
            file.truncate(self.bytes)

    def rows(self, start: int, stop: int, mode: Literal["r", "r+"] = "r") -> Any:
        """Map the codes of rows `start` to `stop` into memory: bytes [n, code size]."""
        place = len(self._header) + start * self._size
        return np.memmap(self.path, np.uint8, mode, place, (stop - start, self._size))

    def encode(self, vectors: Vectors) -> npt.NDArray[np.uint8]:
        """Return the codes of vectors [n, d]."""
        codes: npt.NDArray[np.uint8] = self._index.sa_encode(vectors)
        return codes


def open_mapped(path: Path) -> Any:
    """Open a FAISS file, mapped into memory as far as its kind allows."""
    return faiss.read_index(str(path), MAPPED)


def read_rows(index: Any, start: int, stop: int) -> Vectors:
    """Return the vectors of rows `start` to `stop` of an index, as far as it keeps them."""
    rows: Vectors = index.reconstruct_n(start, stop - start)
    return rows


def sample_rows(index: Any, count: int, seed: int = 0) -> Vectors:
    """Return the vectors of `count` rows drawn without replacement, in row order; all where fewer.

    The same seed draws the same rows.
    """
    total = int(index.ntotal)
    if total <= count:
        return read_rows(index, 0, total)
    drawn = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    rows: Vectors = index.reconstruct_batch(drawn)
    return rows
