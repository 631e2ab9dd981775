"""Which parts of the graded selection rule change any training example at all?

    python benchmarks/selection.py [--runs FOLDER] [--seeds 0 1 2] [--SETTING VALUE ...]

Labels the first iteration of the quickstart a seed, then judges every search again with one part
of the rule left out, from the same measurements. Baseline: the whole rule. A part that changes
next to nothing here needs no training to be told apart; labels_ablation.py trains without those
that do and have a setting. Labels of labels_ablation.py in the same folder are used; run again,
it resumes.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from labels_ablation import SHARED
from program import arguments, do

from agentic_r.errors import AgenticRError
from agentic_r.io import read_jsonl
from agentic_r.types import Utility
from agentic_r.utility.labelled import Labelled
from agentic_r.utility.rules.graded import GradedRule
from agentic_r.utility.select import by_search

WHOLE = GradedRule()


class Part(NamedTuple):
    """One part of the rule left out: another rule, or something that is not known of candidates."""

    rule: GradedRule = WHOLE
    unknown: Mapping[str, Any] = MappingProxyType({})


PARTS = {
    "searches without success by relevance": Part(GradedRule(unanswered="drop")),
    "negatives first that were read": Part(unknown={"read": False}),
    "no negative that holds the answer": Part(unknown={"holds": False}),
    "several positives": Part(GradedRule(max_positives=1)),
    "margin": Part(GradedRule(margin=0.0)),
    "fewer searches as a tie-break": Part(GradedRule(fewer_searches=False)),
    "copies": Part(unknown={"content": ""}),
}
COLUMNS = ("kept or dropped", "positives", "negatives", "taken first")


class Seen(NamedTuple):
    """What a verdict means for training, in the order of COLUMNS."""

    state: str
    positives: tuple[int, ...]
    pool: frozenset[int]
    first: tuple[int, ...]


def seen(rows: Sequence[Utility], part: Part) -> Seen:
    """Judge one search with a part left out."""
    known = [msgspec.structs.replace(row, **part.unknown) for row in rows]
    verdict = part.rule.verdict(known)
    state = verdict.reason or ("not measured" if verdict.needed else "kept")
    positives = verdict.positives[: part.rule.max_positives]
    return Seen(state, positives, frozenset(verdict.pool), verdict.first)


def searches(runs: str, seed: int, rest: Sequence[str]) -> Iterator[list[Utility]]:
    """Label the quickstart, or take what is there, and yield the candidates of every search."""
    name = f"ablation-{seed}"
    do("label", "--name", name, *SHARED, "--runs", runs, "--seed", str(seed), *rest)
    path = Path(runs) / name / "iteration-1" / "labels" / "labels.jsonl"
    for row in read_jsonl(path, Labelled):
        for _, rows in by_search(row.utilities):
            yield rows


def main(given: Sequence[str] | None = None) -> int:
    """Label what is not labelled, then print the table; returns the exit code."""
    options, rest = arguments(__doc__).parse_known_args(given)
    count, changed = 0, {name: Counter[str]() for name in PARTS}
    try:
        for seed in options.seeds:
            for rows in searches(options.runs, seed, rest):
                count += 1
                whole = seen(rows, Part())
                for name, part in PARTS.items():
                    pairs = zip(COLUMNS, whole, seen(rows, part), strict=True)
                    differ = [column for column, before, after in pairs if before != after]
                    changed[name].update([*differ, *(["any"] if differ else [])])
    except AgenticRError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"\n{count:,} searches; how many another verdict concerns, where a part is left out")
    print(f"{'part':<40}{'any':>6}" + "".join(f"{column:>18}" for column in COLUMNS))
    for name, found in changed.items():
        cells = "".join(f"{found[column]:>18,}" for column in COLUMNS)
        print(f"{name:<40}{found['any']:>6,}{cells}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
