"""The same call works with and without a running event loop."""

from __future__ import annotations

import asyncio

import pytest

import agentic_r as ar
from agentic_r.testing import ScriptedLLM, TableRetriever
from agentic_r.waiting import wait


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
