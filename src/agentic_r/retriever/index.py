"""The exact index: FAISS inner product over all passages, bound to its encoder and corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import msgspec
import numpy as np
import numpy.typing as npt

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError, MismatchError
from agentic_r.io import digest_file, write_atomic
from agentic_r.retriever.atomic import written_whole
from agentic_r.retriever.encoder import Encoder, Vectors

INDEX_FILE = "passages.faiss"
MANIFEST_FILE = "index.json"

_REBUILD = "rebuild it with: agentic-r index CONFIG"
_SMALL = 200_000


class IndexManifest(msgspec.Struct, frozen=True):
    """What an index was built from; `encoder` and `corpus` are their digests."""

    kind: str
    encoder: str
    corpus: str
    count: int
    dimension: int
    sha256: str


class FlatIndex:
    """All passage vectors, searched exactly. Scores are cosines."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        corpus: Corpus,
        folder: Path | None = None,
        *,
        progress: str | None = None,
    ) -> FlatIndex:
        """Encode the corpus and index it; with a folder, save it there, the manifest last.

        Raises MismatchError for an encoder of which the query side alone was trained.
        """
        if encoder.settings.trained_for:
            raise MismatchError(
                "got an encoder of which the query side alone was trained, expected one for "
                f"passages too; open the index of encoder {encoder.settings.trained_for} with it"
            )
        vectors = encoder.encode([p.contents for p in corpus], "passage", progress)
        index = faiss.IndexFlatIP(encoder.dimension)
        index.add(vectors)
        if folder is not None:
            file = Path(folder) / INDEX_FILE
            # A manifest of an earlier build must not vouch for a file that is half replaced.
            (file.parent / MANIFEST_FILE).unlink(missing_ok=True)
            with written_whole(file) as temporary:
                faiss.write_index(index, str(temporary))
            manifest = IndexManifest(
                "flat-ip",
                encoder.fingerprint,
                corpus.digest,
                len(corpus),
                encoder.dimension,
                digest_file(file),
            )
            write_atomic(file.parent / MANIFEST_FILE, msgspec.json.encode(manifest))
        return cls(index)

    @classmethod
    def open(cls, folder: Path | str, encoder: Encoder, corpus: Corpus) -> FlatIndex:
        """Open a saved index for this very encoder and corpus.

        Raises MismatchError where it was built with another encoder or corpus, and DataError
        where a file is missing or damaged.
        """
        path = Path(folder) / MANIFEST_FILE
        file = path.with_name(INDEX_FILE)
        if not path.is_file() or not file.is_file():
            missing = file if path.is_file() else path
            raise DataError(f"{missing}: there is no such file, expected an index; {_REBUILD}")
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=IndexManifest)
        except msgspec.DecodeError as error:
            raise DataError(f"{path}: damaged ({error}); {_REBUILD}") from None
        for what, built, given in (
            ("encoder", manifest.encoder, encoder.passage_side),
            ("corpus", manifest.corpus[:16], corpus.digest[:16]),
        ):
            if built != given:
                raise MismatchError(
                    f"{folder}: the index was built with {what} {built}, got {what} {given}; "
                    f"{_REBUILD}"
                )
        found = digest_file(file)
        if found != manifest.sha256:
            raise DataError(
                f"{file}: damaged: got {file.stat().st_size} bytes with sha256 {found[:16]}, "
                f"expected sha256 {manifest.sha256[:16]}; {_REBUILD}"
            )
        return cls(faiss.read_index(str(file)))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Find the `k` best rows for each vector: scores [q, k] falling, rows [q, k].

        Equal scores are in row order; k beyond the index gives all of it. Raises ConfigError for
        k < 1 and MismatchError for vectors of another dimension.
        """
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        if vectors.ndim != 2 or vectors.shape[1] != self._index.d:
            raise MismatchError(
                f"got vectors of shape {vectors.shape}, expected [q, {self._index.d}]; {_REBUILD}"
            )
        k = min(k, len(self))
        size = self._batch()
        parts = [self._index.search(vectors[i : i + size], k) for i in range(0, len(vectors), size)]
        if not parts:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        scores, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.lexsort((rows, -scores), axis=1)
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def _batch(self) -> int:
        # From this many queries on FAISS multiplies matrices, whose last bit depends on who
        # shares the batch. A small index can afford the scan that gives a query one result.
        if len(self) > _SMALL:
            return 4096
        threshold = int(faiss.cvar.distance_compute_blas_threshold)
        return max(1, (threshold - 1) // int(self._index.d))
