"""Do the intervals and tests of the tables say what they claim, and what do they cost?

    python benchmarks/significance.py [--repeats 500]

Simulated questions in clusters of one to five, right or wrong mostly together, with a known rate:
how often the 95 % interval holds the rate, how often the randomisation test calls equal systems
different at 5 %, and how often it finds a difference of the size called detectable. The last line
compares the time of one interval with the textbook's (draw clusters, list questions, average).
"""

from __future__ import annotations

import argparse
import random
import sys
import time

import numpy as np

from agentic_r.evaluation.benchmark import Record
from agentic_r.evaluation.bootstrap import draws, interval
from agentic_r.evaluation.significance import contest

RATE = 0.4


def system(clusters: int, seed: str, lift: float = 0.0) -> list[Record]:
    """Simulate one system; equal seeds give the same questions, `seed` and lift the answers."""
    sizes, answers = random.Random(f"sizes:{clusters}"), random.Random(seed)
    records = []
    for root in range(clusters):
        easy = answers.betavariate(2 * RATE, 2 * (1 - RATE))
        for n in range(sizes.randint(1, 5)):
            right = float(answers.random() < min(1.0, easy + lift))
            records.append(Record("made", f"{root}-{n}", f"r{root}", right, right, 1))
    return records


def coverage(clusters: int, repeats: int) -> float:
    """Return the share of intervals that hold the true rate."""
    held = 0
    for repeat in range(repeats):
        drawn = draws(system(clusters, f"c{repeat}"), ["em"], 1000, repeat)[:, 0]
        ends = interval(drawn, clusters, fraction=True)
        held += ends is not None and ends[0] <= RATE <= ends[1]
    return held / repeats


def size(clusters: int, repeats: int) -> float:
    """Return how often equal systems are called different at 5 %."""
    ps = [
        contest(system(clusters, f"a{n}"), system(clusters, f"b{n}"), ("b", "a"), samples=400).p
        for n in range(repeats)
    ]
    return float(np.mean([p <= 0.05 for p in ps]))


def power(clusters: int, repeats: int) -> tuple[float, float]:
    """Return the detectable difference of one pair, and how often it is found."""
    one = contest(system(clusters, "a"), system(clusters, "b"), ("b", "a"), samples=4000)
    found, seen = 0, []
    for n in range(repeats):
        # Chances are capped at 1, so the true lift is measured, not assumed.
        new = system(clusters, f"p{n}", lift=1.05 * one.detectable)
        result = contest(system(clusters, f"q{n}"), new, ("new", "old"), samples=400)
        found += result.p <= 0.05
        seen.append(result.difference)
    return float(np.mean(seen)) / one.detectable, found / repeats


def textbook(records: list[Record], samples: int) -> float:
    """Return the seconds of the plain bootstrap."""
    began = time.perf_counter()
    by_root: dict[str, list[float]] = {}
    for record in records:
        by_root.setdefault(record.root, []).append(record.em)
    draw, roots = random.Random(0), list(by_root)
    for _ in range(samples):
        values = [em for root in draw.choices(roots, k=len(roots)) for em in by_root[root]]
        _ = sum(values) / len(values)
    return time.perf_counter() - began


def main() -> int:
    """Print all of it; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=500, help="simulations a figure")
    repeats = parser.parse_args().repeats
    print("clusters  coverage of 95 %  size at 5 %  lift / detectable  found")
    for clusters in (30, 125, 400):
        share, found = power(clusters, repeats)
        print(
            f"{clusters:>8}  {coverage(clusters, repeats):>16.3f}  {size(clusters, repeats):>11.3f}"
            f"  {share:>17.2f}  {found:>5.2f}"
        )
    records = system(1000, "speed")
    slow = textbook(records, 500) * 20
    began = time.perf_counter()
    draws(records, ["em"], 10_000, 0)
    fast = time.perf_counter() - began
    print(
        f"one interval, 10,000 draws of 1,000 clusters: {fast:.2f} s; {slow / fast:.0f} x textbook"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
