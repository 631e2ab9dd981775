"""What each choice in labelling and training is worth: held-out EM of the last iteration, by seed.

    python benchmarks/labels_ablation.py [--runs FOLDER] [--seeds 0 1 2] [--variants NAME ...]
                                         [--iterations 1] [--SETTING VALUE ...]

One iteration of the quickstart a seed and variant, or more; variants are forks of the default's
run, so they share world, first rollouts and untouched rows. Baseline: the default, paired question
by question. Choose by the dev column; the test column is for reporting. Run again, it resumes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from program import arguments, do, records

from agentic_r.errors import AgenticRError
from agentic_r.evaluation.benchmark import Record
from agentic_r.evaluation.compare import compare
from agentic_r.manifest import Manifest, read

SHARED = ("--evaluation.ks", "[1]", "--evaluation.bm25", "false")

DEFAULT = "default"
UPSTREAM = ("--utility.rule", "upstream")
VARIANTS: dict[str, tuple[str, ...]] = {
    "upstream rule": UPSTREAM,
    "relevance alone": (*UPSTREAM, "--utility.signals", "relevance"),
    "correctness alone": (*UPSTREAM, "--utility.signals", "correctness"),
    "without success dropped": ("--utility.unanswered", "drop"),
    "no margin": ("--utility.margin", "0"),
    "one positive": ("--utility.max_positives", "1"),
    "two searches a question": ("--utility.per_question", "2"),
    "searches still needed ignored": ("--utility.fewer_searches", "false"),
    "gain over no passage": ("--utility.baseline", "true"),
    "no continued searches": ("--utility.continued_searches", "false"),
    "graded targets": ("--retriever.train.loss", "listwise-kl"),
    "temperature 0.02": ("--retriever.train.temperature", "0.02"),
    "7 negatives": ("--retriever.train.negatives", "7"),
    "15 negatives": ("--retriever.train.negatives", "15"),
    "query alone": ("--retriever.input", "query"),
    "question and query": ("--retriever.input", "question+query"),
    "with history": ("--retriever.input", "question+history+query"),
    "re-ranked": (
        *("--retriever.rerank.epochs", "10", "--retriever.rerank.depth", "20"),
        *("--retriever.rerank.negatives", "3", "--retriever.rerank.learning_rate", "1e-4"),
    ),
}


class Measured(msgspec.Struct):
    """One variant on one seed."""

    dev: list[Record]
    test: list[Record]
    examples: int
    continuations: int


def run(runs: str, seed: int, variant: str, last: int, rest: Sequence[str]) -> Measured:
    """Run `last` iterations of a variant, or take what is there.

    Raises DataError where the program fails.
    """
    base = f"ablation-{seed}" if last == 1 else f"ablation-{seed}-{last}-iterations"
    own = VARIANTS.get(variant, ())
    name = base if variant == DEFAULT else f"{base}-{variant.replace(' ', '-')}"
    asked = ("--loop.iterations", str(last), "--runs", runs, "--seed", str(seed))
    settings = [*SHARED, *asked, *own, *rest]
    fork = [] if variant == DEFAULT else ["--fork", name]
    do("loop", "--name", base, *settings, *fork)
    do("evaluate", "--name", name, *settings, "--split", "dev")
    folder = Path(runs) / name
    row = f"{'re-ranked-' if variant == 're-ranked' else ''}iteration-{last}-k-1"
    made = range(1, last + 1)
    return Measured(
        dev=records(folder / "dev" / row, seed),
        test=records(folder / "evaluation" / row, seed),
        examples=sum(count(folder, number, "kept") for number in made),
        continuations=sum(count(folder, number, "continuations") for number in made),
    )


def count(folder: Path, number: int, key: str) -> int:
    """Read a count from the manifest of an iteration's labels."""
    manifest = read(folder / f"iteration-{number}" / "labels" / "manifest.json", Manifest)
    return manifest.counts[key] if manifest else 0


def line(name: str, found: Sequence[Measured], base: Sequence[Measured]) -> str:
    """Lay out one row: EM on dev and test by seed, and the difference to the default."""
    cells = []
    for split in ("dev", "test"):
        rows = [getattr(each, split) for each in found]
        mean = [sum(r.em for r in side) / len(side) for side in rows]
        cells.append(f"{sum(mean) / len(mean):.3f} (" + " ".join(f"{m:.3f}" for m in mean) + ")")
        if name != DEFAULT:
            pooled = [r for side in rows for r in side]
            before = [r for each in base for r in getattr(each, split)]
            gain = compare(before, pooled, samples=10_000)
            low, high = 100 * gain.low, 100 * gain.high
            cells.append(f"{100 * gain.difference:+.1f} [{low:+.1f}, {high:+.1f}]")
        else:
            cells.append("")
    work = f"{sum(m.continuations for m in found):>6,} {sum(m.examples for m in found):>6,}"
    return f"{name:<34} {cells[0]:<28} {cells[1]:<20} {cells[2]:<28} {cells[3]:<20} {work}"


def main(given: Sequence[str] | None = None) -> int:
    """Run what is not done, then print the table; returns the exit code."""
    parser = arguments(__doc__)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--iterations", type=int, default=1, choices=range(1, 10), metavar="N")
    options, rest = parser.parse_known_args(given)
    last = options.iterations
    try:
        table = {
            name: [run(options.runs, seed, name, last, rest) for seed in options.seeds]
            for name in (DEFAULT, *options.variants)
        }
    except AgenticRError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    change = f"{'to default, 95 %':<20}"
    heads = f"{'dev EM (by seed)':<28} {change} {'test EM (by seed)':<28} {change}"
    print(f"\n{'variant':<34} {heads} contin.  kept")
    for name, found in table.items():
        print(line(name, found, table[DEFAULT]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
