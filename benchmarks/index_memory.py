"""Peak anonymous memory of an index build, as the corpus grows.

    python benchmarks/index_memory.py [FOLDER] [--counts 50000 500000] [--layers 0] [--kind exact]

A process of its own opens a corpus file of short passages and builds an exact index with MiniLM of
so many layers. Anonymous memory is what a process cannot give back, the mapped files not counted;
it is looked at every 20 ms. Printed is the peak above what was held before the build, and how much
more the largest corpus took than the smallest. Holding all vectors, as FlashRAG's builder does,
would take 1.5 kB a passage: 675 MB more.

Without layers an encoder looks words up and averages them, in about two minutes for all: what is
measured is what a build holds of corpus, tokens and vectors, and these are as many and as long as
with six. What a batch takes inside the model comes on top of both sizes. With `--kind bm25` the
lexical index is made instead. FOLDER keeps the corpora.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentic_r.data.corpus import Corpus

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def anonymous() -> int:
    """Return the anonymous memory of this process in kB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])


def corpus_file(folder: Path, count: int) -> Path:
    """Write short passages, unless the file is there."""
    path = folder / f"short-{count}.jsonl"
    if not path.exists():
        draw = random.Random(0)
        written = path.with_suffix(".part")
        with written.open("w") as file:
            for row in range(count):
                words = " ".join(draw.choice(SYLLABLES) for _ in range(6))
                file.write(f'{{"id": "{row}", "text": "{words} and so on and so forth"}}\n')
        written.rename(path)
    return path


def prepared(kind: str, layers: int, folder: Path) -> Callable[[Corpus], object]:
    """Load what a build needs beside the corpus; returns the build."""
    if kind == "bm25":
        from agentic_r.retriever.bm25 import BM25Retriever

        return BM25Retriever
    from agentic_r.retriever.encoder import Encoder
    from agentic_r.retriever.engine import open_engine
    from agentic_r.retriever.index import Index

    encoder = Encoder.load("all-MiniLM-L6-v2", 64)
    encoder.model.encoder.layer = encoder.model.encoder.layer[:layers]
    open_engine(encoder, "auto", 1_000_000).forward([[1] * 16] * 256)
    return lambda corpus: Index.build(encoder, corpus, folder, progress=f"{len(corpus):,} passages")


def build(path: Path, kind: str, layers: int, folder: Path) -> None:
    """Build, watching memory; prints the peak in MB above the start."""
    from agentic_r.data.corpus import Corpus

    make = prepared(kind, layers, folder)
    started = peak = anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.process_time()
    corpus = Corpus.load(path)
    make(corpus)
    took = time.process_time() - began
    done.set()
    watcher.join()
    print(f"{len(corpus)} {(peak - started) / 1024:.1f} {took:.0f}")


def measured(corpus: Path, kind: str, layers: int, folder: Path) -> tuple[int, float]:
    """Build in a process of its own; returns passages and peak, which are printed."""
    shutil.rmtree(folder, ignore_errors=True)
    for made in corpus.parent.glob(f"{corpus.name}.*"):  # the table is part of the build
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    command = [sys.executable, __file__, "--kind", kind, "--layers", str(layers)]
    done = subprocess.run(
        [*command, "--one", str(corpus), str(folder)], stdout=subprocess.PIPE, text=True
    )
    shutil.rmtree(folder, ignore_errors=True)
    if done.returncode:
        raise SystemExit(f"building from {corpus} failed")
    rows, peak, took = done.stdout.split()
    line = f"{int(rows):>9,} passages: peak {float(peak):6.1f} MB above the start, {took} CPU-s"
    print(line, flush=True)
    return int(rows), float(peak)


def main() -> None:
    """Build each size in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/index-memory"))
    parser.add_argument("--counts", type=int, nargs="+", default=[50_000, 500_000])
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--kind", choices=("exact", "bm25"), default="exact")
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        build(Path(given.one[0]), given.kind, given.layers, Path(given.one[1]))
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    peaks = dict(
        measured(corpus_file(given.folder, count), given.kind, given.layers, given.folder / "index")
        for count in given.counts
    )
    grown = peaks[max(peaks)] - peaks[min(peaks)]
    print(f"{grown:+.1f} MB from {min(peaks):,} to {max(peaks):,} passages")


if __name__ == "__main__":
    main()
