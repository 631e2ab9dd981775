"""What every conversion asks of the files that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agentic_r.errors import ConfigError


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
