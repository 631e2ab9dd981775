"""The state of a training that was interrupted, in one file that is whole or absent."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from agentic_r.errors import DataError, MismatchError
from agentic_r.retriever.atomic import written_whole

CHECKPOINT_FILE = "checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    """Weights that learn, optimiser state and history of the training that `key` stands for.

    Order of the data and learning rate follow from the seed and the step, and nothing else is
    random, so this is all there is. `mined` are the negatives found before epoch `mined_for`,
    `best` the weights that were best on dev, where they are kept.
    """

    key: str
    model: dict[str, Any]
    optimiser: dict[str, Any]
    curve: list[dict[str, float]]
    dev: list[dict[str, float]] = field(default_factory=list)
    mined: list[list[str]] = field(default_factory=list)
    mined_for: int = 0
    best: dict[str, Any] | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in `folder`. Raises RunError where it cannot be written."""
    with written_whole(folder / CHECKPOINT_FILE) as temporary:
        torch.save(vars(checkpoint), temporary)


def load_checkpoint(folder: Path, key: str) -> Checkpoint | None:
    """Read the checkpoint of the training `key`; None where the folder has none.

    Raises MismatchError for the checkpoint of another training, DataError for a damaged one.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    try:
        checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{path}: damaged ({type(error).__name__}); delete it to train from the start"
        ) from error
    if checkpoint.key != key:
        raise MismatchError(
            f"{path}: got the checkpoint of training {checkpoint.key}, expected {key} (other "
            "examples, settings, seed or encoder); delete it or use another folder"
        )
    return checkpoint


def discard_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a training whose result is saved, and what a kill left of one."""
    path = folder / CHECKPOINT_FILE
    path.unlink(missing_ok=True)
    path.with_name(f".{CHECKPOINT_FILE}.tmp").unlink(missing_ok=True)
