"""Passages encoded per CPU-second, beside a plain sentence-transformers loop in fp32.

    python benchmarks/encoding.py [--rounds 3] [--passages 256] [--precision openvino]

Both encode the same real passages (100 words of installed documentation, cut at 180 tokens) with
MiniLM on one thread: sentence-transformers as its documentation shows, batches of 32; this program
as an index build does, read, tokenised, batched, encoded and written. They take turns, so that a
slow moment of the machine meets both. Printed are medians over rounds, the median of the rounds'
ratios, and the least cosine between the two's vectors.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from texts import real_texts

from agentic_r.data.corpus import Corpus
from agentic_r.retriever.build import Shards
from agentic_r.retriever.codes import open_mapped
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.loading import find_folder
from agentic_r.types import Passage

ENCODER = "all-MiniLM-L6-v2"
LENGTH = 180


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passages", type=int, default=256)
    parser.add_argument("--precision", default="openvino", choices=("openvino", "bf16", "fp32"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    texts = real_texts(given.passages, 100)
    corpus = Corpus([Passage(str(row), text) for row, text in enumerate(texts)])
    plain = SentenceTransformer(str(find_folder(ENCODER)), device="cpu")
    plain.max_seq_length = LENGTH
    encoder = Encoder.load(ENCODER, LENGTH)
    took: dict[str, list[float]] = {"sentence-transformers": [], "agentic-r": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "passages.faiss"
        shards = Shards(path, encoder, corpus, "fp32", given.precision)
        shards.begin()
        for turn in range(given.rounds + 1):
            began = time.process_time()
            theirs = plain.encode(texts, batch_size=32, normalize_embeddings=True)
            between = time.process_time()
            shards.write(0)
            ended = time.process_time()
            if turn:  # the first turn warms both up
                took["sentence-transformers"].append(between - began)
                took["agentic-r"].append(ended - between)
        ours = open_mapped(path).reconstruct_n(0, len(texts))
    cosine = float((ours * np.asarray(theirs)).sum(1).min())
    for name, seconds in took.items():
        print(f"{name:<24} {len(texts) / statistics.median(seconds):7.1f} passages per CPU-second")
    ratios = [a / b for a, b in zip(*took.values(), strict=True)]
    print(f"{statistics.median(ratios):.2f} x ({shards.engine.name}), least cosine {cosine:.5f}")


if __name__ == "__main__":
    main()
