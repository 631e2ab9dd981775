"""Gathers single awaited requests into batches, without timers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from agentic_r.waiting import long_step

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gather(Generic[Item, Result]):
    """Collects what is submitted while the event loop is busy and works on it when it is not.

    `work` gets at most `limit` items in the order of their submission and returns one result, or
    one exception, an item. It runs once nothing new has come in for `patience` rounds of the
    event loop; no clock is involved, so the same requests make the same batches. What feeds
    another gatherer needs the smaller patience. With `threaded` it runs in another thread, one
    batch at a time, and what comes in meanwhile makes the next batch.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result | Exception]],
        *,
        limit: int | None = None,
        patience: int = 2,
        threaded: bool = False,
    ) -> None:
        self._work = work
        self._limit = limit
        self._patience = patience
        self._threaded = threaded
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching = False

    async def submit(self, item: Item) -> Result:
        """Hand in one item and await its result; an exception of the work is raised here."""
        return await self.put(item)

    def put(self, item: Item) -> asyncio.Future[Result]:
        """Hand in one item and return the future of its result."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # What waited on a loop that was closed in between can no longer be answered.
            self._loop, self._waiting, self._watching = loop, [], False
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if not self._watching:
            self._watching = True
            loop.call_soon(self._watch, loop, len(self._waiting), 0)
        return future

    def _watch(self, loop: asyncio.AbstractEventLoop, seen: int, quiet: int) -> None:
        if loop is not self._loop:
            return
        quiet = quiet + 1 if len(self._waiting) == seen else 0
        if quiet < self._patience:
            loop.call_soon(self._watch, loop, len(self._waiting), quiet)
            return
        batch = self._next_batch()
        if self._threaded and batch:
            try:
                work = loop.run_in_executor(None, self._results, batch)
            except RuntimeError:  # after Ctrl-C the loop closes, and nobody waits any more
                for _, future in batch:
                    future.cancel()
                return
            work.add_done_callback(lambda done: self._told(loop, batch, done.result()))
            return
        self._told(loop, batch, self._results(batch))

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        # A cancelled trajectory no longer wants its result.
        wanted = [pair for pair in self._waiting if not pair[1].done()]
        batch, self._waiting = wanted[: self._limit], wanted[self._limit :] if self._limit else []
        return batch

    def _results(
        self, batch: list[tuple[Item, asyncio.Future[Result]]]
    ) -> Sequence[Result | Exception]:
        if not batch:
            return []
        try:
            with long_step():
                return self._work([item for item, _ in batch])
        except Exception as error:
            return [error] * len(batch)

    def _told(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[Item, asyncio.Future[Result]]],
        results: Sequence[Result | Exception],
    ) -> None:
        """Hand out results and go on with what came in meanwhile."""
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # cancelled while the thread was at work
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        if loop is self._loop:
            self._watching = bool(self._waiting)
            if self._waiting:
                loop.call_soon(self._watch, loop, len(self._waiting), 0)
