"""The outcome of an engine trial, kept: the next start of a service takes the engine at once.

    FOLDER/KEY.json   one outcome; the key stands for model, processor, threads and libraries

A trial takes some CPU-seconds, and OpenVINO's conversions more; its outcome changes with nothing
but what the key is made of.
"""

from __future__ import annotations

import logging
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import torch

from agentic_r.errors import ConfigError, MissingExtraError, RunError
from agentic_r.io import fingerprint, write_atomic
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.engine import Choice, Engine, open_choice

_RULES = 1
"""Outcomes of trials by other rules are not taken."""

_LIBRARIES = ("agentic-r", "torch", "transformers", "numpy", "openvino")

_SAYS = frozenset({"model name", "flags", "cpu cores", "Features"})
"""Lines of /proc/cpuinfo that tell processors apart."""

log = logging.getLogger("agentic_r.retriever")


class Outcome(msgspec.Struct, frozen=True):
    """The engine that was fastest, and what a call of it costs in tokens."""

    engine: Choice
    call: float


def key(encoder: Encoder) -> str:
    """Return what stands for all that an outcome depends on: 16 hexadecimal digits."""
    device = encoder.device
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    processor = [str(device), card, platform.machine(), torch.get_num_threads(), _cpu()]
    libraries = {name: _version(name) for name in _LIBRARIES}
    return fingerprint([_RULES, encoder.fingerprint, processor, libraries])


def remembered(folder: Path, encoder: Encoder) -> tuple[Engine, float] | None:
    """Open the engine that an earlier trial found; None where there was none like this.

    An outcome that cannot be read, or whose engine does not open any more, counts as none.
    """
    try:
        raw = (folder / f"{key(encoder)}.json").read_bytes()
        found = msgspec.json.decode(raw, type=Outcome)
        return open_choice(encoder, found.engine), found.call
    except (OSError, msgspec.DecodeError, ConfigError, MissingExtraError):
        return None


def remember(folder: Path, encoder: Encoder, choice: Choice, call: float) -> None:
    """Keep an outcome; a folder that cannot be written to costs the next start a trial."""
    path = folder / f"{key(encoder)}.json"
    try:
        write_atomic(path, msgspec.json.encode(Outcome(choice, call)))
    except RunError as error:
        log.warning("the engine trial is not kept: %s", error)


def _cpu() -> list[str]:
    """Return what the first processor says of itself."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return [platform.processor()]
    return [line for line in first.splitlines() if line.partition("\t")[0].strip() in _SAYS]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
