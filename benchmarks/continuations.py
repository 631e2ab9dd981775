"""How many continuations lazy labelling needs, and that its examples are those of trying all.

    python benchmarks/continuations.py [--config FILE] [--runs FOLDER] [--SETTING VALUE ...]

Labels the first iteration of configs/quickstart.toml, or of FILE, from every candidate, as upstream
does, and keeps the table; then lets each rule ask for what it needs, answered from the table.
Baseline: all candidates, 20 a search. Printed for every rule: continuations a labelled search,
and whether the examples are equal to those selected from the whole table. Run again, it resumes;
settings can be overridden, as --world.train_questions 100. multihop-wiki takes the
files of AGENTIC_R_DATA.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from agentic_r.cli import main as agentic_r
from agentic_r.cli.settings import overrides
from agentic_r.config import load_config
from agentic_r.errors import AgenticRError
from agentic_r.io import read_jsonl
from agentic_r.types import Utility
from agentic_r.utility.labelled import Labelled
from agentic_r.utility.rules.upstream import UpstreamRule
from agentic_r.utility.rules.verdict import Rule
from agentic_r.utility.select import GradedRule, by_search, select

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.toml"
FILES = {
    "data.corpus": "corpus.jsonl",
    "data.questions": "musique_train.jsonl",
    "data.test": "musique_dev.jsonl",
}
RULES: dict[str, Rule] = {
    "upstream": UpstreamRule(),
    "upstream, relevance alone": UpstreamRule(signals="relevance"),
    "upstream, correctness alone": UpstreamRule(signals="correctness"),
    "graded": GradedRule(),
    "graded, unanswered dropped": GradedRule(unanswered="drop"),
}


class Replay(msgspec.Struct):
    """What one rule asked of the table."""

    searches: int = 0
    continuations: int = 0
    kept: int = 0
    equal: bool = True


def hidden(row: Utility) -> Utility:
    """Forget what was measured by continuation; relevance stays."""
    if row.relevance is None:
        return row
    return msgspec.structs.replace(row, correctness=None, further=None, why="not needed")


def asked(rows: Sequence[Utility], rule: Rule) -> tuple[list[Utility], int]:
    """Let the rule ask for measurements until it has a verdict; returns the rows and a count."""
    known, count = [hidden(row) for row in rows], 0
    while True:
        needed = rule.verdict(known).needed
        if not needed:
            return known, count
        count += len(needed)
        for rank in needed:
            known[rank] = rows[rank]


def replay(labelled: Sequence[Labelled], rule: Rule, seed: int) -> Replay:
    """Select lazily and from the whole table, question by question."""
    found = Replay()
    for row in labelled:
        lazy: list[Utility] = []
        for _, rows in by_search(row.utilities):
            known, count = asked(rows, rule)
            lazy += known
            found.searches += 1
            found.continuations += count
        key = (row.dataset, row.question_id)
        some, _ = select(*key, lazy, rule=rule, seed=seed)
        whole, _ = select(*key, row.utilities, rule=rule, seed=seed)
        found.kept += len(some)
        found.equal &= some == whole
    return found


def lines(labelled: Sequence[Labelled], seed: int) -> Iterator[str]:
    """Lay out the table."""
    everything = sum(row.continuations for row in labelled)
    searches = sum(1 for row in labelled for _ in by_search(row.utilities))
    yield f"{'rule':<30} {'a search':>9} {'continued':>10} {'kept':>6}  equal examples"
    yield f"{'all candidates (the table)':<30} {everything / searches:>9.2f} {everything:>10,}"
    for name, rule in RULES.items():
        found = replay(labelled, rule, seed)
        mean = found.continuations / found.searches
        yield (
            f"{name:<30} {mean:>9.2f} {found.continuations:>10,} {found.kept:>6,}  "
            f"{'yes' if found.equal else 'NO'}"
        )


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code: 1 where examples differ."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", maxsplit=1)[0], allow_abbrev=False
    )
    parser.add_argument("--config", default=str(CONFIG), metavar="FILE", help="another config")
    parser.add_argument("--runs", default="runs", help="folder that holds the runs")
    options, rest = parser.parse_known_args(given)
    files: list[str] = []
    if Path(options.config).stem == "multihop-wiki":
        folder = os.environ.get("AGENTIC_R_DATA")
        if not folder:
            print("AGENTIC_R_DATA is not set; set it to the data's folder", file=sys.stderr)
            return 2
        for key, file in FILES.items():
            files += [f"--{key}", str(Path(folder) / file)]
    name = f"{Path(options.config).stem}-exhaustive"
    settings = ["--name", name, "--utility.exhaustive", "true", *files, "--runs", options.runs]
    code = agentic_r(["label", options.config, *settings, *rest])
    if code:
        return code
    try:
        config = load_config(options.config, overrides([*settings, *rest]))
        run = Path(config.runs) / config.name
        labelled = read_jsonl(run / "iteration-1" / "labels" / "labels.jsonl", Labelled)
    except AgenticRError as error:
        print(error, file=sys.stderr)
        return 1
    table = list(lines(labelled, config.seed))
    print("\n" + "\n".join(table))
    return int(any(line.endswith("NO") for line in table))


if __name__ == "__main__":
    sys.exit(main())
