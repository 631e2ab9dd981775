"""A training of the retriever as a job for every process of a `torchrun`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from agentic_r.config import RetrieverTrainConfig
from agentic_r.data.corpus import Corpus
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.trainer import TrainResult, train
from agentic_r.training.jobs import hand_out
from agentic_r.training.processes import join
from agentic_r.types import Example


class Job(NamedTuple):
    """What every process of a training needs to know."""

    encoder: Encoder
    corpus: Corpus
    examples: list[Example]
    settings: RetrieverTrainConfig
    seed: int
    dev: list[Example]
    passage_encoder: Encoder | None

    def take_part(self) -> None:
        """Train on this process's own device; where there is no GPU, it is the same as before."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        frozen = None if self.passage_encoder is None else _on(device, self.passage_encoder)
        _trained(self._replace(encoder=_on(device, self.encoder), passage_encoder=frozen), None)


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
    name: str = "retriever",
    on_step: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train as `train` does, with the waiting processes where there are any."""
    job = Job(encoder, corpus, list(examples), settings, seed, list(dev), passage_encoder)
    if join().size > 1:
        frozen = None if passage_encoder is None else _on("cpu", passage_encoder)
        hand_out(job._replace(encoder=_on("cpu", encoder), passage_encoder=frozen))
    return _trained(job, folder, name=name, on_step=on_step)


def _trained(
    job: Job,
    folder: Path | None,
    *,
    name: str = "retriever",
    on_step: Callable[[int], None] | None = None,
) -> TrainResult:
    return train(
        job.encoder,
        job.corpus,
        job.examples,
        job.settings,
        job.seed,
        folder,
        dev=job.dev,
        passage_encoder=job.passage_encoder,
        name=name,
        on_step=on_step,
    )


def _on(device: str, encoder: Encoder) -> Encoder:
    copied = encoder.copy()
    copied.model = copied.model.to(device)
    return copied
