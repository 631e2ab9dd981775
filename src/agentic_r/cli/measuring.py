"""Verbs that measure and tell: evaluate, status, report; heavy modules are imported inside."""

from __future__ import annotations

import argparse
from pathlib import Path

from agentic_r.cli.shown import say, show
from agentic_r.config import Config
from agentic_r.errors import ConfigError, DataError


def evaluate(options: argparse.Namespace, config: Config) -> None:
    """Measure the systems of the loop, or a grid, and print the table."""
    from agentic_r.evaluation.plan import wanted

    if wanted(config):
        _evaluate_grid(options, config)
        return
    if options.trec:
        raise ConfigError("--trec needs a grid: set evaluation.datasets (see docs/evaluate.md)")
    from agentic_r.loop import measure_dev, open_run, run_loop, stage_names

    with open_run(config, options.fork) as run:
        if options.split == "test":
            rows = run_loop(run, config, say).rows
        else:
            last = stage_names(config)[-2]
            rows = measure_dev(run_loop(run, config, say, last))
    show(rows)


def _evaluate_grid(options: argparse.Namespace, config: Config) -> None:
    from agentic_r.evaluation.plan import missing, plan

    if options.split != "test":
        raise ConfigError("--split is for the loop's own table; name the split in the data set")
    found = plan(config)
    gone = missing(config, found)
    if gone:
        raise DataError(f"{gone[0]}: there is no such file; check the path")
    from agentic_r.evaluation.terminal import show_run, show_trec
    from agentic_r.grid import open_grid, run_grid, trec_files
    from agentic_r.loop import open_run

    with open_run(config, options.fork) as run:
        measured = run_grid(open_grid(run, config, found), say)
        folder = run.folder
    print()
    print("\n".join(show_run(folder)))
    if options.trec:
        print("\n".join(show_trec(trec_files(measured), Path(options.trec))))
    print(f"\nRows: {folder / 'rows.jsonl'}")


def status(options: argparse.Namespace) -> None:
    """Print what a run has done and what it owes."""
    from agentic_r.stage import status

    for name, state, counts in status(options.run):
        numbers = ", ".join(f"{value} {key}" for key, value in counts.items())
        print(f"{state:<11} {name:<50} {numbers}")


def report(options: argparse.Namespace) -> None:
    """Print finished runs, compare their rows, and write a page over several."""
    from agentic_r.evaluation.report import read_report
    from agentic_r.evaluation.terminal import show_comparison, show_run, write_overview

    folders = [Path(folder) for folder in options.run]
    if options.compare:
        print("\n".join(show_comparison(folders, options.compare, options.metric)))
        return
    grids = False
    for folder in folders:
        print(folder)
        if (folder / "rows.jsonl").is_file() or (folder / "grid").is_dir():
            grids = True
            print("\n".join(show_run(folder, options.metric, options.over)))
        if (folder / "report.json").is_file() or not grids:
            from agentic_r.summary import headline

            report = read_report(folder / "report.json")
            show(report.rows)
            print(f"\n{headline(report)}\n")
    if grids or len(folders) > 1 or options.page:
        page = Path(options.page) if options.page else folders[0] / "comparison.html"
        write_overview(page, folders, options.metric, options.over)
        print(f"Page: {page}")
