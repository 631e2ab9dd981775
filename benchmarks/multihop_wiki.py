"""The loop on real Wikipedia passages and human multi-hop questions, whatever it shows.

    AGENTIC_R_DATA=FOLDER python benchmarks/multihop_wiki.py [--runs FOLDER] [--SETTING VALUE ...]

Trains on musique_train, measures on musique_dev and prints the table. Baseline: the untouched
encoder, row by row. The agent is the oracle reader, so the numbers measure retrieval inside a
multi-turn search, not reading. Run again, it resumes; any setting can be overridden, such as
--seed 1 --name multihop-wiki-1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from agentic_r.cli import main as agentic_r
from agentic_r.cli.settings import overrides
from agentic_r.config import load_config
from agentic_r.errors import AgenticRError
from agentic_r.evaluation.report import Report, read_report

CONFIG = Path(__file__).parents[1] / "configs" / "multihop-wiki.toml"
FILES = {
    "data.corpus": "corpus.jsonl",
    "data.questions": "musique_train.jsonl",
    "data.test": "musique_dev.jsonl",
}


def arguments(data: Path, runs: str, rest: Sequence[str]) -> list[str]:
    """Return the settings of the run: the files, the folder of runs, then the overrides."""
    files = [part for key, name in FILES.items() for part in (f"--{key}", str(data / name))]
    return [*files, "--runs", runs, *rest]


def by_hops(report: Report) -> str:
    """Lay out exact match by number of hops, for every row."""
    counts = sorted({hop for row in report.rows for hop in row.em_by_hops})
    lines = ["EM by number of hops: " + ", ".join(f"{hop}" for hop in counts)]
    for row in report.rows:
        cells = (f"{row.em_by_hops[hop]:.3f} (n={row.n_by_hops[hop]})" for hop in counts)
        lines.append(f"{row.name:<32} " + "  ".join(cells))
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", maxsplit=1)[0], allow_abbrev=False
    )
    parser.add_argument("--runs", default="runs", help="folder that holds the runs")
    options, rest = parser.parse_known_args(given)
    folder = os.environ.get("AGENTIC_R_DATA")
    if not folder:
        print("AGENTIC_R_DATA is not set; set it to the folder of corpus.jsonl", file=sys.stderr)
        return 2
    settings = arguments(Path(folder), options.runs, rest)
    began = time.monotonic()
    code = agentic_r(["loop", str(CONFIG), *settings])
    if code:
        return code
    try:
        config = load_config(CONFIG, overrides(settings))
        report = read_report(Path(config.runs) / config.name / "report.json")
    except AgenticRError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"\n{by_hops(report)}\n")
    for compared in report.comparisons:
        ends = f"{100 * compared.low:+.1f} to {100 * compared.high:+.1f}"
        print(f"{compared.name:<32} {100 * compared.difference:+5.1f} points of EM ({ends})")
    print(f"{'':<32} each over {report.gain.over}, the best untouched row")
    stages = sum(stage.seconds for stage in report.stages)
    print(f"{time.monotonic() - began:.0f} s now, {stages:.0f} s of stages over all restarts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
