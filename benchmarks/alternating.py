"""Does training agent and retriever in turns beat training one of them? Held-out EM by arm.

    python benchmarks/alternating.py [--runs FOLDER] [--seeds 0 1 2] [--start FOLDER | tiny]
                                     [--steps 30] [--iterations 2] [--SETTING VALUE ...]

Every seed has a world of its own. The agent is under-trained (the warm start of agent_rl.py, made
where it is missing), so that both learners have something to learn:

    neither         that agent with the untouched retriever
    retriever       the quickstart's loop of 2 iterations, the agent fixed
    agent           GRPO for 2 x 30 steps of 64 trajectories with the untouched retriever
    both            a fork of that loop which trains the agent for 30 steps in each iteration

A learner has the same budget wherever it learns, so `both` spends what the other two spend
together; the seconds say how much that is. Test questions are compared in pairs, pooled over the
seeds, whole root entities resampled. What each agent does with the untouched retriever and with
oracle retrieval tells its share of a gain from the retriever's. Run again, it resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from program import arguments, do, records

from agentic_r.errors import AgenticRError
from agentic_r.evaluation.benchmark import Record
from agentic_r.evaluation.compare import compare
from agentic_r.steps import stage_seconds

SHARED = ("--evaluation.ks", "[1]", "--evaluation.bm25", "false")
GRPO = {
    "method": "grpo",
    "rl.questions": "8",
    "rl.samples": "8",
    "rl.learning_rate": "1e-4",
    "rl.validate_questions": "120",
}
"""What is known to raise this agent's EM in 20 steps (docs/log.md)."""

GRID = {
    "evaluation.agents": '[{label = "trained"}]',
    "evaluation.retrievers": '[{label = "untouched"}, '
    '{label = "oracle", kind = "oracle", input = "question+query"}]',
}
UNTOUCHED = "untouched-question-reasoning-query-k-1"
"""The row of the untouched retriever that is sent what the trained one is sent."""

ARMS = ("neither", "retriever", "agent", "both")


class Measured(msgspec.Struct):
    """One arm on one seed: its test records, and those of the same agent with other passages."""

    test: list[Record]
    untouched: list[Record]
    oracle: list[Record]
    seconds: float


def settings(given: dict[str, str], prefix: str = "") -> list[str]:
    """Write settings as words of a command line."""
    return [word for key, value in given.items() for word in (f"--{prefix}{key}", value)]


def run(options: argparse.Namespace, seed: int, rest: Sequence[str]) -> dict[str, Measured]:
    """Run the arms of a seed, or take what is there. Raises DataError where the program fails."""
    base, rounds = f"alternating-{seed}", options.iterations
    agent, both, measured = (f"{base}-{name}" for name in ("agent", "both", "agent-measured"))
    runs = Path(options.runs)
    trained = runs / agent / "iteration-1" / "agent" / "model"
    common = [*SHARED, "--runs", str(runs), "--seed", str(seed), "--loop.iterations", str(rounds)]
    loop = [*common, "--agent.model", options.start, *rest]

    def steps(count: int) -> list[str]:
        return settings({**GRPO, "rl.steps": str(count)}, "agent.train.")

    do("loop", "--name", base, *loop)
    do("loop", "--name", base, "--fork", both, *steps(options.steps), *loop)
    do("train", "agent", "--name", agent, *steps(rounds * options.steps), *loop)
    opened = [*common, *rest, "--agent.model", str(trained)]
    do("evaluate", "--name", measured, *settings(GRID), *opened)

    last = f"iteration-{rounds}-k-1"
    cells = runs / measured / "grid" / "trained"
    fixed = rows(runs / base / "evaluation", last, seed, spent(runs / base))
    turns = rows(runs / both / "evaluation", last, seed, spent(runs / both))
    alone = Measured(
        records(cells / "untouched" / "test", seed),
        records(cells / "untouched" / "test", seed),
        records(cells / "oracle" / "test", seed),
        spent(runs / agent),
    )
    neither = Measured(fixed.untouched, fixed.untouched, fixed.oracle, 0.0)
    return {"neither": neither, "retriever": fixed, "agent": alone, "both": turns}


def rows(folder: Path, last: str, seed: int, seconds: float) -> Measured:
    """Read what a loop measured: its last iteration, and its last agent with other passages."""
    return Measured(
        records(folder / last, seed),
        records(folder / UNTOUCHED, seed),
        records(folder / "oracle-k-1", seed),
        seconds,
    )


def spent(run: Path) -> float:
    """Add up the seconds of what a run learned and labelled, its evaluation apart."""
    found = stage_seconds(run)
    return sum(seconds for name, seconds in found.items() if name.startswith("iteration-"))


def em(records: Sequence[Record]) -> float:
    """Return the mean exact match."""
    return sum(record.em for record in records) / len(records)


def lines(found: Sequence[dict[str, Measured]]) -> list[str]:
    """Lay out a row for each arm, and what both together gain over each arm."""
    gain = f"{'over neither, 95 %':<22} {'both over it, 95 %':<22}"
    heads = f"{'test EM (by seed)':<28} {gain}"
    table = [f"{'trained':<11} {heads} untouched  oracle  searches  seconds"]
    for arm in ARMS:
        sides = [each[arm] for each in found]
        by_seed = " ".join(f"{em(side.test):.3f}" for side in sides)
        pooled = [record for side in sides for record in side.test]
        cells = [f"{em(pooled):.3f} ({by_seed})"]
        cells += [difference(found, "neither", arm), difference(found, arm, "both")]
        other = [
            em([record for side in sides for record in getattr(side, name)])
            for name in ("untouched", "oracle")
        ]
        searches = sum(record.searches for record in pooled) / len(pooled)
        seconds = sum(side.seconds for side in sides) / len(sides)
        table.append(
            f"{arm:<11} {cells[0]:<28} {cells[1]:<22} {cells[2]:<22} "
            f"{other[0]:>9.3f} {other[1]:>7.3f} {searches:>9.2f} {seconds:>8.0f}"
        )
    return table


def difference(found: Sequence[dict[str, Measured]], before: str, after: str) -> str:
    """Write how many points one arm is above another, with the interval; nothing for itself."""
    if before == after:
        return ""
    first, second = ([r for each in found for r in each[arm].test] for arm in (before, after))
    gain = compare(first, second, samples=10_000)
    return f"{100 * gain.difference:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def started(start: str) -> str:
    """Return the model to start from: the one named, else the warm start, made if missing."""
    if start:
        return start
    from agent_rl import warm

    return str(warm(Path("build/agent-rl/warm")))


def main(given: Sequence[str] | None = None) -> int:
    """Run what is not done, then print the table; returns the exit code."""
    parser = arguments(__doc__)
    parser.add_argument("--start", default="", help="agent to start from; none: the warm start")
    parser.add_argument("--steps", type=int, default=30, help="of GRPO in an iteration")
    parser.add_argument("--iterations", type=int, default=2)
    options, rest = parser.parse_known_args(given)
    options.start = started(options.start)
    try:
        found = [run(options, seed, rest) for seed in options.seeds]
    except AgenticRError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("\n" + "\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
