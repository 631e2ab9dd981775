"""The quickstart's claim on three seeds: gain, intervals, and the share of the oracle gap closed.

    python benchmarks/quickstart_seeds.py [--runs FOLDER] [--seeds 0 1 2] [--SETTING VALUE ...]

Baseline: the best untouched row of each run's own table. Every seed is a run of its own,
quickstart-seed-N, with its own world, sampling and training; run again, it resumes. Prints the
rows that matter for each seed, what the seeds say together, and PASS or FAIL for each target.
Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agentic_r.cli import main as agentic_r
from agentic_r.cli.settings import overrides
from agentic_r.config import load_config
from agentic_r.errors import AgenticRError, DataError
from agentic_r.evaluation.benchmark import Record, Row
from agentic_r.evaluation.compare import Comparison, compare
from agentic_r.evaluation.report import Report, read_report, table
from agentic_r.io import read_jsonl

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.toml"

GAIN = 0.10
"""Points of exact match that the last iteration must gain over the row to beat, on each seed."""

LOWER = 0.04
"""What the lower end of each seed's 95 % interval must be above."""

GAP = 0.50
"""Share of the gap to oracle retrieval to be closed, as the mean of the seeds."""


class Seed(msgspec.Struct, frozen=True):
    """One finished run."""

    number: int
    report: Report
    before: list[Record]
    after: list[Record]
    seconds: float


def finished(folder: Path, number: int, seconds: float) -> Seed:
    """Read a finished run; its records are marked with the seed, so that runs can be pooled."""
    report = read_report(folder / "report.json")
    found: dict[str, list[Record]] = {}
    for path in sorted(folder.glob("evaluation/*/scores/row.json")):
        row = msgspec.json.decode(path.read_bytes(), type=Row)
        found[row.name] = [
            msgspec.structs.replace(record, dataset=f"seed-{number}")
            for record in read_jsonl(path.parent / "records.jsonl", Record)
        ]
    for name in (report.gain.over, report.gain.name):
        if name not in found:
            raise DataError(f"{folder}: got no records of {name!r}, expected them in evaluation/")
    return Seed(number, report, found[report.gain.over], found[report.gain.name], seconds)


def pooled(seeds: Sequence[Seed], samples: int = 10_000) -> Comparison:
    """Compare after and before over all seeds' questions, clustered by (seed, root)."""
    before = [record for seed in seeds for record in seed.before]
    after = [record for seed in seeds for record in seed.after]
    return compare(before, after, samples=samples)


def mean(values: Sequence[float]) -> float:
    """Average numbers, of which there is at least one."""
    return sum(values) / len(values)


def checks(seeds: Sequence[Seed]) -> list[tuple[bool, str]]:
    """Hold the seeds against the targets: (met, what was measured and expected)."""
    found = []
    for seed in seeds:
        gain = seed.report.gain
        text = f"seed {seed.number}: gain {_points(gain.em)}, expected {_points(GAIN)} or more"
        found.append((gain.em >= GAIN, text))
        text = f"seed {seed.number}: lower end {_points(gain.low)}, expected above {_points(LOWER)}"
        found.append((gain.low > LOWER, text))
    closed = [seed.report.gap_closed for seed in seeds]
    known = [share for share in closed if share is not None]
    if len(known) < len(closed):
        found.append((False, "mean share of the oracle gap closed: some run has no gap to close"))
    else:
        text = f"mean share of the oracle gap closed: {mean(known):.0%}, expected {GAP:.0%} or more"
        found.append((mean(known) >= GAP, text))
    return found


def summary(seeds: Sequence[Seed]) -> str:
    """Lay out what each seed and all of them together show."""
    lines = []
    for seed in seeds:
        gain = seed.report.gain
        names = {gain.over, gain.name}
        rows = [r for r in seed.report.rows if r.name in names or r.name.startswith("oracle")]
        closed = seed.report.gap_closed
        stages = sum(stage.seconds for stage in seed.report.stages)
        lines += [
            f"Seed {seed.number}",
            table(rows),
            f"gain {_interval(gain.em, gain.low, gain.high)}; oracle gap closed: "
            f"{'no gap' if closed is None else f'{closed:.0%}'}; {seed.seconds:.0f} s now, "
            f"{stages:.0f} s of stages over all restarts",
            "",
        ]
    gains = [seed.report.gain.em for seed in seeds]
    closed_all = [s.report.gap_closed for s in seeds if s.report.gap_closed is not None]
    both = pooled(seeds)
    lines += [
        f"{len(seeds)} seeds: mean gain {_points(mean(gains))} "
        f"({', '.join(_points(gain) for gain in gains)})",
        f"mean share of the oracle gap closed: {mean(closed_all):.0%}" if closed_all else "no gap",
        f"pooled gain {_interval(both.difference, both.low, both.high)}, "
        f"{both.n} questions, {both.clusters} (seed, root) clusters",
    ]
    return "\n".join(lines)


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _interval(value: float, low: float, high: float) -> str:
    return f"{_points(value)} points of EM (95 % interval {_points(low)} to {_points(high)})"


def main(given: Sequence[str] | None = None) -> int:
    """Run every seed that is not done, then pool; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", maxsplit=1)[0], allow_abbrev=False
    )
    parser.add_argument("--config", type=Path, default=CONFIG, help="another config to run")
    parser.add_argument("--runs", default="runs", help="folder that holds the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    options, rest = parser.parse_known_args(given)
    seeds = []
    try:
        for number in options.seeds:
            own = ["--seed", str(number), "--name", f"quickstart-seed-{number}"]
            settings = [*rest, "--runs", options.runs, *own]
            config = load_config(options.config, overrides(settings))
            began = time.monotonic()
            code = agentic_r(["loop", str(options.config), *settings])
            if code:
                return code
            folder = Path(config.runs) / config.name
            seeds.append(finished(folder, number, time.monotonic() - began))
        print(f"\n{summary(seeds)}\n")
    except AgenticRError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    results = checks(seeds)
    for met, text in results:
        print(f"{'PASS' if met else 'FAIL'}  {text}")
    return 0 if all(met for met, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
