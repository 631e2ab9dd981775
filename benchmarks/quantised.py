"""One query in a million vectors of 384 numbers: FAISS flat beside kind `pq`, one thread.

    python benchmarks/quantised.py [FOLDER] [--texts 50000] [--count 1000000] [--turns 7]

Recall is measured on real texts alone (blocks of 24 words of installed documentation, encoded by
MiniLM): the share of the first ten of exact search that `pq` finds too, for runs of eight words.
Time is measured on these and jittered copies of them, since no machine has a million passages of
documentation. The two kinds take turns, eleven queries at a time, of which the first does not
count: it finds the other kind's vectors in the processor's caches, as no query of a server does.
Before, `pq` answers other queries, which bring the pages of its mapped files into the process; the
flat vectors are in its memory already.
FOLDER keeps texts and vectors for the next run; encoding them, most of the ten minutes, goes on
after a kill.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from texts import corpus_file

from agentic_r.data.corpus import Corpus
from agentic_r.retriever import kinds
from agentic_r.retriever.codes import open_mapped
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.index import Index
from agentic_r.retriever.known import known_items
from agentic_r.settings.retriever import IndexConfig

WORDS = 24
"""Words of a passage: a sentence or two."""

TURN = 10
"""Queries of a turn that count."""

JITTER = 0.3
"""Length of the noise that makes a copy of a unit vector another one: cosine about 0.96."""


def vectors(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors of real passages and of queries cut out of them."""
    corpus = Corpus.load(corpus_file(folder / f"texts-{count}.jsonl", count, WORDS))
    encoder = Encoder.load("all-MiniLM-L6-v2")
    index = folder / f"index-{count}"
    if not (index / "index.json").exists():
        Index.build(encoder, corpus, index, progress="encoding real texts")
    passages = open_mapped(index / "passages.faiss").reconstruct_n(0, count)
    return passages, encoder.encode(known_items(corpus, 512), "query")


def jittered(real: np.ndarray, count: int) -> Any:
    """Return a flat index of the real vectors and copies of them with noise, `count` in all."""
    index = faiss.IndexFlatIP(real.shape[1])
    index.add(real)
    draw = np.random.default_rng(0)
    while index.ntotal < count:
        part = real[: count - index.ntotal]
        noise = draw.standard_normal(part.shape, dtype=np.float32)
        part = part + noise * (JITTER / part.shape[1] ** 0.5)
        index.add(part / np.linalg.norm(part, axis=1, keepdims=True))
    return index


def quantised(exact: Any, folder: Path, candidates: int) -> tuple[Any, tuple[Any, ...], float]:
    """Build kind pq as the program does; returns it, its parts and the seconds of building."""
    made = kinds.recipe(IndexConfig(kind="pq", candidates=candidates), exact.d, exact.ntotal)
    began = time.process_time()
    kinds.build(folder, made, exact)
    took = time.process_time() - began
    parts = open_mapped(folder / kinds.CODES_FILE), open_mapped(folder / kinds.RESCORE_FILE)
    return kinds.assembled(made, *parts), parts, took


def recall(real: np.ndarray, queries: np.ndarray, candidates: int) -> float:
    """Return recall@10 on the real vectors."""
    exact = faiss.IndexFlatIP(real.shape[1])
    exact.add(real)
    with tempfile.TemporaryDirectory() as folder:
        index, _parts, _ = quantised(exact, Path(folder), candidates)
        return kinds.overlap(index.search(queries, 10)[1], exact.search(queries, 10)[1]).recall


def timed(index: Any, queries: np.ndarray, turn: int) -> list[float]:
    """Search one query after the other; returns the CPU-seconds of each but the first."""
    seconds = []
    for at in range(turn * (TURN + 1), (turn + 1) * (TURN + 1)):
        began = time.process_time()
        index.search(queries[at : at + 1], 10)
        seconds.append(time.process_time() - began)
    return seconds[1:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/quantised"))
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--candidates", type=int, default=IndexConfig().candidates)
    given = parser.parse_args()
    faiss.omp_set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    real, queries = vectors(given.folder, given.texts)
    found = recall(real, queries, given.candidates)
    print(f"recall@10 {found:.4f} on {len(real):,} real texts, {len(queries)} queries", flush=True)
    exact = jittered(real, given.count)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        index, _parts, built = quantised(exact, Path(folder), given.candidates)
        took: dict[str, list[float]] = {"flat": [], "pq": []}
        index.search(queries[given.turns * (TURN + 1) :], 10)
        for turn in range(given.turns):
            for name, searched in (("flat", exact), ("pq", index)):
                took[name].append(statistics.median(timed(searched, queries, turn)))
    flat, pq = (statistics.median(took[name]) * 1e3 for name in ("flat", "pq"))
    ratios = [a / b for a, b in zip(took["flat"], took["pq"], strict=True)]
    print(
        f"{exact.ntotal:,} vectors (real and jittered), CPU ms a query, one thread, built in "
        f"{built:.0f} s; {given.turns} turns of {TURN} queries"
    )
    print(f"flat {flat:.2f}   pq {pq:.3f}   {statistics.median(ratios):.1f} x as fast")


if __name__ == "__main__":
    main()
