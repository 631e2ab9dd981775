"""Benchmarks as modules, and rows as their runs would leave them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from agentic_r.evaluation.benchmark import Record
from agentic_r.io import write_jsonl

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def benchmark(name: str) -> ModuleType:
    """Import a benchmark, which is a script beside others that it may import."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    return importlib.import_module(name)


def row(folder: Path, right: int) -> None:
    """Write a row of 40 questions on 20 roots, of which the first `right` were answered."""
    found = [
        Record("", f"q{n}", f"root{n // 2}", float(n < right), float(n < right), 2)
        for n in range(40)
    ]
    (folder / "scores").mkdir(parents=True)
    write_jsonl(folder / "scores" / "records.jsonl", found)
