"""`agentic-r convert upstream-examples`: upstream's label files into training examples."""

from __future__ import annotations

import argparse

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
    from agentic_r.utility.select import GradedRule, UpstreamRule

    refuse_overwriting([options.out], [options.candidates, options.local, options.global_])
    joined = join(options.candidates, options.local, options.global_)
    rule = UpstreamRule() if options.rule == "upstream" else GradedRule()
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
