"""The kinds of index: what each is made of, how it is built from the vectors, how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import faiss
import msgspec
import numpy as np
import numpy.typing as npt

from agentic_r.errors import ConfigError
from agentic_r.retriever.atomic import written_whole
from agentic_r.retriever.codes import CodesFile, empty, read_rows, sample_rows
from agentic_r.settings.retriever import IndexConfig

VECTORS_FILE = "passages.faiss"
CODES_FILE = "codes.faiss"
RESCORE_FILE = "rescore.faiss"

LEAST = 1_000
"""Passages that an approximate index needs at least to be worth it."""

_SLICE = 65_536
"""Vectors that are read, added or coded at once, and that a quantiser learns from."""

_LISTS = 16_384
"""Lists of an inverted file at most: more would take hours to find on a CPU."""


class Recipe(msgspec.Struct, frozen=True):
    """What an index is made of: a FAISS factory string ("" is the vectors themselves).

    `rescore` says what the best `candidates` times k are scored again with; `probes` how many
    lists or nodes a search visits, 0 leaving FAISS's own.
    """

    factory: str
    rescore: Literal["none", "int8", "exact"] = "none"
    candidates: int = 1
    probes: int = 0


class Quality(NamedTuple):
    """Recall@10 against exact search, and on how many queries."""

    recall: float
    queries: int


def recipe(settings: IndexConfig, dimension: int, count: int) -> Recipe:
    """Return what an index of `count` vectors is made of.

    Raises ConfigError for a kind that is none, or that such vectors or so few cannot have.
    """
    kind = settings.kind
    if kind == "exact":
        return Recipe("")
    if kind in ("sq8", "pq", "ivf-pq", "hnsw") and count < LEAST:
        raise ConfigError(
            f"retriever.index.kind: got {kind} for {count} passages, expected exact below {LEAST:,}"
        )
    if kind == "sq8":
        return Recipe("SQ8")
    if kind == "hnsw":
        return Recipe("HNSW32,Flat", probes=settings.probes or 128)
    rescore: Literal["none", "int8", "exact"]
    if kind in ("pq", "ivf-pq"):
        if dimension % 4 and dimension % 6:
            raise ConfigError(
                f"retriever.index.kind: got {kind} for vectors of {dimension} numbers, expected a "
                "multiple of 4 or 6; use sq8 or exact"
            )
        rescore = "int8" if settings.rescore == "auto" else settings.rescore
        # Six numbers a code with 40 candidates find what four with 20 do, in two thirds of the
        # memory and of the time, most of which goes into reading codes.
        product = f"PQ{dimension // (6 if dimension % 6 == 0 else 4)}x4fs"
        if kind == "pq":
            return Recipe(product, rescore, settings.candidates)
        lists = _lists(count)
        coarse = f"IVF{lists}_HNSW32" if lists >= 4096 else f"IVF{lists}"
        probes = settings.probes or max(1, lists // 8)
        return Recipe(f"{coarse},{product}", rescore, settings.candidates, probes)
    _check_factory(kind, dimension)
    rescore = "none" if settings.rescore == "auto" else settings.rescore
    return Recipe(kind, rescore, settings.candidates, settings.probes)


def build(folder: Path, recipe: Recipe, vectors: Any) -> None:
    """Build codes (and what they are scored again with) from an index of all exact vectors.

    Memory holds the codes and one slice of vectors. Raises ConfigError where FAISS refuses.
    """
    if recipe.factory == "SQ8":
        _code(folder / CODES_FILE, vectors)
    else:
        _build_codes(folder / CODES_FILE, recipe, vectors)
    if recipe.rescore == "int8":
        _code(folder / RESCORE_FILE, vectors)


def assembled(recipe: Recipe, codes: Any, rescore: Any | None) -> Any:
    """Put codes and what they are scored again with together, ready to be searched."""
    _set_probes(codes, recipe.probes)
    if rescore is None:
        return codes
    index = faiss.IndexRefine(codes, rescore)
    index.k_factor = float(recipe.candidates)
    return index


def overlap(found: npt.NDArray[np.int64], exact: npt.NDArray[np.int64]) -> Quality:
    """Return the share of the exact rows [q, k] that were found."""
    hits = [len(set(a) & set(b)) / len(b) for a, b in zip(found, exact, strict=True)]
    return Quality(round(float(np.mean(hits)), 4), len(hits))


def _lists(count: int) -> int:
    """Return a power of two near 4 sqrt(n), with at least 39 vectors to learn each list from."""
    wanted = min(4 * count**0.5, count / 39, _LISTS)
    return int(2 ** int(np.log2(max(16, wanted))))


def _check_factory(factory: str, dimension: int) -> None:
    try:
        faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1].rpartition("Error: ")[2] or "not understood"
        raise ConfigError(
            f"retriever.index.kind: got {factory!r}, expected exact, sq8, pq, ivf-pq, hnsw or a "
            f"FAISS factory string for {dimension} numbers ({said[:100]})"
        ) from None


def _build_codes(path: Path, recipe: Recipe, vectors: Any) -> None:
    count = int(vectors.ntotal)
    index = faiss.index_factory(vectors.d, recipe.factory, faiss.METRIC_INNER_PRODUCT)
    inverted = faiss.try_extract_index_ivf(index)
    learn = _SLICE if inverted is None else max(_SLICE, 40 * int(inverted.nlist))
    graph = getattr(index, "hnsw", None)
    if graph is not None:
        graph.efConstruction = 200
    try:
        index.train(sample_rows(vectors, learn))
        for start in range(0, count, _SLICE):
            index.add(read_rows(vectors, start, min(start + _SLICE, count)))
    except RuntimeError as error:
        raise ConfigError(
            f"retriever.index.kind: FAISS cannot build {recipe.factory!r} from {count} vectors: "
            f"{str(error).strip().splitlines()[-1][:200]}"
        ) from None
    with written_whole(path) as temporary:
        faiss.write_index(index, str(temporary))


def _code(path: Path, vectors: Any) -> None:
    """Write all vectors as one byte a number, slice by slice."""
    count = int(vectors.ntotal)
    file = CodesFile(path, empty(vectors.d, "int8", sample_rows(vectors, _SLICE)), count)
    path.unlink(missing_ok=True)
    file.create()
    for start in range(0, count, _SLICE):
        stop = min(start + _SLICE, count)
        rows = file.rows(start, stop, "r+")
        rows[:] = file.encode(read_rows(vectors, start, stop))
        rows.flush()


def _set_probes(index: Any, probes: int) -> None:
    if not probes:
        return
    inner = faiss.downcast_index(index)
    graph = getattr(inner, "hnsw", None)
    if graph is not None:
        graph.efSearch = probes
    inverted = faiss.try_extract_index_ivf(inner)
    if inverted is not None:
        inverted.nprobe = min(probes, int(inverted.nlist))
        coarse = getattr(faiss.downcast_index(inverted.quantizer), "hnsw", None)
        if coarse is not None:
            coarse.efSearch = max(64, inverted.nprobe)
