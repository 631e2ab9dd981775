"""Supervised training of an agent on trajectories: the loss is on what the agent wrote.

The tiny checkpoint is made with it (`agent/tiny.py`) and so is the loop's `agent` stage, which
trains on the agent's own correct trajectories. What the agent was shown (the question, the
passages) is read and never imitated: those tokens are masked.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch

from agentic_r.agent.descent import Descent, arithmetic, rising_then_falling
from agentic_r.errors import ConfigError
from agentic_r.protocols import Dialect, Prompt
from agentic_r.types import Trajectory


@dataclass(frozen=True)
class Encoded:
    """A trajectory as token ids, and for each token whether the agent wrote it."""

    ids: list[int]
    written: list[bool]


def encode(
    trajectories: Sequence[Trajectory], tokenizer: Any, dialect: Dialect, max_length: int
) -> list[Encoded | None]:
    """Render and tokenise trajectories; None for one that is longer than `max_length` tokens.

    A token is the agent's if it begins inside a turn's text, so the mask is right for any
    tokenizer, whatever it merges.
    """
    texts, spans = [], []
    for trajectory in trajectories:
        text, own = "", []
        for index, turn in enumerate(trajectory.turns):
            head = msgspec.structs.replace(trajectory, turns=trajectory.turns[:index], stop=None)
            text = rendered(dialect.prompt(head))
            written = turn.text.strip()
            own.append((len(text), len(text) + len(written)))
            text += written
        texts.append(text)
        spans.append(own)
    batch = tokenizer(texts, return_offsets_mapping=True, add_special_tokens=False)
    return [
        Encoded(ids, _written(offsets, own)) if len(ids) <= max_length else None
        for ids, offsets, own in zip(
            batch["input_ids"], batch["offset_mapping"], spans, strict=True
        )
    ]


def rendered(prompt: Prompt) -> str:
    """Return a prompt that is plain text; raises ConfigError for a conversation."""
    if isinstance(prompt, str):
        return prompt
    raise ConfigError(
        "agent.train learns from prompts that are plain text, got a conversation: take a text "
        "dialect such as search-r1, or agent.train.epochs 0"
    )


def _written(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    marks: list[bool] = []
    position = 0
    for start, _ in offsets:
        while position < len(spans) and start >= spans[position][1]:
            position += 1
        marks.append(position < len(spans) and start >= spans[position][0])
    return marks


def batches(
    examples: Sequence[Encoded], batch_tokens: int, rng: random.Random
) -> Iterator[list[Encoded]]:
    """Yield batches of similar lengths with at most `batch_tokens` tokens, padding included."""
    ordered = sorted(examples, key=lambda example: len(example.ids))
    groups: list[list[Encoded]] = [[]]
    for example in ordered:
        if groups[-1] and (len(groups[-1]) + 1) * len(example.ids) > batch_tokens:
            groups.append([])
        groups[-1].append(example)
    rng.shuffle(groups)
    yield from groups


def pad(batch: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, attention mask and written mask, each [rows, tokens], padded on the right."""
    width = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    attention = torch.zeros(len(batch), width, dtype=torch.long)
    written = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, example in enumerate(batch):
        size = len(example.ids)
        ids[row, :size] = torch.tensor(example.ids)
        attention[row, :size] = 1
        written[row, :size] = torch.tensor(example.written)
    return ids, attention, written


def written_logits(
    model: Any, ids: torch.Tensor, attention: torch.Tensor, written: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits that predict the written tokens, [n, vocabulary], and the tokens, [n].

    Only the places before a written token are projected to the vocabulary: the rest is never
    looked at, and the projection is the most expensive layer of a small model.
    """
    hidden = model.base_model(input_ids=ids, attention_mask=attention).last_hidden_state
    wanted = written[:, 1:]
    logits = model.get_output_embeddings()(hidden[:, :-1][wanted])
    return logits.float(), ids[:, 1:][wanted]


@dataclass
class Progress:
    """Where a training stands: the mean loss and token accuracy of the last steps."""

    step: int
    loss: float
    accuracy: float


class Trainer:
    """Cross-entropy of written tokens; linear warm-up, cosine decay to a tenth."""

    def __init__(
        self,
        model: Any,
        *,
        learning_rate: float,
        steps: int,
        warmup: int = 100,
        bf16: bool = False,
        decay_from: float = 0.0,
    ) -> None:
        self.model = model
        self.precision = "bf16" if bf16 else "fp32"
        scale = rising_then_falling(steps, warmup, decay_from)
        self.descent = Descent(model.parameters(), learning_rate, scale, betas=(0.9, 0.98))
        self.step = 0

    def update(self, batch: Sequence[Encoded]) -> Progress:
        """Take one step on a batch and return its loss and token accuracy."""
        self.model.train()
        device = next(self.model.parameters()).device
        with arithmetic(self.precision, device.type):
            logits, targets = written_logits(self.model, *(part.to(device) for part in pad(batch)))
            loss = torch.nn.functional.cross_entropy(logits, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self.descent.step()
        self.descent.advance()
        self.step += 1
        accuracy = float((logits.argmax(-1) == targets).float().mean())
        return Progress(self.step, float(loss.detach()), accuracy)

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs to go on as if nothing had happened."""
        return {"model": self.model.state_dict(), "step": self.step} | self.descent.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.model.load_state_dict(state["model"])
        self.descent.restore(state)
        self.step = state["step"]


@torch.no_grad()
def right_throughout(model: Any, examples: Iterable[Encoded], batch_tokens: int = 8192) -> float:
    """Return the share of trajectories whose every written token is the model's first choice."""
    model.eval()
    right: list[bool] = []
    for batch in batches(list(examples), batch_tokens, random.Random(0)):
        ids, attention, written = pad(batch)
        logits, targets = written_logits(model, ids, attention, written)
        rows = written[:, 1:].nonzero()[:, 0]
        wrong = torch.zeros(len(batch))
        wrong.index_add_(0, rows, (logits.argmax(-1) != targets).float())
        right += (wrong == 0).tolist()
    return sum(right) / max(1, len(right))
