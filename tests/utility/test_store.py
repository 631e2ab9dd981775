from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentic_r.errors import DataError, LLMError
from agentic_r.protocols import JudgeRequest
from agentic_r.types import Question, Search, Trajectory, Turn
from agentic_r.utility.store import CachedJudge, CachedSubAnswers, Store

WRITER = """
import sys
from agentic_r.utility.store import Store
store, n = Store(sys.argv[1]), 0
while True:
    store.put(f"k{n}", {"value": n, "more": "x" * 2000})
    print(n, flush=True)
    n += 1
"""


def request(*passages: str, query: str = "q", subanswer: str | None = "s") -> JudgeRequest:
    return JudgeRequest("Q", ("a",), query, subanswer, "<think>", passages)


class Lengths:
    """Scores a passage by its length, after a moment; counts what it is asked."""

    def __init__(self, unread: Sequence[str] = ()) -> None:
        self.unread = unread
        self.calls = 0

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        self.calls += 1
        await asyncio.sleep(0)
        if "fail" in request.passages:
            raise LLMError("refused")
        return [None if text in self.unread else float(len(text)) for text in request.passages]

    async def asked(self, request: JudgeRequest) -> Any:
        return ["lengths", request.query, request.subanswer]

    async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
        self.calls += 1
        return [None, "x"]


def test_the_same_query_and_passages_are_judged_once_ever(tmp_path: Path) -> None:
    judge = Lengths()
    cached = CachedJudge(judge, Store(tmp_path / "new" / "c.sqlite"))

    async def several() -> list[list[float | None]]:
        same = (cached.relevance(request("a", "bb", "a")) for _ in range(5))
        return list(await asyncio.gather(*same))

    assert asyncio.run(several()) == [[1.0, 2.0, 1.0]] * 5
    assert judge.calls == 1
    again = CachedJudge(judge, Store(tmp_path / "new" / "c.sqlite"))
    assert asyncio.run(again.relevance(request("bb", "a"))) == [2.0, 1.0], "in any order"
    assert judge.calls == 1
    for other in (request("a"), request("a", "bb", query="r"), request("a", "bb", subanswer="t")):
        asyncio.run(again.relevance(other))
    assert judge.calls == 4
    assert asyncio.run(again.relevance(request())) == []
    assert judge.calls == 4


def test_what_could_not_be_read_is_asked_again_another_time(tmp_path: Path) -> None:
    judge, store = Lengths(unread=("bb",)), Store(tmp_path / "c.sqlite")
    cached = CachedJudge(judge, store)
    assert asyncio.run(cached.relevance(request("a", "bb"))) == [1.0, None]
    judge.unread = ()
    assert asyncio.run(cached.relevance(request("a", "bb"))) == [1.0, 2.0]
    for _ in range(2):
        with pytest.raises(LLMError, match="refused"):
            asyncio.run(cached.relevance(request("fail")))
    assert (judge.calls, len(store)) == (4, 1)


def test_sub_answers_are_asked_once_and_none_for_no_search(tmp_path: Path) -> None:
    class Source(Lengths):
        async def asked(self, trajectory: Any) -> Any:
            return [search.query for search in trajectory.searches]

    source = Source()
    cached = CachedSubAnswers(source, Store(tmp_path / "c.sqlite"))
    turn = Turn("", "search", (Search("a", "a"), Search("b", "b")))
    trajectory = Trajectory("t", Question("q", "Q", ("a",)), (turn,))
    for _ in range(3):
        assert asyncio.run(cached.subanswers(trajectory)) == [None, "x"]
    assert asyncio.run(cached.subanswers(Trajectory("u", trajectory.question))) == []
    assert source.calls == 1


def test_a_kill_leaves_whole_entries_and_all_that_were_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    for _ in range(3):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(25)]
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
        writer.stdout.close()
        writer.wait()
        store = Store(path)
        last = int([line for line in [*said, *rest] if line.strip()][-1])
        assert last >= 24
        assert len(store) in (last + 1, last + 2)
        for n in range(len(store)):
            assert store.get(f"k{n}", dict[str, Any]) == {"value": n, "more": "x" * 2000}
        store.put("after", 1)
        store.close()


def test_two_processes_may_write_at_once_and_the_first_value_stays(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "c.sqlite"), Store(tmp_path / "c.sqlite")
    one.put("k", 1)
    two.put("k", 2)
    two.put("l", 3)
    assert (one.get("k", int), one.get("l", int), one.get("m", int)) == (1, 3, None)


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_text("not a cache at all, but text " * 40)
    with pytest.raises(DataError, match=r"cannot be used as the cache .* utility\.cache = "):
        Store(path)
    with pytest.raises(DataError, match="cannot be used"):
        Store(tmp_path)
    store = Store(tmp_path / "d.sqlite")
    store.put("k", "text")
    with pytest.raises(DataError, match="cannot be used"):
        store.get("k", int)
