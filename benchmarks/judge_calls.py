"""How many calls of a judge's language model labelling takes, against what upstream would make.

    python benchmarks/judge_calls.py [--runs FOLDER] [--SETTING VALUE ...]

Labels the first iteration of configs/quickstart.toml with relevance and sub-answers asked of a
server over HTTP, then the same in a second run that shares the first one's cache. The server of the
tests grades by a rule: what is measured is how often it is asked. Baseline: two calls a search for
relevance (10 passages each) and one a trajectory for sub-answers, whether it searched or not
(contracts B3, B4). The bound: one call for each distinct query, reference and candidates, and one
for each trajectory that searched. A run that is there already is counted as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from program import CONFIG, arguments, do

from agentic_r.cli.settings import overrides
from agentic_r.config import load_config
from agentic_r.errors import AgenticRError
from agentic_r.io import read_jsonl
from agentic_r.testing.server import serving
from agentic_r.types import Trajectory
from agentic_r.utility.label import rule_of
from agentic_r.utility.labelled import Labelled, collect
from agentic_r.utility.select import Rule, by_search

SETTINGS = ("--data.sub_answers", "judge", "--utility.judge_name", "tiny-agent")


def distinct(rows: Sequence[Labelled], queries: dict[tuple[str, str, int], str]) -> int:
    """Count the different things that the judge could be asked for relevance."""
    found = set()
    for row in rows:
        known = {(each.trajectory_id, each.search): each.text for each in row.subanswers}
        for (trajectory, search), utilities in by_search(row.utilities):
            query = queries[row.dataset, trajectory, search]
            texts = frozenset(each.content for each in utilities)
            found.add((query, known.get((trajectory, search)), texts))
    return len(found)


def counted(folder: Path, rule: Rule) -> list[str]:
    """Lay out what the labelling in an iteration's folder asked for; `rule` is the run's."""
    rolled = read_jsonl(folder / "rollouts" / "trajectories.jsonl", Trajectory)
    rows = read_jsonl(folder / "labels" / "labels.jsonl", Labelled)
    trajectories = [*rolled, *(each for row in rows for each in row.derived)]
    queries = {
        (each.question.dataset, each.id, number): search.query
        for each in trajectories
        for number, search in enumerate(each.searches)
    }
    searched = {(row.dataset, u.trajectory_id) for row in rows for u in row.utilities}
    costs = collect(rows, rule=rule).costs
    upstream = 2 * costs.searches + len(trajectories)
    return [
        *costs.lines(),
        f"relevance: {costs.judge_calls:,} calls, bound {distinct(rows, queries):,}, "
        f"upstream {2 * costs.searches:,}",
        f"sub-answers: {costs.subanswer_calls:,} calls, bound {len(searched):,}, "
        f"upstream {len(trajectories):,}",
        f"calls in all, as a share of upstream's: "
        f"{(costs.judge_calls + costs.subanswer_calls) / upstream:.2f}",
    ]


def main(given: Sequence[str] | None = None) -> int:
    """Label twice, then print both counts; returns the exit code."""
    options, rest = arguments(__doc__, seeds=False).parse_known_args(given)
    names = ("judge-calls", "judge-calls-again")
    try:
        with serving("tiny") as url:
            asked = ("--utility.judge", url, *SETTINGS, "--runs", options.runs, *rest)
            for name in names:
                do("label", "--name", name, *asked)
        rule = rule_of(load_config(CONFIG, overrides(rest)).utility)
    except AgenticRError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for name, about in zip(names, ("the first run", "the same again, with its cache"), strict=True):
        print(f"\n{about}")
        print("\n".join(counted(Path(options.runs) / name / "iteration-1", rule)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
