"""Samples side by side in rows, so that a step reads hardly any padding.

Trajectories differ in length several times over. They are laid into rows by first fit, longest
first; a row may hold several, each with positions from 0 and attention to itself alone. Only the
places before a written token are ever projected to the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agentic_r.agent.loss import entropy_term
from agentic_r.agent.tokens import Sample
from agentic_r.errors import ConfigError


@dataclass(frozen=True)
class Packed:
    """Some rows of samples: `ids`, `positions` and `segments` are [rows, width].

    Segment 0 is nothing, each sample has a number of its own. For each written token, [n]:
    `before` is the flat place of the token before it, `targets` its id, `owner` the sample and
    `place` its number among the sample's written tokens.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    before: Tensor
    targets: Tensor
    owner: Tensor
    place: Tensor

    def mask(self, like: Tensor) -> Tensor | None:
        """Return the additive attention mask [rows, 1, width, width]; None where causal will do."""
        if int(self.positions.eq(0).logical_and(self.segments > 0).sum()) == self.ids.shape[0]:
            return None  # one sample a row, and what lies to the right is never seen
        same = self.segments[:, None, :, None] == self.segments[:, None, None, :]
        width = self.ids.shape[1]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.ids.device).tril()
        mask = torch.zeros(same.shape, dtype=like.dtype, device=self.ids.device)
        return mask.masked_fill_(~(same & causal), torch.finfo(like.dtype).min)


def pack(
    samples: Sequence[Sample], micro_tokens: int, device: str | torch.device = "cpu"
) -> Iterator[Packed]:
    """Yield micro-batches of at most `micro_tokens` tokens (a longer sample is one by itself).

    `owner` counts the samples as they are given, whatever row they come to lie in.
    """
    width = max(len(sample.ids) for sample in samples)
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(samples)), key=lambda n: (-len(samples[n].ids), n)):
        size = len(samples[number].ids)
        fits = next((row for row, left in enumerate(room) if left >= size), None)
        if fits is None:
            rows.append([])
            room.append(width)
            fits = len(rows) - 1
        rows[fits].append(number)
        room[fits] -= size
    many = max(1, micro_tokens // width)
    for start in range(0, len(rows), many):
        yield _packed(samples, rows[start : start + many], device)


def padded(samples: Sequence[Sample], device: str | torch.device = "cpu") -> Packed:
    """Return all samples one a row, padded on the right: what packing is measured against."""
    return _packed(samples, [[number] for number in range(len(samples))], device)


def _packed(
    samples: Sequence[Sample], rows: Sequence[Sequence[int]], device: str | torch.device
) -> Packed:
    width = max(sum(len(samples[number].ids) for number in row) for row in rows)
    ids, positions, segments = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    before: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    place: list[int] = []
    for at, row in enumerate(rows):
        start = 0
        for number in row:
            sample = samples[number]
            size = len(sample.ids)
            ids[at, start : start + size] = torch.tensor(sample.ids)
            positions[at, start : start + size] = torch.arange(size)
            segments[at, start : start + size] = number + 1
            own = [t for t in range(size) if sample.written[t]]
            before += [at * width + start + t - 1 for t in own]
            targets += [sample.ids[t] for t in own]
            owner += [number] * len(own)
            place += range(len(own))
            start += size
    flat = (torch.tensor(numbers, dtype=torch.long) for numbers in (before, targets, owner, place))
    return Packed(*(part.to(device) for part in (ids, positions, segments, *flat)))


def table(samples: Sequence[Sample]) -> Tensor:
    """Return the mask [samples, most written tokens]: what the written tokens' numbers fill."""
    counts = torch.tensor([len(sample.logprobs) for sample in samples])
    return torch.arange(int(counts.max()))[None] < counts[:, None]


class Written(NamedTuple):
    """Of each written token: its log-probability, the entropy, the state before it [n, width]."""

    logprobs: Tensor
    entropy: Tensor
    hidden: Tensor


def score(model: Any, packed: Packed, *, temperature: float = 1.0) -> Written:
    """Return the written tokens' log-probabilities under `model`, as it samples them.

    The logits are divided by `temperature`, as they were when the tokens were drawn.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = states(inner.base_model, packed)
    logits = inner.get_output_embeddings()(hidden).float()
    config = inner.config.get_text_config()
    logits = logits / (getattr(config, "logits_scaling", None) or 1.0)
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    logits = logits / temperature
    chosen = logits.gather(1, packed.targets[:, None])[:, 0] - logits.logsumexp(-1)
    return Written(chosen, entropy_term(logits), hidden)


def states(trunk: Any, packed: Packed) -> Tensor:
    """Return the last hidden state before each written token, [n, width]."""
    like = next(trunk.parameters())
    output: Tensor = trunk(
        input_ids=packed.ids,
        position_ids=packed.positions,
        attention_mask=packed.mask(like),
        use_cache=False,
    ).last_hidden_state
    return output.flatten(0, 1)[packed.before]


def refuse_attention(model: Any) -> None:
    """Raise ConfigError where the model's attention does not take a mask of its own."""
    kind = getattr(model.config, "_attn_implementation", "sdpa")
    if kind not in ("sdpa", "eager"):
        raise ConfigError(f"agent.model: got attention {kind}, expected sdpa for packed training")
