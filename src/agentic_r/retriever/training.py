"""One training under way: its steps, its measurements, its state."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from agentic_r.config import RetrieverTrainConfig
from agentic_r.data.corpus import Corpus
from agentic_r.errors import AgenticRError
from agentic_r.retriever.adapting import prepare
from agentic_r.retriever.batches import Batch, Batches
from agentic_r.retriever.checkpoint import Checkpoint
from agentic_r.retriever.development import Dev, DevScore, measure
from agentic_r.retriever.embedding import Embedded, Side, backward
from agentic_r.retriever.encoder import Encoder, Kind
from agentic_r.retriever.loss import accuracy
from agentic_r.retriever.mining import mine
from agentic_r.retriever.objective import objective
from agentic_r.retriever.precision import autocast
from agentic_r.training.processes import Processes

_WEIGHT_DECAY = 0.01
CLIP = 1.0


class Training:
    """An encoder that learns in place. `scores` are its dev measurements, as `curve` its steps."""

    def __init__(
        self,
        encoder: Encoder,
        passage_encoder: Encoder,
        corpus: Corpus,
        batches: Batches,
        settings: RetrieverTrainConfig,
        seed: int,
        *,
        bf16: bool,
        dev: Dev | None,
        processes: Processes,
    ) -> None:
        self.encoder = encoder
        self.corpus = corpus
        self.batches = batches
        self.settings = settings
        self.dev = dev
        self.processes = processes
        self.curve: list[dict[str, float]] = []
        self.scores: list[dict[str, float]] = []
        self.seconds = 0.0
        self._best: dict[str, torch.Tensor] | None = None
        self._mined_for = 0
        self._tokens: dict[tuple[Kind, str], list[int]] = {}
        self._frozen: dict[str, torch.Tensor] | None = {} if settings.side == "query" else None
        # Full-precision weights whatever came in: small updates vanish in half precision.
        encoder.model = prepare(encoder.model.float(), settings, seed)
        context = partial(autocast, bf16, encoder.device)
        passages = encoder if self._frozen is None else passage_encoder
        self._query_side = Side(encoder.forward, context, processes)
        self._passage_side = Side(passages.forward, context, processes)
        self._optimiser = optimiser(self._learning.values())
        self._ids("query", [example.query for example in batches.examples])
        self._ids("passage", [i for x in batches.examples for i in (*x.positives, *x.negatives)])

    @property
    def steps(self) -> int:
        """Steps of the whole training, were it not stopped early."""
        return self.settings.epochs * len(self.batches)

    @property
    def numbers(self) -> dict[str, float]:
        """What the last step is worth showing for, by name."""
        last = self.curve[-1]
        numbers = {name: last[name] for name in ("loss", "accuracy", "learning_rate")}
        numbers["passages_per_second"] = sum(x["passages"] for x in self.curve) / self.seconds
        if self.scores and self.scores[-1]["step"] == last["step"]:
            numbers |= {name: self.scores[-1][name] for name in ("hit", "mrr")}
        return numbers

    @property
    def said(self) -> str:
        """The last step in a few words, for a progress bar."""
        shown = self.numbers
        words = [f"loss {shown['loss']:.3f}", f"in-batch accuracy {shown['accuracy']:.2f}"]
        if self.scores:
            words.append(f"dev hit@{self.settings.dev_k} {self.scores[-1]['hit']:.3f}")
        return ", ".join([*words, f"{shown['passages_per_second']:.0f} passages/s"])

    def run(self) -> Iterator[int]:
        """Go through all steps that are not done, yielding the number of each, from 1."""
        done, each = len(self.curve), len(self.batches)
        if not self.scores:
            self._measure()
        for epoch in range(done // each, self.settings.epochs):
            if self._stopped:
                return
            self._refresh(epoch)
            for batch in self.batches.epoch(epoch, max(0, done - epoch * each)):
                self._step(epoch, batch)
                if self._due(len(self.curve) - epoch * each):
                    self._measure()
                yield len(self.curve)
                if self._stopped:
                    return

    def state(self, key: str) -> Checkpoint:
        """Return all that `load` needs to go on from here."""
        return Checkpoint(
            key,
            {name: weight.detach() for name, weight in self._learning.items()},
            self._optimiser.state_dict(),
            self.curve,
            self.scores,
            [list(ids) for ids in self.batches.mined],
            self._mined_for,
            self._best,
        )

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this training."""
        self._put(checkpoint.model)
        self._optimiser.load_state_dict(checkpoint.optimiser)
        self.curve, self.scores = checkpoint.curve, checkpoint.dev
        self.seconds = checkpoint.curve[-1]["seconds"]
        self._best, self._mined_for = checkpoint.best, checkpoint.mined_for
        if checkpoint.mined:
            self.batches = self.batches.with_mined([tuple(ids) for ids in checkpoint.mined])

    def keep_best(self) -> int:
        """Put the best weights back where they are to be kept; returns the step they are from."""
        if self.settings.keep == "last" or self._best is None:
            return len(self.curve)
        self._put(self._best)
        return int(self.scores[self._best_at]["step"])

    @property
    def _learning(self) -> dict[str, torch.nn.Parameter]:
        return {n: p for n, p in self.encoder.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def _put(self, weights: dict[str, Any]) -> None:
        for name, weight in self._learning.items():
            weight.copy_(weights[name])

    def _step(self, epoch: int, batch: Batch) -> None:
        started = time.monotonic()
        number = len(self.curve)
        rate = self.settings.learning_rate * schedule(number, self.steps, self.settings.warmup)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        value, right = self.backward(batch)
        if not math.isfinite(value):
            raise AgenticRError(
                f"retriever training: the loss is {value} at step {number + 1}, expected a finite "
                "number; lower retriever.train.learning_rate"
            )
        self.processes.sum_gradients(self._learning.values())
        torch.nn.utils.clip_grad_norm_(self._learning.values(), CLIP)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self.seconds += time.monotonic() - started
        self.curve.append(
            {
                "step": number + 1,
                "epoch": epoch,
                "loss": value,
                "accuracy": right,
                "passages": len(batch.passages),
                "learning_rate": rate,
                "seconds": round(self.seconds, 3),
            }
        )

    def backward(self, batch: Batch) -> tuple[float, float]:
        """Leave the gradients of a batch on the weights; returns loss and in-batch accuracy."""
        # Each query text and each passage is encoded once, whoever shares it.
        texts = list(dict.fromkeys(batch.queries))
        cache = self.settings.cache_tokens
        with self._query_side.autocast():  # one context for both: weights are cast once
            queries = self._query_side.embed(self._ids("query", texts), cache)
            passages = self._passages(batch.passages, cache)
        device = queries.vectors.device
        rows = torch.tensor([texts.index(text) for text in batch.queries], device=device)
        found = queries.vectors[rows], _vectors(passages)
        loss = objective(batch, self.settings, device)(*found)
        loss.backward()  # type: ignore[no-untyped-call]
        backward(queries, *([passages] if isinstance(passages, Embedded) else []))
        masks = batch.positive.to(device), batch.allowed.to(device)
        return float(loss.detach()), accuracy(*found, *masks)

    def _passages(self, ids: Sequence[str], cache: int) -> Embedded | torch.Tensor:
        if self._frozen is None:
            return self._passage_side.embed(self._ids("passage", ids), cache)
        return self._frozen_vectors(ids)

    def _frozen_vectors(self, ids: Sequence[str]) -> torch.Tensor:
        """Return the vectors of passages that do not learn, encoding each once."""
        assert self._frozen is not None
        new = [id for id in ids if id not in self._frozen]
        if new:
            rows = self._passage_side.vectors(self._ids("passage", new))
            self._frozen.update(zip(new, rows, strict=True))
        return torch.stack([self._frozen[id] for id in ids])

    def _due(self, step: int) -> bool:
        """Say whether dev is measured after this step (from 1) of an epoch."""
        each, times = len(self.batches), self.settings.evaluations
        return any(step == math.ceil(n * each / times) for n in range(1, times + 1))

    def _measure(self) -> None:
        if self.dev is None:
            return
        found = self.processes.tell(measure(self.dev, self._encode, self.settings.dev_k))
        before = DevScore(**_named(self.scores[self._best_at])) if self.scores else None
        row = {"step": len(self.curve), "hit": found.hit, "mrr": found.mrr}
        self.scores.append(row)
        if self.settings.keep == "best" and (before is None or found > before):
            self._best = {n: p.detach().clone() for n, p in self._learning.items()}

    def _encode(self, queries: Sequence[str], ids: Sequence[str]) -> tuple[Any, Any]:
        found = self._query_side.vectors(self._ids("query", queries))
        if self._frozen is not None:
            return found, self._frozen_vectors(ids)
        return found, self._passage_side.vectors(self._ids("passage", ids))

    @property
    def _best_at(self) -> int:
        """The first of the best measurements."""
        return max(range(len(self.scores)), key=lambda i: (*_named(self.scores[i]).values(), -i))

    @property
    def _stopped(self) -> bool:
        patience = self.settings.patience
        return bool(patience and len(self.scores) - 1 - self._best_at >= patience)

    def _refresh(self, epoch: int) -> None:
        """Look for new negatives before an epoch, where it is time and was not done already."""
        every = self.settings.refresh
        if not every or not epoch or epoch % every or self._mined_for == epoch:
            return
        queries, passages = self._encode(
            [example.query for example in self.batches.examples], [p.id for p in self.corpus]
        )
        margin, count = self.settings.refresh_margin, self.settings.negatives
        mined = mine(self.batches, self.corpus, queries, passages, count=count, margin=margin)
        self.batches = self.batches.with_mined(self.processes.tell(mined))
        self._mined_for = epoch

    def _ids(self, kind: Kind, keys: Sequence[str]) -> list[list[int]]:
        """Return the token lists of query strings or passage ids, tokenising each once."""
        new = [key for key in dict.fromkeys(keys) if (kind, key) not in self._tokens]
        texts = new if kind == "query" else [self.corpus.get(id).contents for id in new]
        for key, tokens in zip(new, self.encoder.tokens(texts, kind), strict=True):
            self._tokens[kind, key] = tokens
        return [self._tokens[kind, key] for key in keys]


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate at `step` (from 0) of `steps`: up to 1, then down towards 0.

    No step has a factor of 0.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / (steps - rising)


def _vectors(passages: Embedded | torch.Tensor) -> torch.Tensor:
    return passages.vectors if isinstance(passages, Embedded) else passages


def _named(row: dict[str, float]) -> dict[str, float]:
    return {"hit": row["hit"], "mrr": row["mrr"]}


def optimiser(weights: Any) -> torch.optim.Optimizer:
    """Make AdamW, with weight decay on matrices and none on biases and norms."""
    parameters = list(weights)
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": _WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        fused=True,
    )
