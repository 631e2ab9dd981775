"""FAISS indexes that FlashRAG, Search-R1 or another program built, taken over as they are.

Nothing in such a file says which corpus and encoder it was made for. So both are named by the user
and tried: drawn passages are encoded and must find their own rows.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import faiss
import msgspec
import numpy as np

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError, MismatchError
from agentic_r.retriever import blocks
from agentic_r.retriever.codes import open_mapped
from agentic_r.retriever.encoder import Encoder, Vectors
from agentic_r.retriever.index import (
    INDEX_FILE,
    MANIFEST_FILE,
    Index,
    IndexManifest,
    Side,
    write_manifest,
)
from agentic_r.retriever.kinds import CODES_FILE, Recipe
from agentic_r.retriever.known import known_items, known_rows
from agentic_r.retriever.pooling import Pooling
from agentic_r.types import Passage

TRIED = 64
"""Passages that are encoded to see whether they find themselves."""

ENOUGH = 0.9
"""Share of them that must; the rest may have twins, or be lost by an approximate index."""

ALIKE = 0.98
"""Median cosine of a passage with its row that tells the right conventions, fp16 allowed for."""

_PREFIXES = ("", "passage: ", "query: ")
_POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last")


class Fit(NamedTuple):
    """How well passages find their rows: the share, the cosine, by how many rows most are off.

    `cosine` is None where the index does not keep vectors.
    """

    found: float
    cosine: float | None
    shift: int


class Imported(NamedTuple):
    """What was taken over: its manifest, how well it fits, known items found among the first 10."""

    manifest: IndexManifest
    fit: Fit
    known: float


def import_index(
    path: Path, encoder: Encoder, corpus: Corpus, folder: Path, probes: int = 0
) -> Imported:
    """Take over a FAISS file as an index folder, the file itself linked or else copied.

    `probes` are the lists or nodes that a search visits, 0 leaving what the file says. Raises
    DataError for a file that FAISS cannot open, MismatchError where its rows are not those of the
    corpus, or the encoder and its conventions are not those that it was made with, and ConfigError
    where the folder is in use.
    """
    if (folder / MANIFEST_FILE).exists():
        raise ConfigError(f"{folder}: got a folder that holds an index, expected another or none")
    index = _opened(path)
    _check(path, index, encoder, corpus)
    flat = isinstance(faiss.downcast_index(index), faiss.IndexFlat)
    if probes:
        from agentic_r.retriever.kinds import assembled

        index = assembled(Recipe("named", probes=probes), index, None)
    rows = known_rows(corpus, TRIED)
    passages = [corpus[row] for row in rows]
    fit = _fit(index, rows, _written(encoder, passages))
    if fit.found < ENOUGH or (fit.cosine is not None and fit.cosine < ALIKE):
        raise MismatchError(_refusal(path, index, rows, passages, encoder, fit))
    known = _known(index, encoder, corpus)
    name = INDEX_FILE if flat else CODES_FILE
    folder.mkdir(parents=True, exist_ok=True)
    _take(path, folder / name)
    kind = "exact" if flat else _kind(index)
    recipe = Recipe("") if flat else Recipe(kind, probes=probes)
    settings = encoder.settings
    manifest = IndexManifest(
        kind,
        recipe,
        Side(encoder.fingerprint, settings.base, settings.pooling, settings.passage_prefix),
        corpus.digest,
        len(corpus),
        encoder.dimension,
        "another program",
        None,
        0,
        {name: blocks.measure(folder / name)},
    )
    write_manifest(folder, manifest)
    return Imported(manifest, fit, known)


def adopt(ready: Path, folder: Path, encoder: Encoder, corpus: Corpus) -> Index:
    """Link an index folder into another, of a run for instance, and open it there.

    Raises as `Index.open` does where it is of another encoder or corpus, or damaged.
    """
    manifest = Index.open(ready, encoder, corpus).manifest
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    for name in manifest.files:
        _take(ready / name, folder / name)
    write_manifest(folder, manifest)
    return Index.open(folder, encoder, corpus)


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file, expected a FAISS index; check the path")
    try:
        return open_mapped(path)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1]
        raise DataError(f"{path}: FAISS cannot open it ({said[:160]})") from None


def _check(path: Path, index: Any, encoder: Encoder, corpus: Corpus) -> None:
    """Refuse what can be seen without encoding anything."""
    if int(index.d) != encoder.dimension:
        raise MismatchError(
            f"{path}: got vectors of {index.d} numbers, expected {encoder.dimension}, which "
            f"{encoder.settings.base!r} makes; name the encoder that the index was built with"
        )
    if int(index.ntotal) != len(corpus):
        raise MismatchError(
            f"{path}: got {index.ntotal:,} vectors, expected {len(corpus):,}, one a passage; name "
            "the corpus that the index was built from"
        )
    if int(index.metric_type) != faiss.METRIC_INNER_PRODUCT:
        raise MismatchError(
            f"{path}: got an index of distances, expected inner products, which FlashRAG and "
            "Search-R1 build; build it again with: agentic-r index CONFIG"
        )
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexIDMap):
        ids = faiss.vector_to_array(inner.id_map)
        if not np.array_equal(ids, np.arange(len(ids))):
            raise MismatchError(
                f"{path}: got an index with ids of its own, expected row numbers of the corpus; "
                "build it again with: agentic-r index CONFIG"
            )


def _written(encoder: Encoder, passages: Sequence[Passage]) -> Vectors:
    """Encode passages as those programs do: the title in the double quotes of the corpus file."""
    texts = [f'"{p.title}"\n{p.text}' if p.title else p.text for p in passages]
    return encoder.encode(texts, "passage")


def _fit(index: Any, rows: Sequence[int], vectors: Vectors) -> Fit:
    """See where passages find themselves; equal scores count as found (passages have twins)."""
    scores, found = index.search(vectors, min(10, int(index.ntotal)))
    wanted = np.asarray(rows)
    own = np.where(found == wanted[:, None], scores, -np.inf).max(1)
    hits = own >= scores[:, 0] - 1e-4 * np.abs(scores[:, 0])
    shift = Counter((found[:, 0] - wanted).tolist()).most_common(1)[0]
    kept = _reconstructed(index, rows)
    cosine = None if kept is None else float(np.median(_cosines(kept, vectors)))
    return Fit(float(hits.mean()), cosine, shift[0] if shift[1] > len(rows) // 2 else 0)


def _reconstructed(index: Any, rows: Sequence[int]) -> Vectors | None:
    """Return the stored vectors of rows, None for a kind that keeps codes by list."""
    if faiss.try_extract_index_ivf(index) is not None:
        return None
    try:
        return cast(Vectors, index.reconstruct_batch(np.asarray(rows, np.int64)))
    except RuntimeError:
        return None


def _cosines(a: Vectors, b: Vectors) -> Vectors:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return cast(Vectors, (a * b).sum(1) / np.maximum(norms, 1e-12))


def _refusal(
    path: Path,
    index: Any,
    rows: Sequence[int],
    passages: Sequence[Passage],
    encoder: Encoder,
    fit: Fit,
) -> str:
    """Say what does not fit, and what would: other rows, or other conventions of the encoder."""
    cosine = "" if fit.cosine is None else f" with cosine {fit.cosine:.3f}"
    got = (
        f"{path}: {fit.found:.0%} of {len(rows)} passages find their own rows{cosine}, expected "
        f"{ENOUGH:.0%}" + ("" if fit.cosine is None else f" and {ALIKE}")
    )
    if fit.shift:
        return f"{got}; most are found {fit.shift:+} rows off: name the corpus as it was indexed"
    best = _conventions(index, rows[:16], passages[:16], encoder)
    if best is not None:
        return f"{got}; these conventions fit: --pooling {best[0]} --passage-prefix {best[1]!r}"
    return (
        f"{got}; name the corpus and encoder it was built with, and --pooling, --passage-prefix, "
        "--max-length and --normalise as they were"
    )


def _conventions(
    index: Any, rows: Sequence[int], passages: Sequence[Passage], encoder: Encoder
) -> tuple[Pooling, str] | None:
    """Try poolings and prefixes on a few passages; None where none of them fits."""
    best: tuple[float, tuple[Pooling, str] | None] = (ALIKE, None)
    for pooling, prefix in product(_POOLINGS, _PREFIXES):
        changed = msgspec.structs.replace(encoder.settings, pooling=pooling, passage_prefix=prefix)
        other = Encoder(
            encoder.model, encoder.tokenizer, changed, batch_tokens=encoder.batch_tokens
        )
        fit = _fit(index, rows, _written(other, passages))
        value = fit.found if fit.cosine is None else fit.cosine
        if fit.found >= ENOUGH and value > best[0]:
            best = (value, (pooling, prefix))
    return best[1]


def _known(index: Any, encoder: Encoder, corpus: Corpus) -> float:
    """Return how many passages are among the first ten for a run of words cut out of them."""
    rows = np.asarray(known_rows(corpus))
    vectors = encoder.encode(known_items(corpus), "query")
    found = index.search(vectors, min(10, len(corpus)))[1]
    return float((found == rows[:, None]).any(1).mean())


def _kind(index: Any) -> str:
    """Name a kind as FAISS calls its class."""
    return type(faiss.downcast_index(index)).__name__


def _take(source: Path, target: Path) -> None:
    """Link a file into a folder, or copy it where it lies on another disk."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
