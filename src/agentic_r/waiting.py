"""Asynchronous work from code that is not: in scripts, and in notebooks with their own loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


def wait(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end and return its result; what it raises is raised.

    Where an event loop runs already, as in a notebook, the work gets a loop of its own in another
    thread, because `asyncio.run` refuses; the caller waits all the same.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _here(work)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()


def end_waiting(error: BaseException) -> bool:
    """Cancel what the main thread waits for, so that `wait` raises `error`; for signal handlers.

    An error raised by a handler comes up wherever the event loop is, also between two lines that
    belong together: a timeout that is entered and never left lets the loop turn for ever.
    Returns False where nothing is waited for, where it was asked to end before, and inside
    `long_step`, which would have to be waited for.
    """
    if _waited is None or _waited.error is not None or _waited.loop.is_closed() or _waited.busy:
        return False
    _waited.error = error
    _waited.loop.call_soon_threadsafe(_waited.task.cancel)
    return True


@contextmanager
def long_step() -> Iterator[None]:
    """Mark work of many seconds in the event loop's own thread, which an error may interrupt."""
    here = _waited if threading.current_thread() is threading.main_thread() else None
    if here is None:
        yield
        return
    here.busy = True
    try:
        yield
    finally:
        here.busy = False


@dataclass
class _Waited:
    """Work that the main thread waits for, and the error that it was asked to end with."""

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Any]
    error: BaseException | None = None
    busy: bool = False


_waited: _Waited | None = None


def _here(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in this thread; in the main thread `end_waiting` can end it."""
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)

    async def whole() -> T:
        global _waited
        task = asyncio.current_task()
        assert task is not None
        _waited = _Waited(asyncio.get_running_loop(), task)
        return await work

    try:
        result = asyncio.run(whole())
    except BaseException as other:
        error = _forgotten()
        if error is None:
            raise
        raise error from (None if isinstance(other, asyncio.CancelledError) else other)
    finally:
        work.close()  # what ends before its first step is not warned of
    error = _forgotten()
    if error is not None:
        raise error
    return result


def _forgotten() -> BaseException | None:
    """Forget what was waited for; returns the error that it was asked to end with."""
    global _waited
    error = None if _waited is None else _waited.error
    _waited = None
    return error
