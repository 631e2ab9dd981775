"""How long `agentic-r --help` and a config error take, beside a Python that does nothing.

    python benchmarks/startup.py [--runs 21]

The commands take turns, so that a slow moment of the machine meets them all. Printed are medians:
seconds on the clock and of the processor (the second is right on a busy machine too), and how many
times as long the command takes on the clock as `python -c pass`.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
PROGRAM = [sys.executable, "-m", "agentic_r.cli"]


def commands(folder: Path) -> dict[str, tuple[list[str], int]]:
    """Return {what: (command, exit code)}; `folder` takes the faulty config."""
    config = folder / "faulty.toml"
    config.write_text("[retriever]\nkk = 3\n")
    return {
        "python -c pass": ([sys.executable, "-c", "pass"], 0),
        "agentic-r --help": ([*PROGRAM, "--help"], 0),
        "agentic-r loop --help": ([*PROGRAM, "loop", "--help"], 0),
        "agentic-r loop, unknown key": ([*PROGRAM, "loop", str(config)], 2),
        "agentic-r loop, wrong type": ([*PROGRAM, "loop", str(config), "--seed", "x"], 2),
    }


def processor() -> float:
    """Return the processor seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(command: list[str], code: int, caches: Path) -> tuple[float, float]:
    """Run a command to its end and return its seconds on the clock and of the processor.

    Compiled modules go to `caches`. Raises RuntimeError where it exits with another code.
    """
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPATH": str(SOURCE), "PYTHONPYCACHEPREFIX": str(caches)}
    began, used = time.perf_counter(), processor()
    done = subprocess.run(command, env=env, capture_output=True)
    took = time.perf_counter() - began, processor() - used
    if done.returncode != code:
        raise RuntimeError(f"{command}: got {done.returncode}, expected {code}: {done.stderr!r}")
    return took


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=21, help="runs of each command")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        measured = commands(Path(folder))
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in measured}
        for turn in range(runs + 1):
            for name, (command, code) in measured.items():
                found = seconds(command, code, Path(folder))
                if turn:  # the first turn fills the caches
                    took[name].append(found)
    base = statistics.median(clock for clock, _ in took["python -c pass"])
    print(f"{runs} runs each, Python {sys.version.split()[0]}, {os.cpu_count()} CPU cores\n")
    print(f"{'':<28} {'clock s':>8} {'best':>8} {'CPU s':>8} {'x python':>8}")
    for name, times in took.items():
        clock, used = (statistics.median(column) for column in zip(*times, strict=True))
        best = min(found for found, _ in times)
        print(f"{name:<28} {clock:8.3f} {best:8.3f} {used:8.3f} {clock / base:8.1f}")


if __name__ == "__main__":
    main()
