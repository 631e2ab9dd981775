"""Prompt files: what a dialect says to the model, with places for the question and the like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from agentic_r.errors import ConfigError

_SECTION = re.compile(r"^=== ([a-z]+) ===\n", re.MULTILINE)
_PLACE = re.compile(r"\{([a-z_]+)\}")


class Template:
    """The sections of a prompt file by name; a file without section lines is one, "user".

    A section begins with a line such as `=== system ===`. In a file without such lines every
    character counts; in one with them, the spaces around a section do not.
    """

    def __init__(self, text: str, where: str) -> None:
        parts = _SECTION.split(text)
        self.where = where
        self.sections = {"user": text}
        if len(parts) > 1:
            if parts[0].strip():
                raise ConfigError(f"{where}: got text before the first === section ===")
            bodies = (body.strip() for body in parts[2::2])
            self.sections = dict(zip(parts[1::2], bodies, strict=True))

    def require(self, section: str, places: Sequence[str]) -> None:
        """Raise ConfigError unless the section is there and has all the places."""
        if section not in self.sections:
            found = ", ".join(self.sections)
            raise ConfigError(
                f"{self.where}: got the sections {found}, expected one that begins with a line "
                f"=== {section} ==="
            )
        text = self.sections[section]
        for place in places:
            if f"{{{place}}}" not in text:
                raise ConfigError(
                    f"{self.where} has no {{{place}}} in it (it begins {text[:40]!r}); "
                    f"put {{{place}}} where the {place} belongs"
                )

    def fill(self, section: str, **values: str) -> str:
        """Return a section with `values` in their places, "" where there is no such section.

        All are put in at once, so that a value that looks like a place stays as it is; braces
        that name no value stay too.
        """

        def put(match: re.Match[str]) -> str:
            return values.get(match.group(1), match.group(0))

        return _PLACE.sub(put, self.sections.get(section, ""))


def packaged(name: str) -> str:
    """Return the text of a prompt file that comes with the package."""
    file = resources.files(__package__).joinpath("prompts", f"{name}.txt")
    return file.read_text(encoding="utf-8")


def read_file(file: str | Path, key: str) -> str:
    """Read a user's prompt file; raises ConfigError that names the setting `key`."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: cannot read {file}: {error}") from error
