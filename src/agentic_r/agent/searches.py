"""Single searches in, batched calls of a retriever out; what was found once is not sought again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from agentic_r.agent.gather import Gather
from agentic_r.errors import ConfigError
from agentic_r.protocols import Retriever
from agentic_r.types import Hit

REMEMBERED = 50_000
"""Strings whose hits are kept; the least recently asked go first."""


class SearchQueue:
    """Turns single searches into batched calls of a retriever; equal strings are sent once.

    A string that is being sought, or was sought during this rollout, is not sent again. With
    `threaded` the retriever works in another thread, one call at a time, so that requests to a
    language model go on meanwhile; without it the same requests make the same batches. An error
    of the retriever is raised in every search of its batch: it is not the agent's fault and must
    not become a wrong answer.
    """

    def __init__(self, retriever: Retriever, k: int, *, threaded: bool = False) -> None:
        if k < 1:
            raise ConfigError(f"k: got {k}, expected at least 1 passage per search")
        self._retriever = retriever
        self._k = k
        self._known: OrderedDict[str, asyncio.Future[tuple[Hit, ...]]] = OrderedDict()
        self._gather: Gather[str, tuple[Hit, ...]] = Gather(
            self._search, patience=2, threaded=threaded
        )

    async def search(self, query: str) -> tuple[Hit, ...]:
        """Return the `k` best hits for one string, best first."""
        known = self._known.get(query)
        if known is None or (known.done() and (known.cancelled() or known.exception())):
            known = self._known[query] = self._gather.put(query)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(query)
        # Others may wait for the same string when this trajectory is cancelled.
        return await asyncio.shield(known)

    def _search(self, queries: list[str]) -> list[tuple[Hit, ...]]:
        found = self._retriever.search(queries, self._k)
        return [tuple(row) for _, row in zip(queries, found, strict=True)]
