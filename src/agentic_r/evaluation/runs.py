"""What finished runs hold, read back from their folders: rows, records, where time went.

A run of the loop and a run of a grid leave the same two files for every row, `scores/row.json` and
`scores/records.jsonl`; everything a comparison needs is recomputed from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Record, Row
from agentic_r.evaluation.costs import Spent, spent_of
from agentic_r.evaluation.report import Report, read_report
from agentic_r.evaluation.significance import Contest, contest, corrected
from agentic_r.evaluation.table import Measured, averages, with_intervals
from agentic_r.io import read_jsonl

_DEV = "dev"
"""Rows on dev questions are for choosing settings; they are no results."""


class Results(NamedTuple):
    """One run: its rows with their records, the averages of a grid last, and its costs."""

    name: str
    folder: Path
    rows: list[Measured]
    report: Report | None
    seconds: dict[str, float]
    seed: int
    samples: int
    spent: list[Spent]

    @property
    def grid(self) -> bool:
        """Whether the rows are those of a grid."""
        return any(held.row.dataset for held in self.rows)


class Named(NamedTuple):
    """A row under the name it has among all runs that are looked at."""

    name: str
    run: str
    held: Measured


class Group(NamedTuple):
    """Rows about the same questions, and every other one of them against `over`."""

    about: str
    rows: list[Named]
    over: str
    contests: list[Contest]


def read_run(folder: Path) -> Results:
    """Read what a run measured. Raises DataError where nothing was, or a file is damaged."""
    manifests = [_json(path) for path in sorted(folder.rglob("manifest.json"))]
    stages = sorted(
        (found for found in manifests if "stage" in found), key=lambda found: int(found["order"])
    )
    scores = [s["stage"] for s in stages if s["stage"].endswith("/scores")]
    names = [name for name in scores if not name.startswith(f"{_DEV}/")]
    if not names:
        raise DataError(
            f"{folder}: no row was measured here; run `agentic-r loop CONFIG` or "
            "`agentic-r evaluate CONFIG` first"
        )
    config = _json(folder / "config.json")
    seed, samples = int(config["seed"]), int(config["evaluation"]["bootstrap"])
    rows = [_held(folder / name, samples, seed) for name in names]
    path = folder / "report.json"
    return Results(
        name=str(config["name"]),
        folder=folder,
        rows=[*_together(rows), *averages([m for m in rows if m.row.dataset], samples, seed)],
        report=read_report(path) if path.is_file() else None,
        seconds=_seconds(stages),
        seed=seed,
        samples=samples,
        spent=spent_of(stages),
    )


def named(runs: Sequence[Results]) -> list[Named]:
    """Name every row of every run: as in its table, with the run before it where there are more.

    Raises DataError where two runs have one name.
    """
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"got two runs named {twice[0]!r}, expected each run once")
    prefix = len(runs) > 1
    return [
        Named(f"{run.name}: {held.row.name}" if prefix else held.row.name, run.name, held)
        for run in runs
        for held in run.rows
    ]


def find(rows: Sequence[Named], name: str) -> Named:
    """Return the row of a name. Raises DataError, with the names there are, for no such row."""
    for row in rows:
        if row.name == name:
            return row
    known = "; ".join(row.name for row in rows)
    raise DataError(f"got row {name!r}, expected one of: {known}")


def versus(row: Named, over: Named, metric: str, samples: int, seed: int) -> Contest:
    """Compare two rows. Raises DataError where they are about different questions."""
    return contest(
        over.held.records,
        row.held.records,
        (row.name, over.name),
        metric,
        samples,
        seed,
        average=row.held.average,
    )


def grouped(
    rows: Sequence[Named], metric: str, samples: int, seed: int, over: Sequence[str] = ()
) -> list[Group]:
    """Compare all rows about the same questions with one of them, corrected within the group.

    That one is the first whose name is in `over`, else the first row of the group. A row that
    does not hold the metric is left out.
    """
    sets: dict[tuple[bool, frozenset[tuple[str, str]]], list[Named]] = {}
    for row in rows:
        key = (row.held.average, frozenset(record.key for record in row.held.records))
        sets.setdefault(key, []).append(row)
    groups = []
    for held in sets.values():
        holding = [row for row in held if getattr(row.held.row, metric) is not None]
        if not holding:
            continue
        base = next((row for row in holding if row.name in over), holding[0])
        others = [row for row in holding if row is not base]
        found = corrected([versus(row, base, metric, samples, seed) for row in others])
        about = held[0].held.row.dataset
        if held[0].held.average:
            about = "average over data sets"
        groups.append(Group(about or "test questions", held, base.name, found))
    return groups


def _held(folder: Path, samples: int, seed: int) -> Measured:
    try:
        row = msgspec.json.decode((folder / "row.json").read_bytes(), type=Row)
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(
            f"{folder / 'row.json'}: {error}; delete {folder} and run the same command again"
        ) from None
    records = read_jsonl(folder / "records.jsonl", Record)
    return Measured(
        row if row.intervals else with_intervals(row, records, samples, seed), records, folder
    )


def _together(rows: Sequence[Measured]) -> list[Measured]:
    """Put the rows of one data set together, in order of first appearance."""
    datasets = list(dict.fromkeys(held.row.dataset for held in rows))
    return sorted(rows, key=lambda held: datasets.index(held.row.dataset))


def _seconds(stages: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Sum seconds by what was done: the last part of a stage's name, rows under "evaluation"."""
    found: dict[str, float] = {}
    for stage in stages:
        top, _, rest = str(stage["stage"]).partition("/")
        work = rest.rpartition("/")[2]
        if top in ("evaluation", "grid") and not rest.startswith("indexes/"):
            work = "evaluation"
        elif top == "grid":
            work = "index"
        kind = work or top
        found[kind] = found.get(kind, 0.0) + float(stage["seconds"])
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; is {path.parent} a run?") from None
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: got {error}, expected the JSON of a run") from None
