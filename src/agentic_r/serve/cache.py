"""Answers of earlier queries, bounded in bytes; the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

_OVERHEAD = 400
"""Bytes that an entry takes beside its answer and its text, roughly."""


class Cache:
    """Rendered answers by key, at most `limit` bytes of them. One thread may use it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.hits = 0
        self.misses = 0
        self._held: OrderedDict[Hashable, tuple[bytes, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable) -> bytes | None:
        """Return the answer kept for `key`, which makes it the last to go."""
        found = self._held.get(key)
        if found is None:
            self.misses += 1
            return None
        self._held.move_to_end(key)
        self.hits += 1
        return found[0]

    def put(self, key: Hashable, answer: bytes, text: str) -> None:
        """Keep an answer; one that would take a quarter of the room is not kept."""
        size = len(answer) + 4 * len(text) + _OVERHEAD
        if size > self.limit // 4 or key in self._held:
            return
        self._held[key] = answer, size
        self.size += size
        while self.size > self.limit:
            _, (_, gone) = self._held.popitem(last=False)
            self.size -= gone

    def clear(self) -> None:
        """Forget everything: the answers were another version's."""
        self._held.clear()
        self.size = 0
