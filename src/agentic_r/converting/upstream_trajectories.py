"""`agentic-r convert upstream-trajectories`: upstream's trajectories into ours."""

from __future__ import annotations

import argparse

ABOUT = "Turn upstream's trajectories into ours."


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("source", metavar="FILE", help="intermediate_data.json, or its copy")
    parser.add_argument("target", metavar="TARGET", help="trajectories.jsonl to write")
    parser.add_argument("--dataset", default="", metavar="NAME", help="default: the file's name")


def run(options: argparse.Namespace) -> None:
    """Convert, and print what was left out."""
    from agentic_r.converting.targets import refuse_overwriting
    from agentic_r.errors import DataError
    from agentic_r.exchange.counting import counted, lines, reasons
    from agentic_r.exchange.upstream_files import read_trajectories
    from agentic_r.io import write_jsonl

    refuse_overwriting([options.target], [options.source])
    found = read_trajectories(options.source, options.dataset)
    if not found.trajectories:
        raise DataError(
            f"{options.source}: got no usable trajectory ({reasons(found.dropped)}), expected at "
            "least one"
        )
    write_jsonl(options.target, found.trajectories)
    print(f"{options.target}: {counted(len(found.trajectories), 'trajectories')}")
    for line in lines(found.dropped):
        print(f"  {line}")
