"""Contrastive training of the encoder, which survives a kill without changing its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from agentic_r.config import RetrieverTrainConfig
from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, MismatchError
from agentic_r.io import fingerprint
from agentic_r.retriever.adapting import finish
from agentic_r.retriever.batches import Batches, one_positive_each, same_passages_once
from agentic_r.retriever.checkpoint import load_checkpoint, save_checkpoint
from agentic_r.retriever.development import Dev, make_dev
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.objective import check_objective
from agentic_r.retriever.precision import resolve
from agentic_r.retriever.training import Training
from agentic_r.training.processes import join
from agentic_r.training.trackers import open_tracker
from agentic_r.types import Example

CHECKPOINT_SECONDS = 20.0
"""At most about this much training is repeated after a kill."""


@dataclass(frozen=True)
class TrainResult:
    """The trained encoder and how it got there.

    `curve` has one row per step: step (from 1), epoch (from 0), loss, accuracy (share of queries
    with a positive on top in the batch), passages encoded, learning_rate, seconds of training so
    far. `dev` has one row per measurement: step (0 is the untouched encoder), hit, mrr. `step` is
    the step whose weights were kept, `resumed_at` that of the checkpoint training went on from.
    """

    encoder: Encoder
    curve: list[dict[str, float]]
    precision: str
    resumed_at: int = 0
    dev: list[dict[str, float]] = field(default_factory=list)
    step: int = 0


def train(
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
    progress: bool = True,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_step: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train a copy of `encoder` on `examples`; the encoder given stays as it is.

    AdamW with weight decay .01 (none on biases and norms), linear warm-up and decay, gradient
    norm clipped at 1, no dropout, fp32 weights. With a folder, the state is checkpointed every
    `checkpoint_seconds` and the same call goes on from there, on a CPU to the same weights bit
    for bit; `discard_checkpoint` removes it when the result is saved. `on_step` is called with
    the step's number after each step. `dev` are examples to measure on. For the query side alone,
    `passage_encoder` is what encodes the passages, by default `encoder`. Called in every process
    of a `torchrun`, all train one encoder together. `settings.start` and `settings.hold_out` are
    the caller's affair. Raises DataError for no examples, an example without positives or an
    unknown passage; ConfigError for settings that do not go together; MismatchError where the
    folder holds the checkpoint of another training, or for another passage encoder.
    """
    check_objective(settings, examples)
    processes = join()
    batches = _batches(corpus, examples, settings, seed)
    watched = make_dev(corpus, dev, examples, settings.dev_passages, seed)
    watched = watched if settings.evaluations else None
    _check_dev(settings, watched)
    _check_passages(encoder, passage_encoder, settings)
    bf16, precision = resolve(settings.precision, encoder.device)
    training = Training(
        encoder.copy(), passage_encoder or encoder, corpus, batches, settings, seed,
        bf16=bf16, dev=watched, processes=processes,
    )  # fmt: skip
    key = _key(training, encoder, list(examples), list(dev), seed, precision)
    resumed_at = _resume(training, folder, key)
    tracked = settings.tracker if processes.first else "none"
    tracker = open_tracker(tracked, name, folder, msgspec.to_builtins(settings))
    saved = time.monotonic()
    with _bar(training, progress) as bar:
        for number in training.run():
            bar.set_postfix_str(training.said, refresh=False)  # first: it is drawn with the step
            bar.update()
            tracker.log(number, training.numbers)
            due = time.monotonic() - saved >= checkpoint_seconds
            if folder is not None and processes.first and due:
                save_checkpoint(folder, training.state(key))
                saved = time.monotonic()
            if on_step is not None:
                on_step(number)
    tracker.close()
    step = training.keep_best()
    trained = _finished(training.encoder, encoder, settings)
    return TrainResult(trained, training.curve, precision, resumed_at, training.scores, step)


def _key(training: Training, encoder: Encoder, *data: Any) -> str:
    """Return what a checkpoint has to be of."""
    settings = msgspec.structs.replace(training.settings, tracker="none")
    corpus = training.corpus.digest
    return fingerprint([encoder.fingerprint, encoder.passage_side, corpus, settings, *data])


def _bar(training: Training, progress: bool) -> Any:
    return tqdm(
        total=training.steps,
        initial=len(training.curve),
        desc="training the retriever",
        unit=" step",
        disable=not (progress and training.processes.first),
    )


def _check_dev(settings: RetrieverTrainConfig, dev: Dev | None) -> None:
    if dev is None and (settings.keep == "best" or settings.patience):
        raise ConfigError(
            "retriever.train.keep and patience need dev measurements: set "
            "retriever.train.evaluations and hold_out, or give dev questions that name the "
            "passages of their hops and that the agent searches for"
        )


def _batches(
    corpus: Corpus, examples: Sequence[Example], settings: RetrieverTrainConfig, seed: int
) -> Batches:
    if settings.recipe == "upstream":
        return Batches(one_positive_each(examples), settings.batch, seed)
    once = same_passages_once(corpus, examples)
    return Batches(once, settings.batch, seed, negatives=settings.negatives)


def _check_passages(
    encoder: Encoder, passage_encoder: Encoder | None, settings: RetrieverTrainConfig
) -> None:
    if settings.side == "both":
        return
    given = (passage_encoder or encoder).fingerprint
    if given != encoder.passage_side:
        raise MismatchError(
            f"got {given} to encode the passages, expected encoder {encoder.passage_side}, which "
            "the query side was trained for; give it as passage_encoder"
        )


def _resume(training: Training, folder: Path | None, key: str) -> int:
    first = training.processes.first
    checkpoint = None if folder is None or not first else load_checkpoint(folder, key)
    checkpoint = training.processes.tell(checkpoint)
    if checkpoint is None:
        return 0
    training.load(checkpoint)
    return len(checkpoint.curve)


def _finished(trained: Encoder, start: Encoder, settings: RetrieverTrainConfig) -> Encoder:
    passages = start.passage_side if settings.side == "query" else ""
    changed = msgspec.structs.replace(
        start.settings, trained_for=passages, max_length=start.max_length
    )
    return Encoder(
        finish(trained.model, settings),
        trained.tokenizer,
        changed,
        batch_tokens=start.batch_tokens,
    )
