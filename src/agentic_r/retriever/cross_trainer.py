"""Distilling the labels into a re-ranker: one list of passages an example, killed or not."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, softmax
from tqdm import tqdm

from agentic_r.config import RerankConfig
from agentic_r.data.corpus import Corpus
from agentic_r.errors import AgenticRError, DataError
from agentic_r.io import fingerprint
from agentic_r.retriever.batches import graded, same_passages_once
from agentic_r.retriever.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from agentic_r.retriever.cross import CrossEncoder
from agentic_r.retriever.precision import autocast, resolve
from agentic_r.retriever.training import CLIP, optimiser, schedule
from agentic_r.types import Example

CHECKPOINT_SECONDS = 20.0


@dataclass(frozen=True)
class RerankResult:
    """The trained re-ranker; `curve` has one row per step, as that of the retriever."""

    reranker: CrossEncoder
    curve: list[dict[str, float]]
    precision: str
    resumed_at: int = 0


def listwise(scores: torch.Tensor, utilities: torch.Tensor, sharpness: float) -> torch.Tensor:
    """Cross-entropy of softmax(scores) against softmax(utilities / sharpness) of one list [n].

    ListNet (Cao et al. 2007) on the passages' utilities.
    """
    return -(softmax(utilities / sharpness, 0) * log_softmax(scores, 0)).sum()


def pointwise(scores: torch.Tensor, utilities: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy of sigmoid(score) against the utility of each passage [n], 0-1."""
    return binary_cross_entropy_with_logits(scores, utilities)


def utilities(example: Example, ids: Sequence[str]) -> list[float]:
    """Return the utility of passages of an example: its targets, else 1 for a positive and 0."""
    grades = graded(example)
    if grades:
        return [grades[id] for id in ids]
    return [float(id in example.positives) for id in ids]


def train_reranker(
    reranker: CrossEncoder,
    corpus: Corpus,
    examples: Sequence[Example],
    settings: RerankConfig,
    seed: int,
    folder: Path | None = None,
    *,
    progress: bool = True,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_step: Callable[[int], None] | None = None,
) -> RerankResult:
    """Train a copy of `reranker` on the lists of `examples`; the one given stays as it is.

    Optimiser, schedule, checkpoints and resuming are those of the retriever's training. Raises
    DataError where no example has a negative, and for targets outside 0-1, an example without
    positives or an unknown passage; MismatchError where the folder holds the checkpoint of
    another training.
    """
    training = _Training(reranker, corpus, _lists(corpus, examples), settings, seed)
    start = [float(p.detach().double().sum()) for p in reranker.model.parameters()]
    key = fingerprint([start, corpus.digest, list(examples), settings, seed, training.precision])
    checkpoint = None if folder is None else load_checkpoint(folder, key)
    if checkpoint is not None:
        training.load(checkpoint)
    resumed_at, saved = len(training.curve), time.monotonic()
    with tqdm(
        total=training.steps,
        initial=resumed_at,
        desc="training the re-ranker",
        unit=" step",
        disable=not progress,
    ) as bar:
        for number in range(resumed_at, training.steps):
            training.step(number)
            bar.set_postfix_str(training.said, refresh=False)  # first: it is drawn with the step
            bar.update()
            if folder is not None and time.monotonic() - saved >= checkpoint_seconds:
                save_checkpoint(folder, training.state(key))
                saved = time.monotonic()
            if on_step is not None:
                on_step(number + 1)
    training.reranker.model.eval()
    return RerankResult(training.reranker, training.curve, training.precision, resumed_at)


