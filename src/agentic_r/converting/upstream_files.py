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

    from agentic_r.exchange.upstream_files import datasets, write_labels, write_trajectories
    from agentic_r.io import read_jsonl
    from agentic_r.types import Trajectory
    from agentic_r.utility.labelled import Labelled

    source, target = Path(options.source), Path(options.target)
    trajectories = read_jsonl(source / "rollouts" / "trajectories.jsonl", Trajectory)
    labelled = read_jsonl(source / "labels" / "labels.jsonl", Labelled)
    for dataset in datasets(trajectories):
        name = dataset or "questions"
        own = [each for each in trajectories if each.question.dataset == dataset]
        (target / "trajectory").mkdir(parents=True, exist_ok=True)
        write_trajectories(target / "trajectory" / f"{name}.json", own)
        rows = [row for row in labelled if row.dataset == dataset]
        counts = write_labels(target, name, own, rows)
        print(f"{target}: {name}: {len(own):,} trajectories")
        for what, count in counts.items():
            print(f"  {count:,} {what}")
