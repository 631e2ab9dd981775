"""The trajectories of a run folder, for the page that walks through them.

A stage is found by its name among those that the folder has: a name is never a path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agentic_r.metrics import score_question
from agentic_r.serve.wire import BadRequest
from agentic_r.types import Trajectory

FILE = "trajectories.jsonl"
PAGE = 50
"""Trajectories of one list."""


class _Lines(NamedTuple):
    """Where the lines of a file begin, for one state of it."""

    state: tuple[int, int]
    starts: list[int]


class RunReader:
    """Reads the finished and the growing stages of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._lines: dict[Path, _Lines] = {}

    def stages(self) -> list[dict[str, Any]]:
        """List the stages with trajectories: name and how many."""
        return [
            {"stage": name, "trajectories": len(self._starts(path))}
            for name, path in self._files().items()
        ]

    def listing(self, stage: str, start: int) -> dict[str, Any]:
        """List up to `PAGE` trajectories of a stage from `start` on, in a line each."""
        path = self._file(stage)
        starts = self._starts(path)
        rows = []
        for row in range(start, min(start + PAGE, len(starts))):
            found = self._read(path, row)
            rows.append(
                {
                    "row": row,
                    "question": found.question.text,
                    "answer": found.answer,
                    "stop": found.stop,
                    "searches": len(found.searches),
                    "correct": _correct(found),
                }
            )
        return {"stage": stage, "total": len(starts), "page": PAGE, "rows": rows}

    def trajectory(self, stage: str, row: int) -> dict[str, Any]:
        """Return one trajectory whole, and whether its answer is right."""
        path = self._file(stage)
        if row >= len(self._starts(path)):
            raise BadRequest(404, f"stage {stage} has {len(self._starts(path))} trajectories")
        found = self._read(path, row)
        return {"trajectory": found, "answer": found.answer, "correct": _correct(found)}

    def _files(self) -> dict[str, Path]:
        """Find the files by stage; what leads out of the folder through a link is not one."""
        found = {}
        for path in sorted(self.folder.rglob(FILE)):
            if path.resolve().is_relative_to(self.folder) and path.is_file():
                found[str(path.parent.relative_to(self.folder))] = path
        return found

    def _file(self, stage: str) -> Path:
        path = self._files().get(stage)
        if path is None:
            raise BadRequest(404, f"the run has no stage {stage[:80]!r} with trajectories")
        return path

    def _starts(self, path: Path) -> list[int]:
        state = (path.stat().st_mtime_ns, path.stat().st_size)
        known = self._lines.get(path)
        if known is None or known.state != state:
            starts, at = [], 0
            with path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):  # a row that is being written is not there yet
                        starts.append(at)
                    at += len(line)
            known = self._lines[path] = _Lines(state, starts)
        return known.starts

    def _read(self, path: Path, row: int) -> Trajectory:
        with path.open("rb") as file:
            file.seek(self._starts(path)[row])
            line = file.readline()
        try:
            return msgspec.json.decode(line, type=Trajectory)
        except msgspec.DecodeError as error:
            raise BadRequest(409, f"{path.name}, row {row} is damaged: {error}") from None


def _correct(trajectory: Trajectory) -> bool | None:
    question = trajectory.question
    return score_question(question, trajectory.answer).em == 1.0 if question.answers else None
