"""Agent protocols, one file each; `dialect` finds one by its name."""

from __future__ import annotations

from pathlib import Path

from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.errors import ConfigError
from agentic_r.protocols import Dialect

__all__ = ["SearchR1", "dialect"]


def dialect(name: str, prompt_file: str | Path = "", prompt: str | None = None) -> Dialect:
    """Make the dialect called `name`, with the instruction of `prompt_file` where one is given.

    `prompt` is the instruction to use when there is no file; without either the dialect's own
    is used. Raises ConfigError for an unknown name and for a file that cannot be read.
    """
    if name != "search-r1":
        raise ConfigError(f'agent.dialect: got {name!r}, expected "search-r1"')
    if prompt_file:
        try:
            prompt = Path(prompt_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"agent.prompt_file: cannot read {prompt_file}: {error}") from error
    return SearchR1(prompt)
