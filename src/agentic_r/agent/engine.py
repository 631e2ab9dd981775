"""Many trajectories side by side: so many at once, each handed out as it ends.

Nothing here knows what a trajectory does; `agentic_r.agent.rollout` carries a single one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

from agentic_r.errors import LLMError
from agentic_r.types import Trajectory

Carry = Callable[[Trajectory], Awaitable[Trajectory]]
OnRows = Callable[[list[Trajectory]], None]


async def side_by_side(
    carry: Carry,
    starts: Sequence[Trajectory],
    *,
    window: int = 0,
    on_rows: OnRows | None = None,
) -> list[Trajectory]:
    """Carry every start to its end, `window` at once (0: all), results in order of the starts.

    A start begins as soon as any trajectory has ended, so that a slow one holds up none and the
    first end long before the last begin. `on_rows` is given what has ended, the ends of one
    moment together; see `Ends` for what becomes of failures then. The first exception cancels
    the rest and is raised.
    """
    done: list[Trajectory | None] = [None] * len(starts)
    ends = Ends(on_rows, window or len(starts)) if on_rows is not None else None
    queue: Iterator[tuple[int, Trajectory]] = iter(enumerate(starts))
    pending: list[tuple[Trajectory, Trajectory]] = []

    async def work() -> None:
        for index, start in queue:
            end = done[index] = await carry(start)
            if ends is None:
                continue
            pending.append((start, end))
            await asyncio.sleep(0)  # the others that end in this moment
            if pending:
                together = pending[:]
                pending.clear()
                ends.add(together)

    many = min(window or len(starts), len(starts))
    tasks = [asyncio.ensure_future(work()) for _ in range(many)]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        if ends is not None:
            ends.add(pending)  # what ended in the last moment is not lost
        raise
    finally:
        for task in tasks:
            task.cancel()
    if ends is not None:
        ends.close()
    return [end for end in done if end is not None]


class Ends:
    """Hands out ended trajectories, and tells a model that is down from one that failed once.

    What ended with stop "error" is held back until another trajectory has ended well: then it
    counts as done. `limit` failures in a row, or nothing but failures, are a model that is down:
    LLMError is raised and they are not handed out, so that a resumed run tries them again.
    """

    def __init__(self, on_rows: OnRows | None, limit: int) -> None:
        self._on_rows = on_rows
        self._limit = max(2, limit)
        self._held: list[Trajectory] = []
        self._failed = 0
        self._good = False

    def add(self, rows: Sequence[tuple[Trajectory, Trajectory]]) -> None:
        """Take (start, end) pairs in. Raises LLMError where too many in a row failed."""
        out: list[Trajectory] = []
        for start, end in rows:
            if end.stop == "error" and start.stop is None:
                self._held.append(end)
                self._failed += 1
                continue
            self._good = self._good or start.stop is None
            out += [*self._held, end]
            self._held, self._failed = [], 0
        if out and self._on_rows is not None:
            self._on_rows(out)
        if self._failed >= self._limit:
            self._refuse(f"{self._failed} trajectories in a row failed")

    def close(self) -> None:
        """Hand out what was held back. Raises LLMError where more than one failed, and all."""
        if len(self._held) > 1 and not self._good:
            self._refuse(f"all {len(self._held)} trajectories failed")
        if self._held and self._on_rows is not None:
            self._on_rows(self._held)

    def _refuse(self, what: str) -> None:
        raise LLMError(f"{what}; the first: {self._held[0].error}")
