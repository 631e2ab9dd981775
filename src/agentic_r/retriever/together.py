"""The first process of a `torchrun` does the work of the program, the others only train.

Rollouts, labels, files and locks are the first process's affair. The others wait here for a
training, take part in it, and wait for the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentic_r.config import RetrieverTrainConfig
from agentic_r.data.corpus import Corpus
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.processes import join
from agentic_r.retriever.trainer import TrainResult, train
from agentic_r.types import Example


def train_together(
    encoder: Encoder,
    corpus: Corpus,
    examples: Sequence[Example],
    settings: RetrieverTrainConfig,
    seed: int,
    folder: Path | None = None,
    *,
    dev: Sequence[Example] = (),
    passage_encoder: Encoder | None = None,
    **own: Any,
) -> TrainResult:
    """Train as `train` does, with the waiting processes where there are any.

    `own` is what concerns the first process alone: progress, checkpoints, `on_step`.
    """
    shared = (encoder, corpus, list(examples), settings, seed)
    named = {"dev": list(dev), "passage_encoder": passage_encoder}
    join().tell((shared, named))
    return train(*shared, folder, **named, **own)


def work() -> int:
    """Take part in every training of the first process until it dismisses this one."""
    while True:
        job = join().tell(None)
        if job is None:
            return 0
        shared, named = job
        device = "cuda" if shared[0].device.type == "cuda" else "cpu"
        for encoder in (shared[0], named["passage_encoder"]):
            if encoder is not None:
                encoder.model.to(device)
        train(*shared, **named, progress=False)


def dismiss() -> None:
    """End the waiting processes: the first one has no more training for them."""
    join().tell(None)
