"""Where a training can be watched from outside: TensorBoard, trackio or wandb, by name."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from agentic_r.errors import ConfigError

Tags = Mapping[str, float]


class Tracker(Protocol):
    """Takes the numbers of a step."""

    def log(self, step: int, values: Tags) -> None:
        """Record values by name."""

    def close(self) -> None:
        """Write down what is still held."""


class NoTracker:
    """Records nothing."""

    def log(self, step: int, values: Tags) -> None:
        """Drop the values."""

    def close(self) -> None:
        """Do nothing."""


class TensorBoard:
    """Event files in a folder: `tensorboard --logdir FOLDER` shows them."""

    def __init__(self, folder: Path) -> None:
        _imported("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def log(self, step: int, values: Tags) -> None:
        """Record values by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write down what is still held."""
        self._writer.close()


class Board:
    """A run of trackio or wandb, which speak alike; both go on with a run of the same name."""

    def __init__(self, package: str, name: str, settings: Mapping[str, Any]) -> None:
        self._package = _imported(package)
        self._package.init(project="agentic-r", name=name, config=dict(settings), resume="allow")

    def log(self, step: int, values: Tags) -> None:
        """Record values by name."""
        self._package.log(dict(values), step=step)

    def close(self) -> None:
        """Send what is still held and end the run."""
        self._package.finish()


def check_tracker(kind: str, key: str) -> None:
    """Raise ConfigError where the tracker that the setting `key` names is not installed.

    Nothing is imported: this can be asked before any work.
    """
    if kind != "none" and importlib.util.find_spec(kind) is None:
        raise ConfigError(_missing(kind, key))


def open_tracker(kind: str, name: str, folder: Path | None, settings: Mapping[str, Any]) -> Tracker:
    """Open a tracker by its name, "none" for none.

    Raises ConfigError where its package is missing, or TensorBoard has no folder to write to.
    """
    if kind == "none":
        return NoTracker()
    if kind == "tensorboard":
        if folder is None:
            raise ConfigError("tracker tensorboard: got no folder, expected one to write to")
        return TensorBoard(folder / "tensorboard")
    return Board(kind, name, settings)


def _imported(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigError(_missing(package, "train.tracker")) from None


def _missing(package: str, key: str) -> str:
    return f'{key}: {package} is not installed; pip install {package}, or set it to "none"'
