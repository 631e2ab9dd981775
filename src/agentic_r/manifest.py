"""What a stage leaves in its folder: the manifest, the outputs with their digests, no debris.

The files of a stage are written once or replaced whole, never changed in place; so a fork may
link to them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agentic_r.errors import RunError
from agentic_r.io import digest_file

T = TypeVar("T")

OWN = frozenset({"manifest.json", "start.json", "seconds.json"})
"""Files of a stage's folder that are no outputs."""

DIGEST_AT_OPEN = 64 << 20
"""Outputs up to this size (bytes) are digested when a run is opened; larger ones only measured."""


class Output(msgspec.Struct, frozen=True):
    """One file that a stage left: bytes and sha256."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a finished stage did. `facts` holds what else the stage wanted kept."""

    stage: str
    order: int
    fingerprint: str
    settings: Any
    inputs: dict[str, str]
    counts: dict[str, int]
    reasons: dict[str, int]
    seconds: float
    outputs: dict[str, Output]
    facts: dict[str, Any] = {}


class Start(msgspec.Struct, frozen=True):
    """What a stage was begun with, written before anything else."""

    order: int
    settings: Any
    inputs: dict[str, str]


def read(path: Path, type: type[T]) -> T | None:
    """Read a JSON file as `type`, None where there is none. Raises RunError where it is damaged."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(raw, type=type)
    except msgspec.DecodeError as error:
        raise RunError(
            f"{path} is damaged ({error}); delete {path.parent} to make it again"
        ) from None


def verify(folder: Path, manifest: Manifest) -> None:
    """Check that every output is there and whole. Raises RunError naming the damaged file."""
    for name, output in manifest.outputs.items():
        path = folder / name
        if not path.exists():
            problem = "is missing"
        elif path.stat().st_size != output.size:
            problem = f"has {path.stat().st_size} bytes, expected {output.size}"
        elif output.size <= DIGEST_AT_OPEN and digest_file(path) != output.sha256:
            problem = "has other bytes than when the stage finished"
        else:
            continue
        raise RunError(f"{path} is damaged: it {problem}; delete {folder} to make it again")


def outputs(folder: Path) -> list[str]:
    """List the files of a stage's folder, sub-folders too, that are its outputs."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder) for path in files)
    return sorted(str(name) for name in names if str(name) not in OWN)


def output(path: Path) -> Output:
    """Bring one output to the disk and measure it."""
    path.chmod(0o644)  # safetensors leaves 0600, which a server under another user cannot read
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return Output(path.stat().st_size, digest_file(path))


def link(source: Path, target: Path) -> None:
    """Link a file that is never changed in place; copy it where links cannot be had."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def remove(folder: Path) -> None:
    """Remove a folder so that a kill half-way leaves none that looks whole."""
    if folder.exists():
        trash = folder.with_name(f".{folder.name}.{os.getpid()}.trash")
        folder.rename(trash)
        shutil.rmtree(trash)


def sweep(folder: Path) -> None:
    """Clear away what earlier processes were killed over."""
    for trash in folder.parent.glob(f".{folder.name}.*.trash"):
        shutil.rmtree(trash)
    for temporary in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            temporary.unlink()
