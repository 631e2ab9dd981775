"""Many trajectories at once: windows, ends as they come, failures held back, cancelling."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.agent.engine import Ends, side_by_side
from agentic_r.errors import LLMError
from agentic_r.types import Question, Stop, Trajectory


def start(name: int, stop: Stop | None = None) -> Trajectory:
    return Trajectory(str(name), Question(str(name), "q", ("x",)), stop=stop, error=stop or "")


def ended(name: int, stop: Stop = "answered") -> tuple[Trajectory, Trajectory]:
    return start(name), start(name, stop)


def test_no_more_than_the_window_are_under_way_and_a_slow_one_holds_up_none() -> None:
    under_way = most = 0
    rows: list[str] = []

    async def carry(one: Trajectory) -> Trajectory:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.3 if one.id == "0" else 0.001)
        under_way -= 1
        return msgspec.structs.replace(one, stop="answered")

    starts = [start(n) for n in range(20)]
    ends = asyncio.run(
        side_by_side(carry, starts, window=3, on_rows=lambda new: rows.extend(t.id for t in new))
    )
    assert most == 3
    assert [end.id for end in ends] == [str(n) for n in range(20)]
    assert rows[-1] == "0"  # the slow first one ended last, and 19 were handed out before
    assert sorted(rows) == sorted(end.id for end in ends)


def test_what_ended_before_an_exception_or_ctrl_c_is_handed_out() -> None:
    rows: list[str] = []

    async def carry(one: Trajectory) -> Trajectory:
        if one.id == "3":
            raise KeyError("broken")
        return msgspec.structs.replace(one, stop="answered")

    async def main() -> None:
        await side_by_side(
            carry, [start(n) for n in range(6)], on_rows=lambda new: rows.extend(t.id for t in new)
        )

    with pytest.raises(KeyError, match="broken"):
        asyncio.run(main())
    assert {"0", "1", "2"} <= set(rows)

    async def forever(one: Trajectory) -> Trajectory:
        if one.id != "0":
            await asyncio.sleep(60)
        return msgspec.structs.replace(one, stop="answered")

    async def stopped() -> None:
        task = asyncio.ensure_future(
            side_by_side(
                forever, [start(n) for n in range(4)], on_rows=lambda new: rows.append(new[0].id)
            )
        )
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    rows.clear()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(stopped())
    assert rows == ["0"]


def test_failures_are_held_back_until_something_succeeds() -> None:
    out: list[str] = []
    ends = Ends(lambda rows: out.extend(t.id for t in rows), limit=3)
    ends.add([ended(0), ended(1, "error")])
    assert out == ["0"]
    ends.add([ended(2, "error")])
    ends.add([ended(3, "budget")])
    assert out == ["0", "1", "2", "3"]
    ends.add([ended(4, "error")])
    ends.close()
    assert out[-1] == "4"


def test_failures_in_a_row_are_a_model_that_is_down_and_are_not_handed_out() -> None:
    out: list[str] = []
    ends = Ends(lambda rows: out.extend(t.id for t in rows), limit=3)
    ends.add([ended(0), ended(1, "error"), ended(2, "error")])
    with pytest.raises(LLMError, match="3 trajectories in a row failed; the first: error"):
        ends.add([ended(3, "error")])
    assert out == ["0"]
    few = Ends(None, limit=9)
    few.add([ended(0, "error"), ended(1, "error")])
    with pytest.raises(LLMError, match="all 2 trajectories failed"):
        few.close()
    alone = Ends(lambda rows: out.extend(t.id for t in rows), limit=9)
    alone.add([ended(7, "error")])
    alone.close()
    assert out == ["0", "7"]


@given(st.lists(st.sampled_from(["answered", "error", "context"]), max_size=30), st.integers(1, 5))
def test_every_end_is_handed_out_once_or_the_model_is_called_down(
    stops: list[Stop], size: int
) -> None:
    out: list[str] = []
    ends = Ends(lambda rows: out.extend(t.id for t in rows), limit=4)
    try:
        for first in range(0, len(stops), size):
            ends.add([ended(first + n, stop) for n, stop in enumerate(stops[first : first + size])])
        ends.close()
    except LLMError:
        row = "".join("e" if stop == "error" else "." for stop in stops)
        assert "eeee" in row or set(row) == {"e"}
    else:
        assert out == [str(n) for n in range(len(stops))]
    assert len(set(out)) == len(out)
