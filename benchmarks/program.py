"""What benchmarks over several runs of the program share: running a command, reading a row."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agentic_r.cli import main as agentic_r
from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Record
from agentic_r.io import read_jsonl

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.toml"


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
