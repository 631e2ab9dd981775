"""Keys and values of one batch in one preallocated tensor, and a store of those worth keeping.

The caches of transformers grow by copying everything at every token; on a CPU that is most of
the time of a small model. Here a token's keys and values are written in place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class Slab:
    """Keys and values [layers, 2, rows, heads, positions, dimension], filled up to `length`.

    `data` is used as it is and has to be finite everywhere: a masked position is multiplied by
    0, and 0 * nan is nan. `cache` is what a transformers model takes as its past. The model's
    layers write at `length`; whoever calls the model moves it on afterwards.
    """

    def __init__(self, data: torch.Tensor, length: int = 0) -> None:
        self.data = data
        self.length = length
        self.cache = Cache(layers=[_Layer(self, index) for index in range(len(data))])

    def part(self, rows: slice, positions: slice, length: int) -> Slab:
        """Return these rows and positions as a slab: what is written there is written here."""
        return Slab(self.data[:, :, rows, :, positions], length)

    def keep(self, rows: torch.Tensor) -> None:
        """Keep only these rows of the batch."""
        self.data = self.data[:, :, rows]


class _Layer(DynamicLayer):  # type: ignore[misc]
    """One layer's view of a slab, as transformers wants it."""

    def __init__(self, slab: Slab, index: int) -> None:
        super().__init__()
        self.slab = slab
        self.index = index
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start, end = self.slab.length, self.slab.length + key_states.shape[-2]
        data = self.slab.data[self.index]
        data[0, :, :, start:end] = key_states
        data[1, :, :, start:end] = value_states
        return data[0, :, :, :end], data[1, :, :, :end]

    def get_seq_length(self) -> int:
        return self.slab.length


class PrefixStore:
    """Keys and values of earlier texts, found by the longest common beginning of token ids.

    The next turn of a trajectory begins with its last one, and the continuations of one search
    begin alike, so that most of a prompt has usually been read before. Beginnings are compared
    in blocks of `block` tokens and then exactly; at most `limit` bytes are kept, the least
    recently used go first.
    """

    def __init__(self, limit: int, block: int = 16) -> None:
        self.limit = limit
        self.block = block
        self._rows: OrderedDict[int, tuple[Sequence[int], torch.Tensor, list[int]]] = OrderedDict()
        self._blocks: dict[int, int] = {}
        self._next = 0
        self._bytes = 0

    def keys(self, ids: Sequence[int]) -> list[int]:
        """Return one key for every whole block, each standing for all tokens up to its end."""
        keys, key = [], 0
        for start in range(0, len(ids) - self.block + 1, self.block):
            key = hash((key, *ids[start : start + self.block]))
            keys.append(key)
        return keys

    def find(self, ids: Sequence[int]) -> tuple[int, torch.Tensor | None]:
        """Return how many leading tokens are known, and their source [layers, 2, heads, n, d].

        The last token is never counted: the model must read something to go on.
        """
        for key in reversed(self.keys(ids[:-1])):
            row = self._blocks.get(key)
            if row is None:
                continue
            known, source, _ = self._rows[row]
            count = common(known, ids[:-1])
            if count >= self.block:
                self._rows.move_to_end(row)
                return count, source
        return 0, None

    def add(self, ids: Sequence[int], source: torch.Tensor) -> None:
        """Keep the keys and values of a text, `source` [layers, 2, heads, len(ids), d]."""
        size = source.numel() * source.element_size()
        if size > self.limit or len(ids) < self.block:
            return
        keys = self.keys(ids)
        self._rows[self._next] = (ids, source.clone(memory_format=torch.contiguous_format), keys)
        self._blocks.update(dict.fromkeys(keys, self._next))
        self._next += 1
        self._bytes += size
        while self._bytes > self.limit:
            self._drop()

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()
        self._blocks.clear()
        self._bytes = 0

    def _drop(self) -> None:
        row, (_, source, keys) = self._rows.popitem(last=False)
        self._bytes -= source.numel() * source.element_size()
        for key in keys:
            if self._blocks.get(key) == row:
                del self._blocks[key]


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common beginning of two sequences."""
    end = min(len(a), len(b))
    if a[:end] == b[:end]:
        return end
    return next(index for index in range(end) if a[index] != b[index])
