"""The index of a corpus: its vectors or codes on the disk, bound to their encoder and corpus.

index.json       the manifest, written last: what of, what with, how good, every file's digests
passages.faiss   the exact vectors, where the index is exact or scores again with them
codes.faiss      the codes of an approximate index
rescore.faiss    one byte a number, for scoring the best again
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import faiss
import msgspec
import numpy as np
import numpy.typing as npt

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError, MismatchError
from agentic_r.io import write_atomic
from agentic_r.retriever import blocks, kinds
from agentic_r.retriever.build import Shards, encode_corpus
from agentic_r.retriever.codes import open_mapped
from agentic_r.retriever.encoder import Encoder, Vectors
from agentic_r.retriever.kinds import CODES_FILE, RESCORE_FILE, Recipe
from agentic_r.retriever.known import known_items
from agentic_r.retriever.product import Product
from agentic_r.settings.retriever import IndexConfig

INDEX_FILE = kinds.VECTORS_FILE
MANIFEST_FILE = "index.json"

REBUILD = "rebuild it with: agentic-r index CONFIG"
_SMALL = 200_000
_RECALL_AT = 10


class Side(msgspec.Struct, frozen=True):
    """The encoder that the passages went through."""

    fingerprint: str
    base: str
    pooling: str
    prefix: str


class IndexManifest(msgspec.Struct, frozen=True):
    """What an index is; `recall` is None where search is exact or was not measured."""

    kind: str
    recipe: Recipe
    passages: Side
    corpus: str
    count: int
    dimension: int
    engine: str
    recall: float | None
    recall_queries: int
    files: dict[str, blocks.Whole]


class Index:
    """All passages of a corpus, searched by vector. Scores are inner products."""

    def __init__(
        self,
        index: Any,
        manifest: IndexManifest,
        check: blocks.Check,
        folder: Path,
        held: tuple[Any, ...] = (),
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.check = check
        self._index = index
        self._held = held  # FAISS does not keep the parts of an index alive
        self._exact = not manifest.recipe.factory
        self._together = False
        if self._exact and len(self) > _SMALL:
            # By default FAISS scans the vectors once a query, up to hundreds of them.
            faiss.cvar.distance_compute_blas_threshold = 2 * int(index.d)

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        corpus: Corpus,
        folder: Path | None = None,
        settings: IndexConfig | None = None,
        *,
        progress: str | None = None,
    ) -> Index:
        """Encode the corpus and index it in `folder`, the manifest last; a kill is resumed.

        Without a folder the index lives as long as the object. Raises ConfigError for a kind that
        cannot be, MismatchError for an encoder of which the query side alone was trained, and as
        `build.encode_corpus` does.
        """
        if encoder.settings.trained_for:
            raise MismatchError(
                "got an encoder of which the query side alone was trained, expected one for "
                f"passages too; open the index of encoder {encoder.settings.trained_for} with it"
            )
        settings = settings or IndexConfig()
        if folder is None:
            with tempfile.TemporaryDirectory() as passing:  # what is mapped outlives its name
                return cls.build(encoder, corpus, Path(passing), settings, progress=progress)
        made = kinds.recipe(settings, encoder.dimension, len(corpus))
        folder = Path(folder)
        # A manifest of an earlier build must not vouch for a file that is half replaced.
        (folder / MANIFEST_FILE).unlink(missing_ok=True)
        path = folder / INDEX_FILE
        shards = Shards(path, encoder, corpus, settings.vectors, settings.precision)
        encode_corpus(shards, settings.workers, progress, settings.scale)
        quality = None
        if made.factory:
            exact = open_mapped(path)
            kinds.build(folder, made, exact)
            quality = _measured(folder, made, exact, encoder, corpus)
            if made.rescore != "exact":
                path.unlink()
        manifest = IndexManifest(
            settings.kind,
            made,
            _side(encoder),
            corpus.digest,
            len(corpus),
            encoder.dimension,
            shards.engine.name,
            None if quality is None else quality.recall,
            0 if quality is None else quality.queries,
            {name: blocks.measure(folder / name) for name in _names(made)},
        )
        write_manifest(folder, manifest)
        shards.clear()
        return cls.open(folder, encoder, corpus)

    @classmethod
    def open(cls, folder: Path | str, encoder: Encoder, corpus: Corpus) -> Index:
        """Open a saved index for this corpus and an encoder that its passages were made for.

        Small files are checked at once, large ones in the background: `check.wait()` returns when
        every block has been looked at. Raises MismatchError where the index was built with another
        encoder or corpus, and DataError where a file is missing or damaged.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        for what, built, given in (
            ("encoder", manifest.passages.fingerprint, encoder.passage_side),
            ("corpus", manifest.corpus[:16], corpus.digest[:16]),
        ):
            if built != given:
                raise MismatchError(
                    f"{folder}: the index was built with {what} {built}, got {what} {given}; "
                    f"{REBUILD}"
                )
        check = blocks.Check(folder, manifest.files, REBUILD)
        parts = _parts(folder, manifest.recipe)
        for name, part in zip(_names(manifest.recipe), parts, strict=True):
            if (int(part.ntotal), int(part.d)) != (manifest.count, manifest.dimension):
                raise DataError(
                    f"{folder / name}: damaged: got {part.ntotal} vectors of {part.d} numbers, "
                    f"expected {manifest.count} of {manifest.dimension}; {REBUILD}"
                )
        whole = kinds.assembled(manifest.recipe, parts[0], parts[1] if parts[1:] else None)
        return cls(whole, manifest, check, folder, tuple(parts))

    def __len__(self) -> int:
        return self.manifest.count

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Find the `k` best rows for each vector: scores [q, k] falling, rows [q, k].

        Equal scores are in row order; k beyond the index gives all of it. An approximate index may
        find fewer: then rows end with -1. Raises ConfigError for k < 1, MismatchError for vectors
        of another dimension and DataError where a file has turned out to be damaged.
        """
        self.check.refuse()
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        if vectors.ndim != 2 or vectors.shape[1] != self.manifest.dimension:
            raise MismatchError(
                f"got vectors of shape {vectors.shape}, expected [q, {self.manifest.dimension}]; "
                f"{REBUILD}"
            )
        k = min(k, len(self))
        size = self._batch()
        parts = [self._index.search(vectors[i : i + size], k) for i in range(0, len(vectors), size)]
        if not parts:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        scores, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        scores[rows < 0] = -np.inf
        order = np.lexsort((rows, -scores), axis=1)
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def share_batches(self) -> None:
        """Search the queries of a batch together from now on, which a service does.

        It is several times as fast where search is exact; the last bit of a score, and which of
        several equal passages is the last of k, may then depend on who shares the batch.
        """
        self._together = True
        if isinstance(self._index, faiss.IndexFlatIP):
            self._index = Product(self._index)

    def _batch(self) -> int:
        # From this many queries on FAISS multiplies matrices, whose last bit depends on who
        # shares the batch. A small index can afford the scan that gives a query one result.
        if self._together or len(self) > _SMALL or not self._exact:
            return 4096
        threshold = int(faiss.cvar.distance_compute_blas_threshold)
        return max(1, (threshold - 1) // self.manifest.dimension)


def read_manifest(folder: Path) -> IndexManifest:
    """Read the manifest of an index. Raises DataError where it is missing or damaged."""
    path = folder / MANIFEST_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=IndexManifest)
    except OSError:
        raise DataError(f"{path}: there is no such file, expected an index; {REBUILD}") from None
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: damaged ({error}); {REBUILD}") from None


def write_manifest(folder: Path, manifest: IndexManifest) -> None:
    """Write the manifest, which says that the index is whole."""
    raw = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    write_atomic(folder / MANIFEST_FILE, raw)


def verify(folder: Path) -> IndexManifest:
    """Read every byte of an index and compare. Raises DataError naming the damaged file."""
    manifest = read_manifest(folder)
    blocks.check(folder, manifest.files, REBUILD)
    return manifest


def indexes(run: Path) -> list[Path]:
    """List the folders of a run that hold an index. Raises DataError where there is none."""
    found = sorted(path.parent for path in run.rglob(MANIFEST_FILE))
    if not found:
        raise DataError(f"{run}: got no index in it, expected at least one; {REBUILD}")
    return found


def about(manifest: IndexManifest) -> str:
    """Say in one line what an index is."""
    recall = "exact search"
    if manifest.recipe.factory:
        measured = manifest.recall is not None
        recall = (
            f"recall@{_RECALL_AT} {manifest.recall:.3f} against exact search on "
            f"{manifest.recall_queries} queries"
            if measured
            else "recall not measured"
        )
    size = sum(whole.size for whole in manifest.files.values()) / 1e6
    return (
        f"{manifest.kind}, {manifest.count:,} passages of {manifest.dimension} numbers, "
        f"{size:,.1f} MB, {recall}; passages encoded in {manifest.engine}"
    )


def _side(encoder: Encoder) -> Side:
    settings = encoder.settings
    return Side(encoder.fingerprint, settings.base, settings.pooling, settings.passage_prefix)


def _names(recipe: Recipe) -> list[str]:
    if not recipe.factory:
        return [INDEX_FILE]
    second: dict[Literal["none", "int8", "exact"], list[str]] = {
        "none": [],
        "int8": [RESCORE_FILE],
        "exact": [INDEX_FILE],
    }
    return [CODES_FILE, *second[recipe.rescore]]


def _parts(folder: Path, recipe: Recipe) -> list[Any]:
    parts = []
    for name in _names(recipe):
        try:
            parts.append(open_mapped(folder / name))
        except RuntimeError as error:
            said = str(error).strip().splitlines()[-1]
            raise DataError(
                f"{folder / name}: damaged: FAISS says {said[:160]}; {REBUILD}"
            ) from None
    return parts


def _measured(
    folder: Path, made: Recipe, exact: Any, encoder: Encoder, corpus: Corpus
) -> kinds.Quality:
    """Measure recall@10 on queries cut out of passages, which no index has seen."""
    vectors = encoder.encode(known_items(corpus), "query")
    parts = _parts(folder, made)
    index = kinds.assembled(made, parts[0], parts[1] if parts[1:] else None)
    k = min(_RECALL_AT, int(exact.ntotal))
    return kinds.overlap(index.search(vectors, k)[1], exact.search(vectors, k)[1])
