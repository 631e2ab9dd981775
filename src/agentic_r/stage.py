"""Run one step once: a stage has a manifest or it did not happen.

    runs/NAME/lock  config.json  [fork.json]
    runs/NAME/answers/ROLE.jsonl     what servers answered, appended as it comes
    runs/NAME/STAGE/start.json       what the stage was started with: settings, inputs, order
    runs/NAME/STAGE/seconds.json     work done so far, over all restarts
    runs/NAME/STAGE/...              rows appended as they finish, other outputs
    runs/NAME/STAGE/manifest.json    written last: counts, reasons, seconds, outputs with digests

The same command again finds what is done and carries on with what is not.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from agentic_r.changes import CONCERNS, check_config, differences, refusal
from agentic_r.config import Config, resolved
from agentic_r.errors import RunError
from agentic_r.io import Rows, digest_file, fingerprint, write_atomic
from agentic_r.manifest import (
    Manifest,
    Start,
    link,
    output,
    outputs,
    read,
    remove,
    sweep,
    verify,
)

T = TypeVar("T")

ANSWERS = "answers"
"""Folder of a run that keeps what servers answered, so that none is paid for twice."""

_TICK = 2.0
"""Seconds between two writes of the seconds journal."""


class Run:
    """A run folder, held by this process until it is closed."""

    def __init__(self, folder: Path, lock: int, forked: bool) -> None:
        self.folder = folder
        self.forked = forked
        self._lock: int | None = lock
        self._stages = 0

    @classmethod
    def open(
        cls, folder: Path | str, config: Config, *, concerns: Mapping[str, str] = CONCERNS
    ) -> Run:
        """Make or reopen the run in `folder` and lock it for this process.

        Raises RunError where another process holds the run, and where the run was started with
        other settings: every changed key is named with both values and the stages concerned.
        """
        folder = Path(folder)
        lock = _acquire(folder)
        try:
            sweep(folder)
            before = read(folder / "config.json", dict[str, Any])
            if before is not None and _stage_folders(folder):  # something was done with them
                check_config(folder, before, config, concerns)
            write_atomic(folder / "config.json", _pretty(resolved(config)))
        except BaseException:
            os.close(lock)
            raise
        return cls(folder, lock, (folder / "fork.json").exists())

    @classmethod
    def fork(cls, old: Path | str, new: Path | str, config: Config) -> Run:
        """Open `new` with every finished stage of `old`; the stages that do not fit are redone.

        What servers answered `old` is carried along and not asked again; it counts among what the
        fork has spent.
        Calling it again carries the fork on. Raises RunError where `old` is no run, and where
        `new` is a run of its own.
        """
        old, new = Path(old), Path(new)
        if not (old / "config.json").exists():
            raise RunError(f"{old} is no run (it has no config.json), so it cannot be forked")
        origin = read(new / "fork.json", dict[str, str])
        if (new / "config.json").exists() and (origin or {}).get("from") != old.name:
            raise RunError(f"{new} is there and no fork of {old}; choose another --fork NAME")
        if not (new / "config.json").exists():
            lock = _acquire(new)
            try:
                write_atomic(new / "fork.json", _pretty({"from": old.name}))
                _copy_finished(old, new)
                _copy_answers(old, new)
                write_atomic(new / "config.json", _pretty(resolved(config)))
            finally:
                os.close(lock)
        return cls.open(new, config)

    def stage(self, name: str, settings: Any, inputs: Mapping[str, str] | None = None) -> Stage:
        """Open one stage: `settings` is anything msgspec can write, `inputs` names digests.

        Raises RunError where the stage was begun with other settings or inputs (in a fork it is
        deleted and begun anew), and where an output of a finished stage is damaged.
        """
        if self._lock is None:
            raise RunError(f"{self.folder} is closed; open the run again")
        self._stages += 1
        start = Start(self._stages, _plain(settings), dict(inputs or {}))
        return Stage(self.folder, name, start, self.forked)

    def close(self) -> None:
        """Let go of the run so that another process can open it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Stage:
    """One step of a run and its folder; made by `Run.stage`."""

    def __init__(self, run: Path, name: str, start: Start, forked: bool) -> None:
        self.name = name
        self.folder = run / name
        self._start = start
        self._fingerprint = _key(start)
        self._began = self._ticked = time.monotonic()
        sweep(self.folder)
        self._manifest = read(self.folder / "manifest.json", Manifest)
        before = self._manifest or read(self.folder / "start.json", Start)
        if before is not None and _key(before) != self._fingerprint:
            if not forked:
                raise RunError(refusal(self.folder, differences(before, start)))
            before = self._manifest = None
        if self._manifest is not None:
            verify(self.folder, self._manifest)
        elif before is None:
            remove(self.folder)  # of an unknown or unfit start nothing can be trusted
            write_atomic(self.folder / "start.json", _pretty(start))
        self._earlier = read(self.folder / "seconds.json", float) or 0.0

    @property
    def done(self) -> bool:
        """Whether the stage has finished, in this process or an earlier one."""
        return self._manifest is not None

    @property
    def manifest(self) -> Manifest:
        """What the finished stage did. Raises RunError where it has not finished."""
        if self._manifest is None:
            raise RunError(f"stage {self.folder} has not finished, so it has no manifest")
        return self._manifest

    def rows(self, filename: str, type: type[T]) -> Rows[T]:
        """Open an append-only file of the stage; of a finished stage it can only be read."""
        path = self.folder / filename
        return Rows(path, type, writable=not self.done, after=None if self.done else self.tick)

    def digest(self, filename: str) -> str:
        """Return the sha256 of an output, as the manifest has it once the stage has finished.

        Raises RunError where a finished stage has no such output, DataError where the file of an
        unfinished one is missing.
        """
        if self._manifest is None:
            return digest_file(self.folder / filename)
        output = self._manifest.outputs.get(filename)
        if output is None:
            raise RunError(f"stage {self.folder} has no output {filename}")
        return output.sha256

    @property
    def seconds(self) -> float:
        """Seconds of work, over all restarts."""
        if self._manifest is not None:
            return self._manifest.seconds
        return self._earlier + time.monotonic() - self._began

    def tick(self) -> None:
        """Write down the seconds so far, so that a kill does not forget them; cheap to call."""
        now = time.monotonic()
        if now - self._ticked >= _TICK and not self.done:
            self._ticked = now
            write_atomic(self.folder / "seconds.json", _pretty(self.seconds))

    def finish(
        self,
        counts: Mapping[str, int],
        reasons: Mapping[str, int] | None = None,
        **facts: Any,
    ) -> Manifest:
        """Close the stage: digest every file in its folder, then write the manifest last.

        `counts` says what was read and written, `reasons` why rows were skipped and how many.
        Raises RunError where the stage had finished before.
        """
        if self.done:
            raise RunError(f"stage {self.folder} has finished before; it cannot finish again")
        sweep(self.folder)
        files = {name: output(self.folder / name) for name in outputs(self.folder)}
        start = self._start
        manifest = Manifest(
            stage=self.name,
            order=start.order,
            fingerprint=self._fingerprint,
            settings=start.settings,
            inputs=start.inputs,
            counts=dict(counts),
            reasons=dict(reasons or {}),
            seconds=round(self.seconds, 3),
            outputs=files,
            facts=_plain(facts),
        )
        write_atomic(self.folder / "manifest.json", _pretty(manifest))
        (self.folder / "seconds.json").unlink(missing_ok=True)
        self._manifest = manifest
        return manifest


