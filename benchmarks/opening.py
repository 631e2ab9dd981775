"""Opening a corpus of a million passages and its index: seconds, and memory before the first query.

    python benchmarks/opening.py [FOLDER] [--count 1000000] [--kind pq] [--runs 3]

Corpus and vectors are invented: opening reads no text and no vector. Each run is a process of its
own that loads the encoder first; what is printed is what corpus and index add to it: seconds on the
clock, and resident memory, mapped files included. Beside it stands the plain way, which reads the
lines into a list and the flat index into memory, as Search-R1's server does. FOLDER keeps what is
opened (2.5 GB) for the next run; making it takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ENCODER = "all-MiniLM-L6-v2"


def resident() -> int:
    """Return the resident memory of this process in kB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def make(folder: Path, count: int, kind: str) -> None:
    """Write a corpus and an index of random unit vectors, bound together by a manifest."""
    from agentic_r.data.corpus import Corpus
    from agentic_r.retriever import blocks, kinds
    from agentic_r.retriever.codes import CodesFile, empty, open_mapped
    from agentic_r.retriever.encoder import Encoder
    from agentic_r.retriever.index import IndexManifest, Side, _names, write_manifest
    from agentic_r.settings.retriever import IndexConfig

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w") as file:
        for row in range(count):
            text = f"passage {row} of an invented corpus " + "of so many words " * 20
            file.write(f'{{"id": "{row}", "contents": "\\"Title {row}\\"\\n{text}"}}\n')
    began = time.perf_counter()
    corpus = Corpus.load(folder / "corpus.jsonl")
    print(f"the first opening makes the table: {time.perf_counter() - began:.1f} s", flush=True)
    encoder = Encoder.load(ENCODER)
    vectors = CodesFile(folder / kinds.VECTORS_FILE, empty(encoder.dimension, "fp32"), count)
    vectors.create()
    draw = np.random.default_rng(0)
    print("writing vectors and their codes", flush=True)
    for start in range(0, count, 65_536):
        stop = min(start + 65_536, count)
        part = draw.standard_normal((stop - start, encoder.dimension), dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        vectors.rows(start, stop, "r+")[:] = vectors.encode(part)
    recipe = kinds.recipe(IndexConfig(kind=kind), encoder.dimension, count)
    if recipe.factory:
        kinds.build(folder, recipe, open_mapped(vectors.path))
    files = {name: blocks.measure(folder / name) for name in _names(recipe)}
    side = Side(encoder.fingerprint, ENCODER, "mean", "")
    numbers = corpus.digest, count, encoder.dimension, "invented", None, 0
    write_manifest(folder, IndexManifest(kind, recipe, side, *numbers, files))


def open_ours(folder: Path) -> None:
    """Open, and print seconds and MB."""
    from agentic_r.data.corpus import Corpus
    from agentic_r.retriever.dense import DenseRetriever
    from agentic_r.retriever.encoder import Encoder

    encoder = Encoder.load(ENCODER)
    encoder.encode(["a query"], "query")
    _ = encoder.fingerprint  # of the encoder, whatever is opened with it
    before, began = resident(), time.perf_counter()
    retriever = DenseRetriever.open(encoder, Corpus.load(folder / "corpus.jsonl"), folder)
    took, held = time.perf_counter() - began, resident() - before
    print(took, held / 1024)
    retriever.search(["passage 17"], 3)


def open_plainly(folder: Path) -> None:
    """Open as a server does that holds everything, and print seconds and MB."""
    import faiss

    before, began = resident(), time.perf_counter()
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").open()]
    index = faiss.read_index(str(folder / "passages.faiss"))
    took, held = time.perf_counter() - began, resident() - before
    assert index.ntotal == len(rows)
    print(took, held / 1024)


def main() -> None:
    """Make what is opened, open it several times and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/opening"))
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--kind", default="pq")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        (open_ours if given.one[0] == "ours" else open_plainly)(Path(given.one[1]))
        return
    folder = given.folder / f"{given.kind}-{given.count}"
    if not (folder / "index.json").exists():  # it is written last
        make(folder, given.count, given.kind)
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    for turn in range(given.runs):
        for name, held in found.items():
            command = [sys.executable, __file__, "--one", name, str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise SystemExit(f"opening {folder} ({name}) failed")
            seconds, megabytes = map(float, done.stdout.split())
            held.append((seconds, megabytes))
            print(f"run {turn + 1}, {name}: {seconds:.2f} s, {megabytes:.0f} MB", flush=True)
    for name, held in found.items():
        seconds, megabytes = (statistics.median(column) for column in zip(*held, strict=True))
        kind = given.kind if name == "ours" else "flat, read whole"
        print(f"{given.count:,} passages, {kind}: {seconds:.2f} s, {megabytes:.0f} MB resident")


if __name__ == "__main__":
    main()
