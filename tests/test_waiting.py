"""The same call works with and without a running event loop."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import anyio
import pytest

import agentic_r as ar
from agentic_r.testing import ScriptedLLM, TableRetriever
from agentic_r.waiting import end_waiting, long_step, wait


async def double(value: int) -> int:
    await asyncio.sleep(0)
    if value < 0:
        raise ValueError(f"got {value}")
    return 2 * value


def test_without_a_loop() -> None:
    assert wait(double(3)) == 6


def test_inside_a_loop_as_in_a_notebook() -> None:
    async def cell() -> int:
        return wait(double(3))

    assert asyncio.run(cell()) == 6


def test_errors_are_raised_in_both() -> None:
    async def cell() -> int:
        return wait(double(-1))

    for run in (lambda: wait(double(-1)), lambda: asyncio.run(cell())):
        with pytest.raises(ValueError, match="got -1"):
            run()


def test_an_agent_runs_in_a_notebook() -> None:
    agent = ar.SearchAgent(ScriptedLLM(lambda _: "<answer> Ulm </answer>"), TableRetriever({}))

    async def cell() -> list[ar.Trajectory]:
        return agent.run([ar.Question("q", "Where?", ("Ulm",))])

    assert asyncio.run(cell())[0].answer == "Ulm"


class Stop(BaseException):
    """What a test ends the work with."""


@pytest.fixture
def stopping() -> Iterator[None]:
    """SIGTERM ends what is waited for, as the command line has it."""

    def end(*_: object) -> None:
        if not end_waiting(Stop()):
            raise Stop

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("stopping")
def test_work_that_is_ended_leaves_its_blocks() -> None:
    left = []

    async def whole() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            left.append("left")

    async def sends() -> None:
        signal.raise_signal(signal.SIGTERM)
        await whole()

    with pytest.raises(Stop):
        wait(sends())
    assert left == ["left"]
    with pytest.raises(Stop):  # nothing is waited for
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("stopping")
def test_ended_twice_it_ends_at_once() -> None:
    async def stubborn() -> None:
        signal.raise_signal(signal.SIGTERM)
        try:
            await asyncio.sleep(60)
        finally:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(60)

    with pytest.raises(Stop):
        wait(stubborn())


@pytest.mark.usefixtures("stopping")
def test_work_that_fails_when_it_is_ended_ends_all_the_same() -> None:
    async def fails() -> None:
        signal.raise_signal(signal.SIGTERM)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("the server is gone") from None

    with pytest.raises(Stop) as stopped:
        wait(fails())
    assert isinstance(stopped.value.__cause__, ValueError)


@pytest.mark.usefixtures("stopping")
def test_a_long_step_is_not_waited_for() -> None:
    async def decodes() -> None:
        with long_step():
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("the step went on")

    with pytest.raises(Stop):
        wait(decodes())


@pytest.mark.usefixtures("stopping")
def test_asked_to_end_when_it_is_done_it_ends() -> None:
    async def done() -> int:
        signal.raise_signal(signal.SIGTERM)
        return 3

    with pytest.raises(Stop):
        wait(done())
    assert wait(double(3)) == 6


@pytest.mark.usefixtures("stopping")
@pytest.mark.parametrize("place", ["__enter__", "__exit__"])
def test_a_signal_inside_a_timeout_breaks_nothing(place: str) -> None:
    """At whatever line of a timeout's own code it comes in; raised there it can leave the timeout
    entered, and the loop may turn for ever.

    A second signal ends what turns for ever, so that this fails and does not hang.
    """

    async def scope() -> type[anyio.CancelScope]:
        return type(anyio.CancelScope())

    code = getattr(wait(scope()), place).__code__

    async def one() -> None:
        while True:
            with anyio.fail_after(60), anyio.CancelScope():
                await asyncio.sleep(0)

    async def many() -> None:
        await asyncio.gather(*(one() for _ in range(4)))

    ident = threading.get_ident()
    for line in range(20):
        left = [line]

        def traced(frame: FrameType, event: str, _: object, left: list[int] = left) -> Any:
            if frame.f_code is code and event == "line":
                left[0] -= 1
                if left[0] == -1:
                    signal.raise_signal(signal.SIGTERM)
            return traced if frame.f_code is code else None

        again = threading.Timer(5, signal.pthread_kill, (ident, signal.SIGTERM))
        again.start()
        sys.settrace(traced)
        try:
            with pytest.raises(Stop):
                wait(many())
        finally:
            sys.settrace(None)
            in_time = again.is_alive()
            again.cancel()
        assert in_time, f"line {line} of {place}: the loop turned until it was ended"
