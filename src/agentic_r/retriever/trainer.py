"""Contrastive training of the encoder, which survives a kill without changing its result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from agentic_r.config import RetrieverTrainConfig
from agentic_r.data.corpus import Corpus
from agentic_r.errors import AgenticRError
from agentic_r.io import fingerprint
from agentic_r.retriever.batches import Batch, Batches
from agentic_r.retriever.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from agentic_r.retriever.encoder import Encoder, plan
from agentic_r.retriever.loss import info_nce
from agentic_r.retriever.precision import autocast, resolve
from agentic_r.types import Example

CHECKPOINT_SECONDS = 20.0
"""At most about this much training is repeated after a kill."""

_WEIGHT_DECAY = 0.01
_CLIP = 1.0
_GROUP_TOKENS = 1024


@dataclass(frozen=True)
class TrainResult:
    """The trained encoder and how it got there.

    `curve` has one row per step: step (from 1), epoch (from 0), loss, learning_rate and seconds
    of training so far. `resumed_at` is the step of the checkpoint that training went on from.
    """

    encoder: Encoder
    curve: list[dict[str, float]]
    precision: str
    resumed_at: int = 0


@dataclass
class _Training:
    encoder: Encoder
    batches: Batches
    settings: RetrieverTrainConfig
    optimiser: torch.optim.Optimizer
    bf16: bool
    tokens: dict[tuple[str, str], list[int]]
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        return self.settings.epochs * len(self.batches)

    def step(self, epoch: int, batch: Batch) -> None:
        started = time.monotonic()
        number = len(self.curve)
        rate = self.settings.learning_rate * schedule(number, self.steps, self.settings.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.encoder.model.parameters(), _CLIP)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise AgenticRError(
                f"retriever training: the loss is {value} at step {number + 1}, expected a finite "
                "number; lower retriever.train.learning_rate"
            )
        self.seconds += time.monotonic() - started
        self.curve.append(
            {
                "step": number + 1,
                "epoch": epoch,
                "loss": value,
                "learning_rate": rate,
                "seconds": round(self.seconds, 3),
            }
        )

    def _loss(self, batch: Batch) -> torch.Tensor:
        # Each query text and each passage is forwarded once, whoever shares it.
        texts = list(dict.fromkeys(batch.queries))
        with autocast(self.bf16, self.encoder.device):
            queries = self._embed([self.tokens["query", text] for text in texts])
            passages = self._embed([self.tokens["passage", id] for id in batch.passages])
        rows = torch.tensor([texts.index(text) for text in batch.queries], device=queries.device)
        return info_nce(
            queries[rows],
            passages,
            batch.positive.to(queries.device),
            batch.allowed.to(queries.device),
            self.settings.temperature,
        )

    def _embed(self, ids: Sequence[list[int]]) -> torch.Tensor:
        groups = plan([len(x) for x in ids], _GROUP_TOKENS)
        vectors = torch.cat([self.encoder.forward([ids[row] for row in rows]) for rows in groups])
        order = torch.tensor([row for rows in groups for row in rows], device=vectors.device)
        return vectors[torch.argsort(order)]


def train(
    encoder: Encoder,
    corpus: Corpus,
    examples: Sequence[Example],
    settings: RetrieverTrainConfig,
    seed: int,
    folder: Path | None = None,
    *,
    progress: bool = True,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_step: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train a copy of `encoder` on `examples`; the encoder given stays as it is.

    AdamW with weight decay .01 (none on biases and norms), linear warm-up and decay, gradient
    norm clipped at 1, no dropout. With a folder, the state is checkpointed every
    `checkpoint_seconds` and the same call goes on from there, on a CPU to the same weights bit
    for bit; `discard_checkpoint` removes it when the result is saved. `on_step` is called with
    the step's number after each step. `settings.start` is the
    caller's affair. Raises DataError for no examples, an example without positives or an unknown
    passage; MismatchError where the folder holds the checkpoint of another training.
    """
    batches = Batches(examples, settings.batch, seed, negatives=settings.negatives)
    bf16, precision = resolve(settings.precision, encoder.device)
    copied = encoder.copy()
    training = _Training(
        copied, batches, settings, _optimiser(copied.model), bf16, _tokens(copied, corpus, examples)
    )
    key = fingerprint(
        [encoder.fingerprint, corpus.digest, list(examples), settings, seed, precision]
    )
    resumed_at = _resume(training, folder, key)
    saved = time.monotonic()
    with tqdm(
        total=training.steps,
        initial=resumed_at,
        desc="training the retriever",
        unit=" step",
        disable=not progress,
    ) as bar:
        for epoch in range(resumed_at // len(batches), settings.epochs):
            start = max(0, resumed_at - epoch * len(batches))
            for batch in batches.epoch(epoch, start):
                training.step(epoch, batch)
                bar.update()
                bar.set_postfix(loss=f"{training.curve[-1]['loss']:.3f}", refresh=False)
                if folder is not None and time.monotonic() - saved >= checkpoint_seconds:
                    save_checkpoint(folder, _state(training, key))
                    saved = time.monotonic()
                if on_step is not None:
                    on_step(len(training.curve))
    return TrainResult(copied, training.curve, precision, resumed_at)


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate at `step` (from 0) of `steps`: up to 1, then down towards 0.

    No step has a factor of 0.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / (steps - rising)


def _optimiser(model: Any) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": _WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        fused=True,
    )


def _tokens(
    encoder: Encoder, corpus: Corpus, examples: Sequence[Example]
) -> dict[tuple[str, str], list[int]]:
    queries = list(dict.fromkeys(example.query for example in examples))
    ids = list(dict.fromkeys(id for x in examples for id in (*x.positives, *x.negatives)))
    texts = [corpus.get(id).contents for id in ids]
    tokens: dict[tuple[str, str], list[int]] = {}
    for key, row in zip(queries, encoder.tokens(queries, "query"), strict=True):
        tokens["query", key] = row
    for key, row in zip(ids, encoder.tokens(texts, "passage"), strict=True):
        tokens["passage", key] = row
    return tokens


def _resume(training: _Training, folder: Path | None, key: str) -> int:
    checkpoint = None if folder is None else load_checkpoint(folder, key)
    if checkpoint is None:
        return 0
    training.encoder.model.load_state_dict(checkpoint.model)
    training.optimiser.load_state_dict(checkpoint.optimiser)
    training.curve = checkpoint.curve
    training.seconds = checkpoint.curve[-1]["seconds"]
    return len(checkpoint.curve)


def _state(training: _Training, key: str) -> Checkpoint:
    return Checkpoint(
        key,
        training.encoder.model.state_dict(),
        training.optimiser.state_dict(),
        training.curve,
    )
