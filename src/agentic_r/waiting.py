"""Asynchronous work from code that is not: in scripts, and in notebooks with their own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
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
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()