class _Training:
    """A re-ranker that learns in place."""

    def __init__(
        self,
        reranker: CrossEncoder,
        corpus: Corpus,
        lists: Sequence[Example],
        settings: RerankConfig,
        seed: int,
    ) -> None:
        model = copy.deepcopy(reranker.model)
        self.reranker = CrossEncoder(model, reranker.tokenizer, reranker.base, reranker.max_length)
        self.corpus, self.lists, self.settings, self.seed = corpus, lists, settings, seed
        self.bf16, self.precision = resolve(settings.precision, reranker.device)
        self.optimiser = optimiser(model.parameters())
        self.curve: list[dict[str, float]] = []
        self.seconds = 0.0

    @property
    def steps(self) -> int:
        return self.settings.epochs * math.ceil(len(self.lists) / self.settings.batch)

    @property
    def said(self) -> str:
        last = self.curve[-1]
        return f"loss {last['loss']:.3f}, right on top {last['accuracy']:.2f}"

    def step(self, number: int) -> None:
        began = time.monotonic()
        rate = self.settings.learning_rate * schedule(number, self.steps, self.settings.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        rows = _drawn(self.lists, self.settings, self.seed, number)
        with autocast(self.bf16, self.reranker.device):
            loss, right = _loss(self.reranker, self.corpus, rows, self.settings)
        value = _finite(float(loss.detach()), number)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.reranker.model.parameters(), CLIP)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.seconds += time.monotonic() - began
        self.curve.append(
            {
                "step": number + 1,
                "epoch": number * self.settings.epochs // self.steps,
                "loss": value,
                "accuracy": right,
                "passages": sum(len(ids) for _, ids in rows),
                "learning_rate": rate,
                "seconds": round(self.seconds, 3),
            }
        )

    def state(self, key: str) -> Checkpoint:
        weights = self.reranker.model.state_dict()
        return Checkpoint(key, weights, self.optimiser.state_dict(), self.curve)

    def load(self, checkpoint: Checkpoint) -> None:
        self.reranker.model.load_state_dict(checkpoint.model)
        self.optimiser.load_state_dict(checkpoint.optimiser)
        self.curve = checkpoint.curve
        self.seconds = checkpoint.curve[-1]["seconds"]


def _loss(
    reranker: CrossEncoder,
    corpus: Corpus,
    rows: Sequence[tuple[Example, tuple[str, ...]]],
    settings: RerankConfig,
) -> tuple[torch.Tensor, float]:
    """Mean loss over the lists, and the share of lists with a positive on top."""
    pairs = [(x.query, corpus.get(id).contents) for x, ids in rows for id in ids]
    scores = reranker.logits(reranker.tokens(pairs))
    losses, right, at = [], 0, 0
    for example, ids in rows:
        own, at = scores[at : at + len(ids)], at + len(ids)
        wanted = torch.tensor(utilities(example, ids), device=own.device)
        if settings.loss == "pointwise":
            losses.append(pointwise(own, wanted))
        else:
            losses.append(listwise(own, wanted, settings.sharpness))
        right += ids[int(own.argmax())] in example.positives
    return torch.stack(losses).mean(), right / len(rows)


def _drawn(
    lists: Sequence[Example], settings: RerankConfig, seed: int, number: int
) -> list[tuple[Example, tuple[str, ...]]]:
    """Return the lists of a step: all positives and some negatives of each of its examples."""
    each = math.ceil(len(lists) / settings.batch)
    epoch, at = divmod(number, each)
    order = list(range(len(lists)))
    random.Random(f"{seed}:rerank:{epoch}").shuffle(order)
    found = []
    for row in order[at * settings.batch : (at + 1) * settings.batch]:
        example = lists[row]
        draw = random.Random(f"{seed}:rerank:{epoch}:negatives:{row}")
        count = min(settings.negatives, len(example.negatives))
        found.append((example, (*example.positives, *draw.sample(example.negatives, count))))
    return found


def _lists(corpus: Corpus, examples: Sequence[Example]) -> list[Example]:
    """Return the examples that make a list of several passages, copies named once."""
    found = [x for x in same_passages_once(corpus, examples) if x.negatives]
    if not found:
        raise DataError(
            f"got {len(examples)} training examples, expected at least one with a negative: a "
            "list of positives alone teaches a re-ranker nothing"
        )
    for example in found:
        if any(not 0 <= value <= 1 for value in example.targets or ()):
            raise DataError(
                f"question {example.question_id!r}: got targets {example.targets}, expected 0 to 1"
            )
    return found


def _finite(value: float, number: int) -> float:
    if not math.isfinite(value):
        raise AgenticRError(
            f"re-ranker training: the loss is {value} at step {number + 1}, expected a finite "
            "number; lower retriever.rerank.learning_rate"
        )
    return value
