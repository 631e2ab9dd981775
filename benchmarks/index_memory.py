"""Peak anonymous memory of an index build, as the corpus grows.

    python benchmarks/index_memory.py [--counts 50000 500000] [--layers 1]

A process of its own opens a corpus file of short passages and builds an exact index with MiniLM of
so many layers (one: what is measured is what is held, not how long encoding takes). Anonymous
memory is what a process cannot give back, the mapped files not counted; it is looked at every 20
ms. Printed is the peak above what was held before the build, and how much more the largest corpus
took than the smallest. Holding all vectors, as FlashRAG's builder does, would take 1.5 kB a
passage.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def anonymous() -> int:
    """Return the anonymous memory of this process in kB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])


def write_corpus(path: Path, count: int) -> None:
    """Write short passages."""
    draw = random.Random(0)
    with path.open("w") as file:
        for row in range(count):
            words = " ".join(draw.choice(SYLLABLES) for _ in range(6))
            file.write(f'{{"id": "{row}", "text": "{words} and so on and so forth"}}\n')


def build(path: Path, layers: int, folder: Path) -> None:
    """Build, watching memory; prints the peak in MB above the start."""
    from agentic_r.data.corpus import Corpus
    from agentic_r.retriever.encoder import Encoder
    from agentic_r.retriever.engine import open_engine
    from agentic_r.retriever.index import Index

    encoder = Encoder.load("all-MiniLM-L6-v2", 64)
    encoder.model.encoder.layer = encoder.model.encoder.layer[:layers]
    open_engine(encoder, "auto", 1_000_000).forward([[1] * 16] * 256)
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
    Index.build(encoder, corpus, folder)
    took = time.process_time() - began
    done.set()
    watcher.join()
    print(f"{len(corpus)} {(peak - started) / 1024:.1f} {took:.0f}")


def main() -> None:
    """Build each size in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[50_000, 500_000])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        build(Path(given.one[0]), given.layers, Path(given.one[1]))
        return
    peaks = {}
    for count in given.counts:
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder) / "corpus.jsonl"
            write_corpus(corpus, count)
            command = [sys.executable, __file__, "--layers", str(given.layers)]
            done = subprocess.run(
                [*command, "--one", str(corpus), f"{folder}/index"], capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            rows, peak, took = done.stdout.split()
            peaks[int(rows)] = float(peak)
            print(f"{int(rows):>9,} passages: peak {float(peak):6.1f} MB above the start, {took} s")
    grown = peaks[max(peaks)] - peaks[min(peaks)]
    print(f"{grown:+.1f} MB from {min(peaks):,} to {max(peaks):,} passages")


if __name__ == "__main__":
    main()
