"""What every conversion asks of the files that it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agentic_r.errors import ConfigError, DataError
from agentic_r.io import write_atomic


def refuse_overwriting(targets: Sequence[Path | str], sources: Sequence[Path | str]) -> None:
    """Raise ConfigError where a file or folder to write is one that is read, or is named twice."""
    read = {Path(source).resolve() for source in sources if source}
    for target in (Path(target) for target in targets if target):
        if target.resolve() in read:
            raise ConfigError(
                f"{target}: got a target that is read or written already, expected another; "
                "name a new file"
            )
        read.add(target.resolve())


def write_new(files: Mapping[Path, bytes]) -> None:
    """Write all files, or none where one of them is there with other content.

    A file that is there as it would be written does no harm, so the same command may be given
    again. Raises DataError for other content, RunError where a file cannot be written.
    """
    for path, data in files.items():
        if path.is_file() and path.read_bytes() != data:
            raise DataError(
                f"{path}: got a file that is there with other content, as of another iteration or "
                "agent, expected none; nothing was written: name another folder or --agent, or "
                "take the file away first"
            )
    for path, data in files.items():
        write_atomic(path, data)