def status(folder: Path | str) -> list[tuple[str, str, dict[str, int]]]:
    """List (stage, state, counts) of a run in the order in which the stages ran.

    The state is "done", "damaged" or "unfinished"; an unfinished stage counts the rows it has.
    Raises RunError where the folder is no run.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise RunError(f"{folder} is no run (it has no config.json); check the path")
    found: list[tuple[int, str, str, dict[str, int]]] = []
    for stage in _stage_folders(folder):
        name = str(stage.relative_to(folder))
        manifest = read(stage / "manifest.json", Manifest)
        if manifest is not None:
            found.append((manifest.order, name, _state(stage, manifest), manifest.counts))
            continue
        begun = read(stage / "start.json", Start)
        rows = {path.name: _count_lines(path) for path in sorted(stage.glob("*.jsonl"))}
        found.append((begun.order if begun else 0, name, "unfinished", rows))
    return [(name, state, counts) for _, name, state, counts in sorted(found, key=lambda s: s[:2])]


def _acquire(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"{folder}: no run can be made here: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        other = os.read(handle, 32).decode() or "?"
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise RunError(
                f"{folder} is in use by process {other}; wait for it to end, or use another run"
            ) from None
        raise RunError(f"{folder}: the run cannot be locked: {error.strerror}") from error
    os.truncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _key(start: Manifest | Start) -> str:
    return fingerprint([start.settings, start.inputs])


def _state(folder: Path, manifest: Manifest) -> str:
    try:
        verify(folder, manifest)
    except RunError:
        return "damaged"
    return "done"


def _stage_folders(run: Path) -> list[Path]:
    folders = [start.parent for start in run.rglob("start.json")]
    return sorted(folder for folder in folders if folder.suffix != ".trash")


def _copy_finished(old: Path, new: Path) -> None:
    for source in _stage_folders(old):
        if read(source / "manifest.json", Manifest) is None:
            continue
        target = new / source.relative_to(old)
        for name in ["start.json", *outputs(source), "manifest.json"]:
            link(source / name, target / name)


def _copy_answers(old: Path, new: Path) -> None:
    """Copy what servers answered: the files grow in place, so they cannot be links."""
    for path in sorted((old / ANSWERS).glob("*.jsonl")):
        (new / ANSWERS).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, new / ANSWERS / path.name)


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.endswith(b"\n"))


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
