"""Batched decoding: prefill from the first unknown token on, then one token at a time.

Prompts are read in small groups, without any padding mask where nothing is known of them; the
whole batch then decodes left-padded in one slab. Every row is sampled from its own seeded
numbers, so that the batch around it does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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

    @torch.inference_mode()
    def run(self, rows: list[Row]) -> None:
        """Continue every row to its end, filling its tokens and logprobs."""
        width = max(len(row.prompt) for row in rows)
        slab = self._slab(len(rows), width + max(row.limit for row in rows))
        slab.length = width
        logits = self._prefill(rows, slab)
        batch = _Batch(rows, slab)
        while True:
            for index in batch.choose(logits):
                self._remember(rows=batch.rows, index=index, slab=slab, width=width)
            if all(row.done for row in batch.rows):
                return
            batch.shrink()
            logits = self._step(batch)

    def _slab(self, rows: int, positions: int) -> Slab:
        return Slab((self.layers, rows, self.heads, positions, self.dimension), self.like)

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

    def _prefill(self, rows: list[Row], slab: Slab) -> torch.Tensor:
        """Read all prompts into the slab; returns the logits [rows, vocabulary] at their ends."""
        width = slab.length
        logits: dict[int, torch.Tensor] = {}
        waiting = list(range(len(rows)))
        for wave in range(WAVES):
            starts, wanted, waiting = self._wave(rows, waiting, wait=wave + 1 < WAVES)
            for group in self._groups(starts):
                logits.update(self._read(group, slab))
            for index in wanted:
                prompt = rows[index].prompt
                self.store.add(prompt, slab.data[:, :, index, :, width - len(prompt) : width])
        return torch.stack([logits[index] for index in range(len(rows))])

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

    def _read(self, group: list[_Start], slab: Slab) -> dict[int, torch.Tensor]:
        """Read one group, copy its keys and values into the slab, return logits by row."""
        width, device = slab.length, self.like.device
        known = max(start.known for start in group)
        counts = [len(start.prompt) - start.known for start in group]
        part = self._slab(len(group), known + max(counts))
        part.length = known
        ids = torch.zeros((len(group), max(counts)), dtype=torch.long)
        for row, start in enumerate(group):
            ids[row, : counts[row]] = torch.tensor(start.prompt[start.known :])
            if start.source is not None:
                part.data[:, :, row, :, known - start.known : known] = start.source[
                    :, :, :, : start.known
                ]
        before = torch.tensor([start.known for start in group])
        steps = torch.minimum(torch.arange(max(counts)), torch.tensor(counts)[:, None] - 1)
        ends = sorted({count - 1 for count in counts})
        output = self.model(
            input_ids=ids.to(device),
            attention_mask=self._mask(before, known, max(counts)) if known else None,
            position_ids=(before[:, None] + steps).to(device),
            past_key_values=part.cache,
            use_cache=True,
            logits_to_keep=torch.tensor(ends, device=device),
        )
        for row, start in enumerate(group):
            slab.data[:, :, start.index, :, width - len(start.prompt) : width] = part.data[
                :, :, row, :, known - start.known : known + counts[row]
            ]
        return {
            start.index: output.logits[row, ends.index(counts[row] - 1)]
            for row, start in enumerate(group)
        }

    def _mask(self, before: torch.Tensor, known: int, count: int) -> torch.Tensor:
        """Return the additive mask [rows, 1, count, known + count] behind left-padded pasts."""
        column = torch.arange(known + count)
        causal = column[None, :] <= known + torch.arange(count)[:, None]
        real = column[None, :] >= known - before[:, None]
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
