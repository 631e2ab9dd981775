"""What benchmarks over several runs of the program share: running a command, reading a row."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from agentic_r.cli import main as agentic_r
from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Record
from agentic_r.io import read_jsonl

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.toml"


def arguments(doc: str | None, *, seeds: bool = True) -> argparse.ArgumentParser:
    """Make the parser of a benchmark, described by its first line, with --runs and --seeds."""
    parser = argparse.ArgumentParser(
        description=(doc or "").split("\n", maxsplit=1)[0], allow_abbrev=False
    )
    parser.add_argument("--runs", default="runs", help="folder that holds the runs")
    if seeds:
        parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    return parser


def do(*words: str) -> None:
    """Run one command of the program, the quickstart's config behind its verb.

    Raises DataError where it fails.
    """
    verb, *rest = words
    command = [verb, str(CONFIG), *rest]
    print(f"\n$ agentic-r {' '.join(command)}", flush=True)
    code = agentic_r(command)
    if code:
        raise DataError(f"agentic-r {' '.join(command)}: got exit code {code}, expected 0")


def records(row: Path, seed: int) -> list[Record]:
    """Read the records of a row, marked with the seed so that seeds can be pooled."""
    return [
        msgspec.structs.replace(each, dataset=f"seed-{seed}")
        for each in read_jsonl(row / "scores" / "records.jsonl", Record)
    ]
