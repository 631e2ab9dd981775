"""What judges have said, kept on disk by content: the same question is never asked twice.

One SQLite file, shared by runs and processes. An entry's key is a digest of everything that the
answer depends on, so an entry is never stale; a process that is killed leaves whole entries or
none. Only answers that could be read are kept: what failed is asked again by the next run.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec

from agentic_r.errors import DataError
from agentic_r.protocols import JudgeRequest
from agentic_r.types import Trajectory
from agentic_r.utility.prompting import close

T = TypeVar("T")

_TABLE = "create table if not exists said (key text primary key, value blob) without rowid"


class Store:
    """A file of (key, JSON value) that many processes may read and write at once.

    Raises DataError where the file is something else or cannot be used.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(
                self.path, timeout=60.0, isolation_level=None, check_same_thread=False
            )
            self._file.execute(_TABLE)
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def get(self, key: str, type: type[T]) -> T | None:
        """Return the value of a key, None where there is none."""
        try:
            row = self._file.execute("select value from said where key = ?", (key,)).fetchone()
            return None if row is None else msgspec.json.decode(row[0], type=type)
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise self._unusable(error) from error

    def put(self, key: str, value: Any) -> None:
        """Keep a value; it is on disk when this returns. The first value of a key stays."""
        raw = msgspec.json.encode(value)
        try:
            self._file.execute("insert or ignore into said values (?, ?)", (key, raw))
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def __len__(self) -> int:
        return int(self._file.execute("select count(*) from said").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unusable(self, error: Exception) -> DataError:
        return DataError(
            f"{self.path}: cannot be used as the cache of judges ({error}); name another file, or "
            'none: utility.cache = "off", or no cache= in Python'
        )


@runtime_checkable
class CacheableJudge(Protocol):
    """A judge that can say what its scores depend on."""

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Score each passage of the request."""
        ...

    async def asked(self, request: JudgeRequest) -> Any:
        """Return all that the scores depend on besides the passages, as plain values."""
        ...


class CacheableSubAnswers(Protocol):
    """A source of sub-answers that can say what they depend on."""

    async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
        """One short fact a search."""
        ...

    async def asked(self, trajectory: Trajectory) -> Any:
        """Return all that the sub-answers depend on, as plain values."""
        ...


class _Once:
    """Answers from the store, else asks; equal questions at the same time are asked once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: dict[str, asyncio.Task[Any]] = {}

    async def get(
        self, key: str, type: type[T], make: Callable[[], Awaitable[tuple[T, bool]]]
    ) -> T:
        """Return the value of `key`; `make` gives a value and whether it may be kept."""
        known = self._store.get(key, type)
        if known is not None:
            return known
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.ensure_future(self._make(key, make))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        value: T = await asyncio.shield(task)
        return value

    async def _make(self, key: str, make: Callable[[], Awaitable[tuple[T, bool]]]) -> T:
        value, whole = await make()
        if whole:
            self._store.put(key, value)
        return value


class CachedJudge:
    """A judge that asks each (query, set of passages, reference) once, ever.

    The order of the passages does not count: they are judged in the order of the first request.
    """

    def __init__(self, judge: CacheableJudge, store: Store) -> None:
        self.judge = judge
        self._once = _Once(store)

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Score each passage of the request. Raises LLMError as the judge does."""
        if not request.passages:
            return []
        names = [_digest(text) for text in request.passages]
        key = _digest(["relevance", await self.judge.asked(request), sorted(set(names))])

        async def make() -> tuple[dict[str, float | None], bool]:
            scores = await self.judge.relevance(request)
            return dict(zip(names, scores, strict=True)), None not in scores

        known = await self._once.get(key, dict[str, float | None], make)
        return [known[name] for name in names]

    async def aclose(self) -> None:
        """Close the judge's connections."""
        await close(self.judge)


class CachedSubAnswers:
    """A source of sub-answers that asks about each trajectory once, ever."""

    def __init__(self, source: CacheableSubAnswers, store: Store) -> None:
        self.source = source
        self._once = _Once(store)

    async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
        """Return one sub-answer a search. Raises LLMError as the source does."""
        if not trajectory.searches:
            return []
        key = _digest(["sub-answers", await self.source.asked(trajectory)])

        async def make() -> tuple[list[str | None], bool]:
            return await self.source.subanswers(trajectory), True

        return await self._once.get(key, list[str | None], make)

    async def aclose(self) -> None:
        """Close the source's connections."""
        await close(self.source)


def _digest(value: Any) -> str:
    raw = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
    return hashlib.sha256(raw).hexdigest()
