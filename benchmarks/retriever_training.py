"""Passages trained on per CPU-second, beside a plain loop of sentence-transformers.

    python benchmarks/retriever_training.py [--rounds 3] [--length 140] [--repeated 0.36]

All train the same small encoder on the same examples (16 passages a query) with AdamW, on one
thread: ours in the number format that it chooses on this processor, the other in bf16, as its users
set it, and in fp32. The loop of sentence-transformers is what its documentation shows:
MultipleNegativesRankingLoss over a query and 16 passage columns. They take turns of a few steps, so
that a slow moment of the machine meets all. Printed are medians over rounds: passages per
CPU-second, repeats counted, and ours as a multiple. `--repeated` is the share of a batch's passages
that stand in it already: searches of one question share candidates.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Iterator

import torch

from agentic_r.config import RetrieverTrainConfig
from agentic_r.data.corpus import Corpus
from agentic_r.retriever.encoder import Encoder, find_folder
from agentic_r.retriever.precision import autocast, bf16_support, resolve
from agentic_r.retriever.trainer import train
from agentic_r.types import Example, Passage

ENCODER = "all-MiniLM-L6-v2"
PASSAGES = 16
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def text(draw: random.Random, words: int) -> str:
    """Return words of two syllables, each about three tokens."""
    return " ".join(draw.choice(SYLLABLES) + draw.choice(SYLLABLES) for _ in range(words))


def examples(
    batch: int, steps: int, length: int, repeated: float, seed: int
) -> tuple[Corpus, list[Example]]:
    """Make `steps` batches, of whose passages the share `repeated` occurs in the batch already."""
    draw = random.Random(seed)
    passages: list[Passage] = []
    found = []
    for _ in range(steps):
        fresh: list[str] = []
        for _ in range(batch):
            ids: list[str] = []
            while len(ids) < PASSAGES:
                others = [id for id in fresh if id not in ids]
                if ids and others and draw.random() < repeated:
                    ids.append(draw.choice(others))
                    continue
                words = max(8, round(draw.lognormvariate(0, 0.35) * length / 3.1))
                passages.append(Passage(f"p{len(passages)}", text(draw, words)))
                ids.append(passages[-1].id)
            fresh += [id for id in ids if id not in fresh]
            number = len(found)
            found.append(Example("d", str(number), text(draw, 6), (ids[0],), tuple(ids[1:])))
    return Corpus(passages), found


class Ours:
    """This package's trainer."""

    def __init__(self, length: int) -> None:
        self.encoder = Encoder.load(ENCODER, length)

    def seconds(self, corpus: Corpus, rows: list[Example], batch: int) -> float:
        """Return the CPU-seconds of training on all batches but the first, which warms up."""
        marks: list[float] = []
        settings = RetrieverTrainConfig(
            epochs=1, batch=batch, negatives=PASSAGES - 1, temperature=0.01, evaluations=0
        )  # fmt: skip
        train(
            self.encoder, corpus, rows, settings, 0, progress=False,
            on_step=lambda _: marks.append(time.process_time()),
        )  # fmt: skip
        return marks[-1] - marks[0]


class Theirs:
    """A loop around sentence-transformers."""

    def __init__(self, length: int, bf16: bool) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        self.model = SentenceTransformer(str(find_folder(ENCODER)), device="cpu")
        self.model.max_seq_length = length
        self.loss = MultipleNegativesRankingLoss(self.model, scale=100.0)
        self.bf16 = bf16
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=5e-5, fused=True)

    def columns(self, corpus: Corpus, rows: list[Example]) -> Iterator[list[str]]:
        """Yield the query column and the 16 passage columns of a batch."""
        yield [row.query for row in rows]
        for at in range(PASSAGES):
            ids = [(*row.positives, *row.negatives)[at] for row in rows]
            yield [corpus.get(id).contents for id in ids]

    def seconds(self, corpus: Corpus, rows: list[Example], batch: int) -> float:
        """Return the CPU-seconds of training on all batches but the first, which warms up."""
        self.model.train()
        marks = []
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            features = [self.model.preprocess(column) for column in self.columns(corpus, part)]
            with autocast(self.bf16, torch.device("cpu")):
                loss = self.loss(features, torch.zeros(len(part)))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            marks.append(time.process_time())
        return marks[-1] - marks[0]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--steps", type=int, default=3, help="measured steps a turn")
    parser.add_argument("--batch", type=int, default=4, help="queries a step")
    parser.add_argument("--length", type=int, default=140, help="mean tokens of a passage")
    parser.add_argument("--repeated", type=float, default=0.36, help="share of repeats")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    longest = min(256, round(1.3 * options.length))
    systems: dict[str, Ours | Theirs] = {
        "agentic-r": Ours(longest),
        "sentence-transformers, bf16": Theirs(longest, True),
        "sentence-transformers, fp32": Theirs(longest, False),
    }
    if not bf16_support(device):
        del systems["sentence-transformers, bf16"]
    print(f"agentic-r in {resolve('auto', device)[1]}, one thread of {os.cpu_count()}, ", end="")
    print(f"{PASSAGES} passages a query, ", end="")
    print(f"batches of {options.batch}, {options.rounds} turns of {options.steps} steps\n")
    print(f"{'passages per CPU-second':<28} {'distinct':>10} {'repeated':>10}")
    rates: dict[str, list[float]] = {name: [] for name in systems}
    for repeated in (0.0, options.repeated):
        took: dict[str, list[float]] = {name: [] for name in systems}
        for turn in range(options.rounds):
            corpus, rows = examples(
                options.batch, options.steps + 1, options.length, repeated, turn
            )
            for name, system in systems.items():
                seconds = system.seconds(corpus, rows, options.batch)
                took[name].append(options.steps * options.batch * PASSAGES / seconds)
        for name, found in took.items():
            rates[name].append(statistics.median(found))
    for name, (distinct, again) in rates.items():
        print(f"{name:<28} {distinct:10.1f} {again:10.1f}")
    ours = rates.pop("agentic-r")
    for name, theirs in rates.items():
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        print(f"{f'to {name}':<28} {ratios[0]:9.2f}x {ratios[1]:9.2f}x")
    print(f"\nrepeated: {options.repeated:.0%} of a batch's passages stand in it already")


if __name__ == "__main__":
    main()
