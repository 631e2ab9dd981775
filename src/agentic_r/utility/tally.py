"""Counting what is asked of language models, on behalf of whoever caused the question."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar

_TALLY: ContextVar[Counter[str] | None] = ContextVar("tally", default=None)


def tallied() -> Counter[str]:
    """Start a count for the task that calls this and the tasks that it starts; returns it."""
    counter: Counter[str] = Counter()
    _TALLY.set(counter)
    return counter


def count(kind: str) -> None:
    """Count one call of a kind, "judge" or "subanswers", for the task that runs."""
    counter = _TALLY.get()
    if counter is not None:
        counter[kind] += 1
