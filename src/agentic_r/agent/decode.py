"""Batched decoding: prefill from the first unknown token on, then one token at a time.

Prompts are read in small groups, straight into the slab in which the whole batch then decodes
left-padded; without a mask where they are of one length and nothing is known of them. Every row
is sampled from its own seeded numbers, so that the batch around it does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch

from agentic_r.agent.slab import PrefixStore, Slab
from agentic_r.protocols import Sampling

WAVES = 3
"""Rounds of prefill in which rows wait for another row that begins alike."""


@dataclass(eq=False)
class Row:
    """One prompt on its way: `limit` new tokens at most, `ended` is asked after each."""

    prompt: list[int]
    limit: int
    sampling: Sampling
    seed: int
    ended: Callable[[list[int]], bool]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    done: bool = False


@dataclass(eq=False)
class _Start:
    """A row of the batch, how many of its tokens are known already, and from where."""

    index: int
    prompt: list[int]
    known: int
    source: torch.Tensor | None


class Decoder:
    """Continues prompts with one model; about `group_tokens` are read at once in prefill."""

    def __init__(self, model: Any, store: PrefixStore, group_tokens: int) -> None:
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        self.layers: int = config.num_hidden_layers
        self.heads: int = getattr(config, "num_key_value_heads", None) or heads
        self.dimension: int = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.model = model
        self.store = store
        self.group_tokens = group_tokens
        self.like: torch.Tensor = next(model.parameters())
        self._memory = self.like.new_empty(0)

    @torch.inference_mode()
    def run(self, rows: list[Row]) -> None:
        """Continue every row to its end, filling its tokens and logprobs."""
        width = max(len(row.prompt) for row in rows)
        slab = self._slab(len(rows), width + max(row.limit for row in rows), width)
        logits, order = self._prefill(rows, slab)
        batch = _Batch([rows[index] for index in order], slab)
        while True:
            for index in batch.choose(logits):
                self._remember(rows=batch.rows, index=index, slab=slab, width=width)
            if all(row.done for row in batch.rows):
                return
            batch.shrink()
            logits = self._step(batch)

    def _slab(self, rows: int, positions: int, length: int) -> Slab:
        """Make a slab in the memory of the last: fresh memory costs a CPU more than to clear it."""
        shape = (self.layers, 2, rows, self.heads, positions, self.dimension)
        if self._memory.numel() < prod(shape):
            self._memory = self.like.new_empty(prod(shape))
        return Slab(self._memory[: prod(shape)].view(shape).zero_(), length)

    def _step(self, batch: _Batch) -> torch.Tensor:
        slab = batch.slab
        output = self.model(
            input_ids=batch.newest[:, None],
            attention_mask=batch.mask[:, :, :, : slab.length + 1],
            position_ids=batch.positions[:, None],
            past_key_values=slab.cache,
            use_cache=True,
        )
        slab.length += 1
        batch.positions += 1
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _remember(self, rows: list[Row], index: int, slab: Slab, width: int) -> None:
        """Keep what was read of a row that a stop string ended: its text usually goes on."""
        row = rows[index]
        if len(row.tokens) >= row.limit:
            return
        # The newest token was not read by the model, so there are no keys of it.
        ids = row.prompt + row.tokens[:-1]
        start = width - len(row.prompt)
        self.store.add(ids, slab.data[:, :, index, :, start : start + len(ids)])

    def _prefill(self, rows: list[Row], slab: Slab) -> tuple[torch.Tensor, list[int]]:
        """Read all prompts into the slab, in the order that suits the reading.

        Returns the logits [rows, vocabulary] at their ends, and the row at each place of the slab.
        """
        width = slab.length
        logits: list[torch.Tensor] = []
        order: list[int] = []
        waiting = list(range(len(rows)))
        for wave in range(WAVES):
            starts, wanted, waiting = self._wave(rows, waiting, wait=wave + 1 < WAVES)
            for group in self._groups(starts):
                logits.append(self._read(group, slab, len(order)))
                order += [start.index for start in group]
            for index in wanted:
                prompt, place = rows[index].prompt, order.index(index)
                self.store.add(prompt, slab.data[:, :, place, :, width - len(prompt) : width])
        return torch.cat(logits), order

    def _wave(
        self, rows: list[Row], waiting: list[int], wait: bool
    ) -> tuple[list[_Start], list[int], list[int]]:
        """Split rows into those to read now and those that wait for one of them.

        A row waits if another one, read now, spares it at least two blocks. Returns the starts,
        the rows that are waited for, and the rows that wait.
        """
        block = self.store.block
        owners: dict[int, int] = {}
        starts: list[_Start] = []
        wanted: dict[int, None] = {}
        later: list[int] = []
        for index in waiting:
            prompt = rows[index].prompt
            known, source = self.store.find(prompt)
            keys = self.store.keys(prompt[:-1])
            shared = next((n for n, key in enumerate(keys) if key not in owners), len(keys))
            if wait and shared * block >= known + 2 * block:
                wanted[owners[keys[shared - 1]]] = None
                later.append(index)
                continue
            starts.append(_Start(index, prompt, known, source))
            for key in keys:
                owners.setdefault(key, index)
        return starts, list(wanted), later

    def _groups(self, starts: list[_Start]) -> list[list[_Start]]:
        """Put rows with about as many unknown tokens together."""
        groups: list[list[_Start]] = []
        size = 0
        for start in sorted(starts, key=lambda s: (s.known > 0, len(s.prompt) - s.known)):
            size = max(size, len(start.prompt) - start.known)
            if (
                not groups
                or (groups[-1][0].known > 0) != (start.known > 0)
                or size * (len(groups[-1]) + 1) > self.group_tokens
            ):
                groups.append([])
                size = len(start.prompt) - start.known
            groups[-1].append(start)
        return groups

    def _read(self, group: list[_Start], slab: Slab, place: int) -> torch.Tensor:
        """Read one group into the rows of the slab from `place` on; returns logits at the ends.

        Every row reads as many tokens as the one with the most unknown ones, so that all end
        together: what a row knows of them already is read again, and short prompts are padded.
        """
        count = max(len(start.prompt) - start.known for start in group)
        longest = max(len(start.prompt) for start in group)
        rows, positions = (
            slice(place, place + len(group)),
            slice(slab.length - longest, slab.length),
        )
        part = slab.part(rows, positions, longest - count)
        ids = torch.zeros((len(group), count), dtype=torch.long)
        for row, start in enumerate(group):
            new = start.prompt[-count:]
            ids[row, count - len(new) :] = torch.tensor(new)
            old = len(start.prompt) - len(new)
            if start.source is not None and old:
                known = start.source[:, :, :, :old]
                part.data[:, :, row, :, part.length - old : part.length] = known
        lengths = torch.tensor([len(start.prompt) for start in group])
        at = lengths[:, None] - count + torch.arange(count)
        even = part.length == 0 and int(lengths.min()) == longest
        output = self.model(
            input_ids=ids.to(self.like.device),
            attention_mask=None if even else self._mask(lengths, longest, count),
            position_ids=at.clamp(min=0).to(self.like.device),
            past_key_values=part.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _mask(self, lengths: torch.Tensor, longest: int, count: int) -> torch.Tensor:
        """Return the additive mask [rows, 1, count, longest] of the last tokens, left-padded."""
        column = torch.arange(longest)
        causal = column[None, :] <= longest - count + torch.arange(count)[:, None]
        real = column[None, :] >= longest - lengths[:, None]
        return _additive(causal[None, None] & real[:, None, None], self.like)


class _Batch:
    """The rows that are being decoded, in the order of the slab."""

    def __init__(self, rows: list[Row], slab: Slab) -> None:
        like = slab.data
        lengths = torch.tensor([len(row.prompt) for row in rows])
        column = torch.arange(slab.data.shape[4])
        real = column[None, :] >= slab.length - lengths[:, None]
        self.rows = rows
        self.slab = slab
        self.mask = _additive(real[:, None, None], like)
        self.positions = lengths.to(like.device)
        self.newest = torch.zeros(len(rows), dtype=torch.long, device=like.device)
        self.wasted = 0
        self.draw = any(row.sampling.temperature > 0 for row in rows)
        temperatures = torch.tensor([row.sampling.temperature for row in rows])
        self.greedy = (temperatures <= 0).to(like.device)
        self.temperature = temperatures.masked_fill(temperatures <= 0, 1.0).to(like.device)
        self.top_p = torch.tensor([row.sampling.top_p for row in rows]).to(like.device)
        self.numbers = _numbers(rows).to(like.device) if self.draw else None
        self.step = 0

    def choose(self, logits: torch.Tensor) -> list[int]:
        """Give every row its next token; returns the rows that ended with it."""
        logits = logits.float()
        tokens = logits.argmax(-1)
        if self.numbers is not None:
            logits = logits / self.temperature[:, None]
            drawn = _sample(logits, self.top_p, self.numbers[:, self.step])
            tokens = torch.where(self.greedy, tokens, drawn)
        chosen = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        self.newest = tokens
        self.step += 1
        ended = []
        pairs = zip(self.rows, tokens.tolist(), chosen.tolist(), strict=True)
        for index, (row, token, logprob) in enumerate(pairs):
            if row.done:
                continue
            row.tokens.append(token)
            row.logprobs.append(logprob)
            if row.ended(row.tokens) or len(row.tokens) >= row.limit:
                row.done = True
                ended.append(index)
        return ended

    def shrink(self) -> None:
        """Drop ended rows once carrying them has cost more than moving the others."""
        live = [index for index, row in enumerate(self.rows) if not row.done]
        self.wasted += len(self.rows) - len(live)
        if self.wasted < 1.5 * len(self.rows):
            return
        self.wasted = 0
        index = torch.tensor(live, device=self.newest.device)
        self.rows = [self.rows[row] for row in live]
        self.slab.keep(index)
        for name in ("mask", "positions", "newest", "greedy", "temperature", "top_p", "numbers"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value[index])


def _additive(allowed: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(allowed.shape, dtype=like.dtype)
    return mask.masked_fill_(~allowed, torch.finfo(like.dtype).min).to(like.device)


def _numbers(rows: list[Row]) -> torch.Tensor:
    """Draw each row's uniform numbers [rows, tokens] from its own seed."""
    longest = max(row.limit for row in rows)
    return torch.stack(
        [torch.rand(longest, generator=torch.Generator().manual_seed(row.seed)) for row in rows]
    )


def _sample(logits: torch.Tensor, top_p: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Draw by inverting the distribution: likeliest tokens first, cut where `top_p` is reached.

    The first token that reaches `top_p` still counts (nucleus sampling, Holtzman et al. 2020).
    """
    probabilities, order = logits.softmax(-1).sort(stable=True, dim=-1, descending=True)
    total = probabilities.cumsum(-1)
    inside = total - probabilities < top_p[:, None]
    mass = (probabilities * inside).sum(-1)
    at = (total <= (numbers * mass)[:, None]).sum(-1)
    at = torch.minimum(at, inside.sum(-1) - 1)
    return order.gather(1, at[:, None])[:, 0]
