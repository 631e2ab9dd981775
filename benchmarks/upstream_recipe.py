"""Is our recipe better than upstream's, for the agent that labelled and for a foreign one?

    python benchmarks/upstream_recipe.py [--runs FOLDER] [--seeds 0 1 2] [--foreign FOLDER]
                                         [--reasoning] [--SETTING VALUE ...]

Two recipes in the quickstart's world, two iterations each, with the same questions, candidates and
agent, so that the same number of searches may be labelled:

    ours       configs/quickstart.toml
    upstream   question and query as input (with --reasoning ours, to tell the input's part from the
               rest's), no searches of continuations, 15 negatives a query, InfoNCE at
               temperature .01; learning rate, batch and epochs are those of 18 trials with
               the best dev EM after one iteration on seed 9, which is not reported on

Then an agent that took no part (another seed, the R1-Searcher protocol, made in a quarter of an
hour where --foreign has none) answers the test questions with both retrievers. Test questions are
compared in pairs, pooled over the seeds, whole root entities resampled. Run again, it resumes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lessons import ONE_HOP, THREE_HOPS, Leg, taught
from program import arguments, do, records

from agentic_r.errors import AgenticRError
from agentic_r.evaluation.benchmark import Record
from agentic_r.evaluation.compare import compare

SHARED = ("--evaluation.ks", "[1]", "--evaluation.bm25", "false")
TUNED_ON = 9
UPSTREAM = (
    *("--retriever.train.recipe", "upstream"),
    *("--retriever.train.temperature", "0.01"),
    *("--retriever.train.negatives", "15"),
    *("--utility.rule", "upstream"),
    *("--utility.continued_searches", "false"),
)


def tried(rate: str, batch: str, epochs: str) -> tuple[str, ...]:
    """Return the settings of one trial."""
    return (
        *("--retriever.train.learning_rate", rate),
        *("--retriever.train.batch", batch),
        *("--retriever.train.epochs", epochs),
    )


TRIALS = {
    f"{rate}-{batch}-{epochs}": tried(rate, batch, epochs)
    for rate in ("1e-4", "2e-4", "4e-4")
    for batch in ("16", "32")
    for epochs in ("1", "2", "4")
}
"""What is tried of learning rate, batch and epochs: about as many as of ours (docs/log.md)."""

LEGS = (Leg(ONE_HOP, 900, 2e-3), Leg(THREE_HOPS, 200, 2e-3), Leg(THREE_HOPS, 900, 1e-3, 0.4))
"""How the foreign agent is made."""

OURS = "question+reasoning+query"


class Upstream(NamedTuple):
    """What the runs of upstream's recipe are called, and their input."""

    name: str
    form: str


PLAIN, REASONED = Upstream("upstream", "question+query"), Upstream("reasoned", OURS)
SIDES = ("untouched", "upstream", "ours")


def foreign(folder: Path) -> Path:
    """Make the foreign agent in `folder` where it is missing; returns the model's folder."""
    return taught(folder, LEGS, "--seed", "1", "--dialect", "r1-searcher")


def tuned(runs: str, upstream: Upstream, rest: Sequence[str]) -> str:
    """Return the trial with the best dev EM, the first of equals.

    All but the first are forks of it, so that rollouts and labels are made once.
    """
    found: dict[str, float] = {}
    names = {trial: f"{upstream.name}-trial-{trial}" for trial in TRIALS}
    first, *_ = names.values()
    shared = (*SHARED, "--runs", runs, "--seed", str(TUNED_ON), "--loop.iterations", "1")
    shared = (*shared, "--name", first, "--retriever.input", upstream.form, *UPSTREAM)
    for trial, name in names.items():
        fork = ("--fork", name) if found else ()
        do("evaluate", "--split", "dev", *shared, *TRIALS[trial], *rest, *fork)
        dev = records(Path(runs) / name / "dev" / "iteration-1-k-1", TUNED_ON)
        found[trial] = sum(each.em for each in dev) / len(dev)
    print("\nupstream's recipe, dev EM on seed 9: " + str(found), flush=True)
    return max(found, key=lambda trial: found[trial])


