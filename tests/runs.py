"""Small runs of the whole loop, and what two of them can be compared by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORLD = """
[world]
people = 14
companies = 10
cities = 10
films = 10
novels = 10
train_questions = 24
dev_questions = 6
test_questions = 24
"""

SMALL = """
[retriever.train]
epochs = 1
batch = 8
negatives = 2

[agent]
model = "AGENT"
max_tokens = 96
batch = 4

[utility]
negatives = 5

[evaluation]
ks = [1, 2]
bootstrap = 200
"""
"""An agent in chunks of 8 questions, and a short training."""


def write_config(
    folder: Path,
    data: str = WORLD,
    *,
    runs: Path | str = "runs",
    agent: Path | str = "oracle-reader",
) -> Path:
    """Write the config of the run `runs`/small."""
    path = folder / "small.toml"
    rest = SMALL.replace("AGENT", str(agent))
    path.write_text(f'name = "small"\nruns = "{runs}"\n{data}{rest}')
    return path


def read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def results(run: Path) -> dict[str, Any]:
    """All that a run found out, by file: bytes, or values where a file also holds seconds."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if not path.is_file() or path.name in ("lock", "config.json"):
            continue
        if path.name == "report.html":
            found[name] = "there"
        elif path.name == "curve.jsonl":
            found[name] = [without_seconds(line) for line in read_lines(path)]
        elif path.suffix == ".json":
            found[name] = without_seconds(read_json(path))
        else:
            found[name] = path.read_bytes()
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Name the files in which two runs differ."""
    return [name for name in sorted(one | other) if one.get(name) != other.get(name)]


def without_seconds(value: Any) -> Any:
    """Leave out how long things took, and the digests of files that say so."""
    if isinstance(value, dict):
        dropped = ("seconds", "stages", "row.json", "curve.jsonl")
        return {
            key: without_seconds(held)
            for key, held in value.items()
            if key not in dropped and not key.endswith("_seconds")
        }
    return [without_seconds(held) for held in value] if isinstance(value, list) else value


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Return {file: (when it was written, inode)}: unchanged where nothing was done again."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[str(path.relative_to(folder))] = (path.stat().st_mtime_ns, path.stat().st_ino)
    return found
