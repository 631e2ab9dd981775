"""`agentic-r convert upstream-files`: an iteration of a run into the files of upstream's steps."""

from __future__ import annotations

import argparse

ABOUT = "Write an iteration of a run as the files of upstream's steps 1 to 3."


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("source", metavar="ITERATION", help="as runs/quickstart/iteration-1")
    parser.add_argument("target", metavar="FOLDER", help="where upstream's training_data lies")
    parser.add_argument(
        "--agent",
        default="",
        metavar="NAME",
        help="upstream's level for the agent, as trajectory/NAME/hotpotqa.json; default: none",
    )


def run(options: argparse.Namespace) -> None:
    """Convert every data set, and print what the files cannot hold."""
    from pathlib import Path

    from agentic_r.converting.targets import write_new
    from agentic_r.errors import DataError
    from agentic_r.exchange.counting import counted, lines
    from agentic_r.exchange.upstream_files import (
        datasets,
        label_files,
        step_path,
        trajectory_file,
    )
    from agentic_r.io import read_jsonl
    from agentic_r.types import Trajectory
    from agentic_r.utility.labelled import Labelled

    _check(options.agent)
    source, target = Path(options.source), Path(options.target)
    trajectories = read_jsonl(source / "rollouts" / "trajectories.jsonl", Trajectory)
    labels = source / "labels" / "labels.jsonl"
    if not labels.is_file():
        raise DataError(f"{labels}: there are no labels; label it first: agentic-r label CONFIG")
    labelled = read_jsonl(labels, Labelled)
    files: dict[Path, bytes] = {}
    said: list[str] = []
    for dataset in datasets(trajectories):
        name = dataset or "questions"
        own = [each for each in trajectories if each.question.dataset == dataset]
        rows = [row for row in labelled if row.dataset == dataset]
        steps, counts = label_files(own, rows)
        steps["trajectory"] = trajectory_file(own)
        for step, data in steps.items():
            files[target / step_path(step, name, options.agent)] = data
        said.append(f"{target}: {name}: {counted(len(own), 'trajectories')}")
        said += (f"  {line}" for line in lines(counts))
    write_new(files)
    print("\n".join(said))


def _check(agent: str) -> None:
    """Refuse a name that would be no single level of folders."""
    from pathlib import Path

    from agentic_r.errors import ConfigError

    if agent and (Path(agent).name != agent or agent == ".."):
        raise ConfigError(f"--agent: got {agent!r}, expected the name of one folder, without /")
