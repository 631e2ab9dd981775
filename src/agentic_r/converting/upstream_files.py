"""`agentic-r convert upstream-files`: an iteration of a run into the files of upstream's steps."""

from __future__ import annotations

import argparse

ABOUT = "Write an iteration of a run as the files of upstream's steps 1 to 3."


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("source", metavar="ITERATION", help="as runs/quickstart/iteration-1")
    parser.add_argument("target", metavar="FOLDER", help="where upstream's training_data lies")


def run(options: argparse.Namespace) -> None:
    """Convert every data set, and print what the files cannot hold."""
    from pathlib import Path

    from agentic_r.errors import DataError
    from agentic_r.exchange.counting import counted, lines
    from agentic_r.exchange.upstream_files import datasets, write_labels, write_trajectories
    from agentic_r.io import read_jsonl
    from agentic_r.types import Trajectory
    from agentic_r.utility.labelled import Labelled

    source, target = Path(options.source), Path(options.target)
    trajectories = read_jsonl(source / "rollouts" / "trajectories.jsonl", Trajectory)
    labels = source / "labels" / "labels.jsonl"
    if not labels.is_file():
        raise DataError(f"{labels}: there are no labels; label it first: agentic-r label CONFIG")
    labelled = read_jsonl(labels, Labelled)
    for dataset in datasets(trajectories):
        name = dataset or "questions"
        own = [each for each in trajectories if each.question.dataset == dataset]
        write_trajectories(target / "trajectory" / f"{name}.json", own)
        rows = [row for row in labelled if row.dataset == dataset]
        counts = write_labels(target, name, own, rows)
        print(f"{target}: {name}: {counted(len(own), 'trajectories')}")
        for line in lines(counts):
            print(f"  {line}")
