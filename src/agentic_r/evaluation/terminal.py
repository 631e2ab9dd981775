"""What the evaluate and report verbs print, line by line, and the page they leave."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from agentic_r.errors import DataError, MissingExtraError, RunError
from agentic_r.evaluation.benchmark import Row
from agentic_r.evaluation.costs import said
from agentic_r.evaluation.measures import measure
from agentic_r.evaluation.plan import slug
from agentic_r.evaluation.report import notes
from agentic_r.evaluation.runs import Group, Named, Results, find, grouped, named, read_run, versus
from agentic_r.evaluation.table import grid_table
from agentic_r.evaluation.trec import measure_files
from agentic_r.evaluation.verdict import contest_table, spoken, too_small
from agentic_r.io import write_atomic


def show_run(folder: Path, metric: str = "em", over: str = "") -> list[str]:
    """Lay out a grid: its table, every row against the first on the same questions, warnings."""
    run = read_run(folder)
    rows = [row for row in named([run]) if row.held.row.agent]
    groups = _groups([run], rows, metric, over)
    lines = [
        grid_table([row.held.row for row in rows]),
        "",
        "Fractions in percent, below each figure its 95 % interval; - is not measured.",
    ]
    lines += failures([row.held.row for row in rows])
    lines += [said(spent) for spent in run.spent]
    for group in groups:
        if group.contests:
            lines += ["", f"{group.about}: {contest_table(group.contests)}"]
    warnings = [each for group in groups if (each := too_small(group))]
    return [*lines, *([""] if warnings else []), *(f"Warning: {each}" for each in warnings)]


def failures(rows: Sequence[Row]) -> list[str]:
    """Say on which rows the language model failed."""
    return [note for note in notes(rows) if "language model failed" in note]


def show_comparison(folders: Sequence[Path], pair: Sequence[str], metric: str) -> list[str]:
    """Compare two rows of any of the runs. Raises DataError where that cannot be done."""
    measure(metric)
    runs = [read_run(folder) for folder in folders]
    rows = named(runs)
    name, over = find(rows, pair[0]), find(rows, pair[1])
    if name is over:
        raise DataError(f"got row {name.name!r} twice, expected two rows to compare")
    return [spoken(versus(name, over, metric, runs[0].samples, runs[0].seed))]


def write_overview(path: Path, folders: Sequence[Path], metric: str, over: str) -> None:
    """Write the page over several runs. Raises MissingExtraError without jinja2."""
    try:
        from agentic_r.evaluation.overview import render_overview
    except ImportError:
        raise MissingExtraError("jinja2", "report") from None

    runs = [read_run(folder) for folder in folders]
    rows = named(runs)
    write_atomic(path, render_overview(runs, rows, _groups(runs, rows, metric, over), metric))


def show_trec(files: Iterable[tuple[Row, Path, Path, Path]], folder: Path) -> list[str]:
    """Copy the TREC files of every cell out and say what ir_measures makes of them.

    Raises RunError where a file cannot be written.
    """
    lines = ["", f"TREC files: {folder}"]
    for row, run, qrels, queries in files:
        name = "--".join(map(slug, (row.agent, row.retriever, row.dataset)))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in (run, qrels, queries):
                shutil.copyfile(path, folder / f"{name}{path.suffix}")
        except OSError as error:
            raise RunError(f"{folder}: cannot be written: {error.strerror}") from None
        try:
            found = measure_files(run, qrels)
            figures = ", ".join(f"{key} {value:.3f}" for key, value in found.items())
        except (DataError, MissingExtraError) as error:
            figures = str(error)
        lines.append(f"{row.name}: {figures}")
    return lines


def _groups(runs: Sequence[Results], rows: Sequence[Named], metric: str, over: str) -> list[Group]:
    """Group rows by their questions; compared with is `over`, else what each report compares with.

    Raises DataError where there is no row `over`.
    """
    measure(metric)
    if over:
        find(rows, over)
    beaten = [run.report.gain.over for run in runs if run.report]
    bases = [over] if over else [row.name for row in rows if row.held.row.name in beaten]
    return grouped(rows, metric, runs[0].samples, runs[0].seed, bases)
