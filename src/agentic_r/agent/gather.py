"""Gathers single awaited requests into batches, without timers and without threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gather(Generic[Item, Result]):
    """Collects what is submitted while the event loop is busy and works on it when it is not.

    `work` gets at most `limit` items in the order of their submission and returns one result, or
    one exception, an item. It runs once nothing new has come in for `patience` rounds of the
    event loop; no clock is involved, so the same requests make the same batches. What feeds
    another gatherer needs the smaller patience.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result | Exception]],
        *,
        limit: int | None = None,
        patience: int = 2,
    ) -> None:
        self._work = work
        self._limit = limit
        self._patience = patience
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching = False

    async def submit(self, item: Item) -> Result:
        """Hand in one item and await its result; an exception of the work is raised here."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # What waited on a loop that was closed in between can no longer be answered.
            self._loop, self._waiting, self._watching = loop, [], False
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if not self._watching:
            self._watching = True
            loop.call_soon(self._watch, loop, len(self._waiting), 0)
        return await future

    def _watch(self, loop: asyncio.AbstractEventLoop, seen: int, quiet: int) -> None:
        if loop is not self._loop:
            return
        quiet = quiet + 1 if len(self._waiting) == seen else 0
        if quiet < self._patience:
            loop.call_soon(self._watch, loop, len(self._waiting), quiet)
            return
        self._flush()
        self._watching = bool(self._waiting)
        if self._waiting:
            loop.call_soon(self._watch, loop, len(self._waiting), 0)

    def _flush(self) -> None:
        # A cancelled trajectory no longer wants its result.
        wanted = [pair for pair in self._waiting if not pair[1].done()]
        batch, self._waiting = wanted[: self._limit], wanted[self._limit :] if self._limit else []
        if not batch:
            return
        try:
            results = self._work([item for item, _ in batch])
        except Exception as error:
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
