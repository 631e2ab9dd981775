"""Checkpoints of a training on the disk: the last few, the best one, and the finished model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from agentic_r.agent.local import LocalLLM
from agentic_r.errors import RunError
from agentic_r.training.processes import ALONE, Processes


class Saved:
    """The checkpoints below `folder`; all but the `keep` newest are deleted.

    Of several processes the first one reads and writes, and tells the others what it read.
    """

    def __init__(self, folder: Path, keep: int, processes: Processes = ALONE) -> None:
        self._processes = processes
        self._best = folder / "best.pt"
        self._folder = folder / "checkpoints"
        self._keep = keep

    def save(self, state: dict[str, Any], step: int) -> None:
        """Write the checkpoint of a step, then delete the oldest."""
        if not self._processes.first:
            return
        _write(state, self._folder / f"step-{step:07d}.pt")
        for path in self._all()[: -self._keep]:
            path.unlink()

    def save_best(self, state: dict[str, Any]) -> None:
        """Write the best checkpoint so far."""
        if self._processes.first:
            _write(state, self._best)

    def last(self) -> dict[str, Any] | None:
        """Return the newest checkpoint, None where there is none."""
        found = self._all() if self._processes.first else []
        return self._processes.tell(_read(found[-1]) if found else None)

    def best(self) -> dict[str, Any]:
        """Return the best checkpoint. Raises RunError where there is none."""
        if self._processes.first and not self._best.is_file():
            raise RunError(f"{self._best} is missing; delete the folder to train again")
        return self._processes.tell(_read(self._best) if self._processes.first else {})

    def drop_after(self, step: int) -> None:
        """Delete the checkpoints behind a step."""
        for path in self._all() if self._processes.first else ():
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()

    def discard(self) -> None:
        """Delete everything: the finished model is elsewhere."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._best.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        return sorted(self._folder.glob("step-*.pt"))


def save_model(
    model: Any,
    weights: dict[str, torch.Tensor],
    llm: LocalLLM,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write weights, by default in bfloat16, tokenizer and prompt, as `LocalLLM` opens them.

    `weights` are all of the model's; the model says what they belong to.
    """
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    if not model.config.get_text_config().tie_word_embeddings:
        tied = set()
    state = {k: v.to(dtype) for k, v in weights.items() if k not in tied}
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary, state_dict=state)
    llm.tokenizer.save_pretrained(temporary)
    if llm.template is not None:
        (temporary / "prompt.txt").write_text(llm.template, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _write(state: dict[str, Any], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror}; make room") from error


def _read(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state
