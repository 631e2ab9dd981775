"""What the rollout engine costs, and what not waiting for the slowest brings.

    python benchmarks/rollout_engine.py [--starts 400] [--rounds 3]

Claims: at least 5,000 turns a second on one core with a model and a retriever that answer at once;
at least 2.5 times the trajectories per second of a loop in lock-step (every turn of a batch waits
for its slowest) on the same simulated server, whose latency has a long tail and whose slots are
bounded. Ways take turns in one run; processor seconds are right on a busy machine too.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time

from agentic_r.agent.dialects import SearchR1
from agentic_r.agent.engine import OnRows
from agentic_r.agent.rollout import rollout
from agentic_r.protocols import Completion, Prompt, Sampling
from agentic_r.testing import TableRetriever
from agentic_r.types import Passage, Question, Trajectory

SPOKEN = SearchR1("Question: {question}\n")
PASSAGES = [Passage(str(n), f"{n} " + "word " * 60, f"title {n}") for n in range(3)]
SLOTS = 32
"""Requests that the simulated server works on at once."""


class Instant:
    """A model that searches three times and answers, without taking time."""

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Write the next turn."""
        assert isinstance(prompt, str)
        searched = prompt.count("<information>")
        if searched >= 3:
            return Completion("<think> so </think> <answer> x </answer>", "stop", stop="</answer>")
        asked = prompt[10:24].split("\n")[0]
        text = f"<think> hm </think> <search> {asked} {searched} </search>"
        return Completion(text, "stop", stop="</search>")


class Simulated(Instant):
    """The same behind a server: lognormal latency with a long tail, a bounded number at once."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.slots = asyncio.Semaphore(SLOTS)

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Wait as a request would and write the next turn."""
        async with self.slots:
            await asyncio.sleep(0.02 * self.random.lognormvariate(0.0, 1.2))
        return await super().complete(prompt, sampling)


def starts(count: int) -> list[Trajectory]:
    """Return unanswered questions."""
    return [Trajectory(str(n), Question(str(n), f"question {n}", ("x",))) for n in range(count)]


async def engine(
    llm: Instant, some: list[Trajectory], window: int, on_rows: OnRows | None = None
) -> list[Trajectory]:
    """Roll out with the engine."""
    return await rollout(
        llm,
        TableRetriever({}, default=PASSAGES),
        some,
        SPOKEN,
        k=3,
        form="query",
        turns=6,
        sampling=Sampling(),
        window=window,
        on_rows=on_rows,
    )


async def lock_step(llm: Instant, some: list[Trajectory], batch: int) -> list[Trajectory]:
    """Roll out `batch` at a time, every turn of all of them before the next turn of any."""
    done: list[Trajectory] = []
    for first in range(0, len(some), batch):
        rows = some[first : first + batch]
        for turn in range(1, 7):
            rows = [Trajectory(r.id, r.question, r.turns, r.stop) for r in rows]
            step = [
                rollout(
                    llm,
                    TableRetriever({}, default=PASSAGES),
                    [row],
                    SPOKEN,
                    k=3,
                    form="query",
                    turns=turn,
                    sampling=Sampling(),
                )
                for row in rows
            ]
            rows = [
                end if end.stop != "budget" else Trajectory(end.id, end.question, end.turns)
                for [end] in await asyncio.gather(*step)
            ]
        done += rows
    return done


def overhead(count: int, rounds: int) -> None:
    """Print turns per processor second with everything else instant."""
    found = []
    for _ in range(rounds + 1):
        used = time.process_time()
        ends = asyncio.run(engine(Instant(), starts(count), 64, lambda rows: None))
        used = time.process_time() - used
        found.append(sum(len(end.turns) for end in ends) / used)
    print(f"engine, instant model and retriever: {statistics.median(found[1:]):,.0f} turns/CPU-s")


def tail(count: int, rounds: int) -> None:
    """Print trajectories per second of both ways and their ratio."""
    rates: dict[str, list[float]] = {"lock-step": [], "engine": []}
    for turn in range(rounds):
        for name in rates:
            llm = Simulated(turn)
            began = time.perf_counter()
            if name == "engine":
                ends = asyncio.run(engine(llm, starts(count), 2 * SLOTS))
            else:
                ends = asyncio.run(lock_step(llm, starts(count), 2 * SLOTS))
            rates[name].append(count / (time.perf_counter() - began))
            assert {end.stop for end in ends} == {"answered"}
    lock, fast = (statistics.median(rates[name]) for name in ("lock-step", "engine"))
    print(f"lock-step {lock:.1f} trajectories/s, engine {fast:.1f}: {fast / lock:.2f} times")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--starts", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    overhead(1000, options.rounds)
    tail(options.starts, options.rounds)


if __name__ == "__main__":
    main()
