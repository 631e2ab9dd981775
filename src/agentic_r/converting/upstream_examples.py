"""`agentic-r convert upstream-examples`: upstream's label files into training examples."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentic_r.utility.select import Rule

ABOUT = "Turn upstream's three label files into training examples."


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    for name, about in (
        ("--candidates", "passage_candidates file (JSON list)"),
        ("--local", "local_utility file: relevance (JSON lines)"),
        ("--global", "global_utility file: correctness (JSON lines)"),
        ("--out", "file to write"),
    ):
        dest = name.lstrip("-") + ("_" if name == "--global" else "")
        parser.add_argument(name, required=True, metavar="FILE", help=about, dest=dest)
    parser.add_argument(
        "--rule", choices=("upstream", "graded"), default="upstream", help="what selects"
    )
    parser.add_argument(
        "--relevance", type=float, default=60.0, metavar="X", help="least of a positive, 0-100"
    )
    parser.add_argument(
        "--max-positives", type=int, default=3, metavar="N", help="positives used per search"
    )
    parser.add_argument(
        "--negatives",
        type=int,
        default=15,
        metavar="N",
        help="hard negatives per search: rule upstream wants as many, graded takes at most these",
    )
    parser.add_argument(
        "--form",
        choices=("upstream", "ours"),
        default="upstream",
        help="retriever_training_data.jsonl of upstream, or our examples.jsonl",
    )
    parser.add_argument("--dataset", default="", metavar="NAME", help="default: the file's name")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn negatives")


def run(options: argparse.Namespace) -> None:
    """Convert, and print what was kept and what was left out, by reason."""
    from pathlib import Path

    from agentic_r.converting.targets import refuse_overwriting
    from agentic_r.errors import DataError
    from agentic_r.exchange.counting import counted, lines, reasons
    from agentic_r.exchange.upstream_labels import convert, join
    from agentic_r.io import write_jsonl

    rule = _rule(options)
    refuse_overwriting([options.out], [options.candidates, options.local, options.global_])
    joined = join(options.candidates, options.local, options.global_)
    dataset = options.dataset or Path(options.candidates).name.split(".")[0]
    made = convert(joined, dataset, rule, options.seed)
    rows = made.rows if options.form == "upstream" else made.examples
    if not rows:
        raise DataError(
            f"{options.out}: not written, for {counted(made.searches, 'searches')} gave no row: "
            f"{reasons(made.dropped)}; expected --candidates, --local and --global of one data "
            "set, with relevance and correctness"
        )
    write_jsonl(options.out, rows)
    kept = f"{len(made.examples):,} of {counted(made.searches, 'searches')}"
    print(f"{options.out}: {counted(len(rows), 'rows')} from {kept}")
    for line in lines(made.dropped):
        print(f"  {line}")


def _rule(options: argparse.Namespace) -> Rule:
    """Return the rule with its numbers, which have the bounds of the settings `utility.*`."""
    from agentic_r.errors import ConfigError
    from agentic_r.utility.select import GradedRule, UpstreamRule

    if not 0 <= options.relevance <= 100:
        raise ConfigError(f"--relevance: got {options.relevance:g}, expected 0 to 100")
    for name, given in (
        ("--max-positives", options.max_positives),
        ("--negatives", options.negatives),
    ):
        if given < 1:
            raise ConfigError(f"{name}: got {given}, expected 1 or more")
    chosen = UpstreamRule if options.rule == "upstream" else GradedRule
    return chosen(options.relevance, options.max_positives, options.negatives)