def measured(
    runs: str,
    seed: int,
    trial: str,
    upstream: Upstream,
    agent: Path,
    rest: Sequence[str],
) -> dict[str, dict[str, list[Record]]]:
    """Return the test records of both agents with each retriever: {agent: {side: records}}."""
    shared = (*SHARED, "--runs", runs, "--seed", str(seed), *rest)
    names = {"ours": f"ours-{seed}", "upstream": f"{upstream.name}-{seed}"}
    do("loop", "--name", names["ours"], *shared)
    told = (*shared, "--retriever.input", upstream.form, *UPSTREAM, *TRIALS[trial])
    do("loop", "--name", names["upstream"], *told)
    own = {
        side: records(Path(runs) / name / "evaluation" / "iteration-2-k-1", seed)
        for side, name in names.items()
    }
    own["untouched"] = records(
        Path(runs) / names["ours"] / "evaluation" / "untouched-question-query-k-1", seed
    )
    forms = {"ours": OURS, "upstream": upstream.form}
    retrievers = [
        {
            "label": side,
            "base": str(Path(runs) / name / "iteration-2" / "retriever" / "model"),
            "input": forms[side],
        }
        for side, name in names.items()
    ]
    retrievers.append({"label": "untouched", "input": "question+query"})
    grid = {
        "agents": [{"label": "foreign", "model": str(agent), "dialect": "r1-searcher"}],
        "retrievers": retrievers,
    }
    words = [word for key, value in grid.items() for word in (f"--evaluation.{key}", toml(value))]
    name = f"foreign-{seed}" if upstream.name == "upstream" else f"foreign-{upstream.name}-{seed}"
    do("evaluate", "--name", name, *shared, *words)
    cells = Path(runs) / name / "grid" / "foreign"
    return {
        "own": own,
        "foreign": {side: records(cells / side / "test", seed) for side in SIDES},
    }


def toml(tables: Sequence[dict[str, str]]) -> str:
    """Write tables of strings as TOML on one line."""
    rows = (", ".join(f'{key} = "{value}"' for key, value in table.items()) for table in tables)
    return "[" + ", ".join(f"{{{row}}}" for row in rows) + "]"


def lines(found: Sequence[dict[str, dict[str, list[Record]]]]) -> list[str]:
    """Lay out EM by agent and retriever, and what ours gains over each of the others."""
    table = [f"{'agent':<8} {'retriever':<10} {'test EM (by seed)':<28} ours over it, 95 %"]
    for agent in ("own", "foreign"):
        pooled = {side: [r for each in found for r in each[agent][side]] for side in SIDES}
        for side in SIDES:
            means = [sum(r.em for r in e[agent][side]) / len(e[agent][side]) for e in found]
            cell = f"{sum(means) / len(means):.3f} ({' '.join(f'{mean:.3f}' for mean in means)})"
            gain = ""
            if side != "ours":
                by = compare(pooled[side], pooled["ours"], samples=10_000)
                low, high = 100 * by.low, 100 * by.high
                gain = f"{100 * by.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
            table.append(f"{agent:<8} {side:<10} {cell:<28} {gain}".rstrip())
    return table


def main(given: Sequence[str] | None = None) -> int:
    """Run what is not done, then print the table; returns the exit code."""
    parser = arguments(__doc__)
    parser.add_argument("--foreign", type=Path, default=Path("build/foreign-agent"))
    parser.add_argument("--reasoning", action="store_true", help="give upstream's ours as input")
    parser.add_argument("--trial", choices=TRIALS, help="take this one instead of trying all")
    options, rest = parser.parse_known_args(given)
    upstream = REASONED if options.reasoning else PLAIN
    try:
        trial = options.trial or tuned(options.runs, upstream, rest)
        agent = foreign(options.foreign)
        found = [
            measured(options.runs, seed, trial, upstream, agent, rest) for seed in options.seeds
        ]
    except AgenticRError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"\nupstream's recipe is trained as in trial {trial}")
    print("\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
