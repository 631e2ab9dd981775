"""Batched decoding: prefill from the first unknown token on, then one token at a time.

Prompts are read in small groups, straight into the slab in which the whole batch then decodes
left-padded; without a mask where they are of one length and nothing is known of them. A beginning
that many rows share is read once and stays outside the slab, which then holds what follows it.
Every row is sampled from its own seeded numbers, so that the batch around it does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from math import prod
from typing import Any

import torch

from agentic_r.agent.forward import LibraryForward, Reading, Span, additive, forward_of, whole
from agentic_r.agent.slab import PrefixStore, Slab
from agentic_r.agent.stems import stems
from agentic_r.protocols import Sampling

WAVES = 3
"""Rounds of prefill in which rows wait for another row that begins alike."""


@dataclass(eq=False)
class Stem:
    """A beginning that rows share: its token ids, keys and values [layers, 2, heads, n, d]."""

    number: int
    ids: list[int]
    data: torch.Tensor


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
    stem: Stem | None = None

    @property
    def before(self) -> int:
        """How many tokens of the prompt its stem holds."""
        return len(self.stem.ids) if self.stem else 0

    @property
    def own(self) -> list[int]:
        """The tokens of the prompt after its stem."""
        return self.prompt[self.before :]


@dataclass(eq=False)
class _Start:
    """A row of the batch, how many of its own tokens are known already, and from where."""

    index: int
    row: Row
    known: int
    source: torch.Tensor | None

    @property
    def unknown(self) -> int:
        """How many of its own tokens are to be read."""
        return len(self.row.own) - self.known

    @property
    def kind(self) -> tuple[int, bool]:
        """What rows that are read together have in common."""
        return (self.row.stem.number if self.row.stem else -1, self.known > 0)


class Decoder:
    """Continues prompts with one model; about `group_tokens` are read at once in prefill."""

    def __init__(self, model: Any, store: PrefixStore, group_tokens: int) -> None:
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        self.layers: int = config.num_hidden_layers
        self.heads: int = getattr(config, "num_key_value_heads", None) or heads
        self.dimension: int = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.model = model
        self.forward = self._forward = forward_of(model)
        self.store = store
        self.group_tokens = group_tokens
        self.like: torch.Tensor = next(model.parameters())
        self._memory = self.like.new_empty(0)

    @torch.inference_mode()
    def run(self, rows: list[Row]) -> None:
        """Continue every row to its end, filling its tokens and logprobs."""
        self.forward = self._forward if whole(self.model) else LibraryForward(self.model)
        if self.forward.stems and self.store.limit:
            self._share(rows)
        width = max(len(row.own) for row in rows)
        slab = self._slab(len(rows), width + max(row.limit for row in rows), width)
        logits, order = self._prefill(rows, slab)
        batch = _Batch([rows[index] for index in order], slab)
        while True:
            for index in batch.choose(logits):
                row = batch.rows[index]
                if len(row.tokens) < row.limit:  # a stop string ended it: its text usually goes on
                    # The newest token was not read by the model, so there are no keys of it.
                    self._remember(row, row.prompt + row.tokens[:-1], slab, index, width)
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
        mask = batch.mask[:, :, :, : slab.length + 1]
        ids, positions = batch.newest[:, None], batch.positions[:, None]
        logits = self.forward(Reading(ids, positions, slab, mask, batch.spans))
        slab.length += 1
        batch.positions += 1
        return logits

    def _remember(self, row: Row, ids: list[int], slab: Slab, place: int, width: int) -> None:
        """Keep what was read of a row: `ids`, whose own part begins where its prompt does."""
        start = width - len(row.own)
        own = slab.data[:, :, place, :, start : start + len(ids) - row.before]
        self.store.add(ids, torch.cat((row.stem.data, own), dim=3) if row.stem else own)

    def _share(self, rows: list[Row]) -> None:
        """Read every beginning that many rows have in common, and give it to them as their stem."""
        groups = stems([row.prompt for row in rows], self.store)
        for number, (length, members) in enumerate(groups):
            stem = self._stem(number, rows[members[0]].prompt[: length + 1])
            for index in members:
                rows[index].stem = stem

    def _stem(self, number: int, ids: list[int]) -> Stem:
        """Read all but the last of these tokens, from the first unknown one on."""
        length = len(ids) - 1
        known, source = self.store.find(ids)
        slab = Slab(self.like.new_zeros((self.layers, 2, 1, self.heads, length, self.dimension)))
        if source is not None:
            slab.data[:, :, 0, :, :known] = source[:, :, :, :known]
        slab.length = known
        if known < length:
            new = torch.tensor([ids[known:length]], device=self.like.device)
            at = torch.arange(known, length, device=self.like.device)[None]
            mask = self._mask(torch.tensor([length]), length, length - known) if known else None
            self.forward(Reading(new, at, slab, mask))
            self.store.add(ids[:length], slab.data[:, :, 0])
        return Stem(number, ids[:length], slab.data[:, :, 0])

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
                row = rows[index]
                self._remember(row, row.prompt, slab, order.index(index), width)
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
            row = rows[index]
            prompt = row.prompt
            known, source = self.store.find(prompt)
            if source is not None and known > row.before:
                known, source = known - row.before, source[:, :, :, row.before :]
            else:
                known, source = 0, None
            keys = self.store.keys(prompt[:-1])
            shared = next((n for n, key in enumerate(keys) if key not in owners), len(keys))
            if wait and shared * block >= row.before + known + 2 * block:
                wanted[owners[keys[shared - 1]]] = None
                later.append(index)
                continue
            starts.append(_Start(index, row, known, source))
            for key in keys:
                owners.setdefault(key, index)
        return starts, list(wanted), later

    def _groups(self, starts: list[_Start]) -> list[list[_Start]]:
        """Put rows of one stem with about as many unknown tokens together."""
        groups: list[list[_Start]] = []
        size = 0
        for start in sorted(starts, key=lambda s: (*s.kind, s.unknown)):
            size = max(size, start.unknown)
            if (
                not groups
                or groups[-1][0].kind != start.kind
                or size * (len(groups[-1]) + 1) > self.group_tokens
            ):
                groups.append([])
                size = start.unknown
            groups[-1].append(start)
        return groups

    def _read(self, group: list[_Start], slab: Slab, place: int) -> torch.Tensor:
        """Read one group into the rows of the slab from `place` on; returns logits at the ends.

        Every row reads as many tokens as the one with the most unknown ones, so that all end
        together: what a row knows of them already is read again, and short prompts are padded.
        """
        prompts = [start.row.own for start in group]
        count = max(start.unknown for start in group)
        longest = max(map(len, prompts))
        rows, positions = (
            slice(place, place + len(group)),
            slice(slab.length - longest, slab.length),
        )
        part = slab.part(rows, positions, longest - count)
        ids = torch.zeros((len(group), count), dtype=torch.long)
        for row, (start, prompt) in enumerate(zip(group, prompts, strict=True)):
            new = prompt[-count:]
            ids[row, count - len(new) :] = torch.tensor(new)
            old = len(prompt) - len(new)
            if start.source is not None and old:
                known = start.source[:, :, :, :old]
                part.data[:, :, row, :, part.length - old : part.length] = known
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        at = (lengths[:, None] - count + torch.arange(count)).clamp(min=0) + group[0].row.before
        even = part.length == 0 and int(lengths.min()) == longest
        reading = Reading(
            ids.to(self.like.device),
            at.to(self.like.device),
            part,
            None if even else self._mask(lengths, longest, count),
            _spans([start.row for start in group]),
        )
        return self.forward(reading)

    def _mask(self, lengths: torch.Tensor, longest: int, count: int) -> torch.Tensor:
        """Return the additive mask [rows, 1, count, longest] of the last tokens, left-padded."""
        column = torch.arange(longest)
        causal = column[None, :] <= longest - count + torch.arange(count)[:, None]
        real = column[None, :] >= longest - lengths[:, None]
        return additive(causal[None, None] & real[:, None, None], self.like)


class _Batch:
    """The rows that are being decoded, in the order of the slab."""

    def __init__(self, rows: list[Row], slab: Slab) -> None:
        like = slab.data
        lengths = torch.tensor([len(row.own) for row in rows])
        column = torch.arange(slab.data.shape[4])
        real = column[None, :] >= slab.length - lengths[:, None]
        self.rows = rows
        self.slab = slab
        self.spans = _spans(rows)
        self.mask = additive(real[:, None, None], like)
        self.positions = torch.tensor([len(row.prompt) for row in rows], device=like.device)
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
        self.spans = _spans(self.rows)
        self.slab.keep(index)
        for name in ("mask", "positions", "newest", "greedy", "temperature", "top_p", "numbers"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value[index])


def _spans(rows: list[Row]) -> list[Span]:
    """Return the runs of rows that share a stem or have none, or nothing where none has any."""
    if not any(row.stem for row in rows):
        return []
    spans: list[Span] = []
    start = 0
    for _, run in groupby(rows, key=lambda row: row.stem.number if row.stem else -1):
        end = start + len(list(run))
        stem = rows[start].stem
        spans.append((slice(start, end), stem.data if stem else None))
        start = end
    return spans


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
