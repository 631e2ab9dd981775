"""One thread that computes for all clients: what waits is done together, each text once.

The queue is counted in requests. A request of thousands of texts takes its turn batch by batch,
so that small ones behind it do not wait for all of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agentic_r.errors import OutageError
from agentic_r.serve.metrics import Metrics


class Work(Protocol):
    """A way to compute; jobs with equal works are computed together. Must be hashable."""

    @property
    def most(self) -> int | None:
        """Texts that it takes at once, None for as many as the batcher does."""
        ...

    def run(self, texts: Sequence[str]) -> Sequence[Any]:
        """Compute one result for each text, which does not depend on the other texts."""
        ...


class FullError(Exception):
    """The queue is full; `wait` is in how many seconds it is worth trying again."""

    def __init__(self, wait: int) -> None:
        super().__init__(wait)
        self.wait = wait


class Job:
    """The texts of one request and the results so far; abandoned once nobody waits for it."""

    def __init__(
        self, work: Work, texts: Sequence[str], loop: asyncio.AbstractEventLoop, order: int
    ) -> None:
        self.work = work
        self.texts = texts
        self.results: list[Any] = []
        self.error: Exception | None = None
        self.abandoned = False
        self.order = order
        self.loop = loop
        self.done: asyncio.Future[list[Any]] = loop.create_future()

    def finish(self) -> None:
        """Tell the one who waits; runs in the event loop."""
        if self.done.done():
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.results)


class Batcher:
    """Takes jobs from the event loop and computes them in one thread of its own.

    `size` texts are computed at once at most; `limit` jobs may wait.
    """

    def __init__(self, size: int, limit: int, metrics: Metrics) -> None:
        self.size = size
        self.limit = limit
        self.metrics = metrics
        self._waiting: deque[Job] = deque()
        self._open = 0
        self._turn = 0
        self._rate = 0.01
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return self._open

    async def submit(self, work: Work, texts: Sequence[str]) -> list[Any]:
        """Compute `texts`; cancelling the call takes what is not begun out of the queue.

        Raises FullError where `limit` jobs wait already, and what the work raises.
        """
        if not texts:
            return []
        if self._open >= self.limit or self._closed:
            raise FullError(max(1, min(60, round(self._open * self._rate))))
        job = Job(work, texts, asyncio.get_running_loop(), self._turn)
        self._turn += 1
        self._open += 1
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        try:
            return await job.done
        finally:
            job.abandoned = True
            self._open -= 1

    def close(self) -> None:
        """Finish what was accepted, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._take():
            began = self.metrics.clock()
            finished = self._compute(batch)
            seconds = self.metrics.clock() - began
            # Seconds a job, smoothed: what a client that is turned away is told to wait.
            if finished:
                self._rate += 0.1 * (seconds / len(finished) - self._rate)
            self.metrics.batched(sum(len(texts) for _, texts in batch), seconds)
            self._tell(finished)

    def _take(self) -> list[tuple[Job, Sequence[str]]]:
        """Wait for jobs and take a batch of equal works: (job, its next texts); empty at the end.

        A job with texts left goes behind the others.
        """
        with self._changed:
            while True:
                self._waiting = deque(job for job in self._waiting if not job.abandoned)
                if self._waiting:
                    break
                if self._closed:
                    return []
                self._changed.wait()
            batch: list[tuple[Job, Sequence[str]]] = []
            others: list[Job] = []
            unfinished: list[Job] = []
            work = self._waiting[0].work
            room = min(self.size, work.most or self.size)
            while self._waiting and room:
                job = self._waiting.popleft()
                if job.work != work:
                    others.append(job)
                    continue
                done = len(job.results)
                texts = job.texts[done : done + room]
                room -= len(texts)
                batch.append((job, texts))
                if done + len(texts) < len(job.texts):
                    unfinished.append(job)
            self._waiting.extendleft(reversed(others))
            self._waiting.extend(unfinished)
            return batch

    def _compute(self, batch: list[tuple[Job, Sequence[str]]]) -> list[Job]:
        """Add the results of a batch to its jobs; returns the jobs that are finished."""
        unique = list(dict.fromkeys(text for _, texts in batch for text in texts))
        try:
            found = dict(zip(unique, batch[0][0].work.run(unique), strict=True))
        except Exception as error:
            # One job's failure must not be the others', unless it is a server's that is away.
            if len(batch) > 1 and not isinstance(error, OutageError):
                return [job for each in batch for job in self._compute([each])]
            for job, _ in batch:
                job.error = error
                job.abandoned = True
            return [job for job, _ in batch]
        finished = []
        for job, texts in batch:
            job.results.extend(found[text] for text in texts)
            if len(job.results) == len(job.texts):
                finished.append(job)
        return finished

    def _tell(self, finished: Sequence[Job]) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
        for job in finished:
            loops.setdefault(job.loop, []).append(job.finish)
        for loop, calls in loops.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_call_all, calls)


def _call_all(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()
