"""What the model-backed judges share: prompt files, data that stays data, connections."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from agentic_r.errors import ConfigError, DataError
from agentic_r.protocols import ChatLLM, Sampling, StructuredLLM

_SECTION = re.compile(r"^=== (system|user) ===\n", re.MULTILINE)
_PLACE = re.compile(r"\{([a-z_]+)\}")
_THOUGHT = re.compile(r"^.*</think>", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(r"\[(\s*\d+\s*)\]")
_SUB_ANSWER = re.compile(r"<(\s*/?\s*sub-answer\s*)>", re.IGNORECASE)
_SPECIAL = re.compile(r"<(\|[^<>]*\|)>")
_OPEN, _CLOSE = "\u2039", "\u203a"


class Prompt(msgspec.Struct, frozen=True):
    """A system message and a user message with places such as `{query}`."""

    system: str
    user: str

    def fill(self, **values: str) -> tuple[str, str]:
        """Put `values` into their places, all at once, and return (system, user).

        A value that itself looks like a place is not filled again, and braces that name no
        value stay as they are, so that a prompt may show JSON.
        """

        def put(match: re.Match[str]) -> str:
            return values.get(match.group(1), match.group(0))

        return _PLACE.sub(put, self.system), _PLACE.sub(put, self.user)


def load_prompt(name: str, file: str | Path = "", *, places: tuple[str, ...] = ()) -> Prompt:
    """Read the packaged prompt `name`, or the user's own `file` in its place.

    A prompt file has a line `=== system ===` and a line `=== user ===`, each followed by its
    message. Raises DataError when the file is missing, lacks a section, or its user message
    lacks one of `places`.
    """
    if file:
        where = str(file)
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{where}: cannot read this prompt file: {error}") from error
    else:
        where = f"{name}.txt"
        packaged = resources.files("agentic_r.utility") / "prompts" / where
        text = packaged.read_text(encoding="utf-8")
    parts = _SECTION.split(text)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    for section in ("system", "user"):
        if section not in sections:
            raise DataError(f"{where}: expected a line '=== {section} ===' with a message below")
    for place in places:
        if f"{{{place}}}" not in sections["user"]:
            raise DataError(f"{where}: expected {{{place}}} in the user message, got none")
    return Prompt(sections["system"].strip(), sections["user"].strip())


def one_line(text: str) -> str:
    """Show a text as one line of data that can imitate neither a tag nor a numbered item."""
    flat = " ".join(text.split())
    return _LABEL.sub(r"(\1)", flat.replace("<", _OPEN).replace(">", _CLOSE))


def quoted_trajectory(text: str) -> str:
    """Show a transcript with its protocol tags, but without the tags of a reply or a chat."""
    shown = rf"{_OPEN}\1{_CLOSE}"
    return _SPECIAL.sub(shown, _SUB_ANSWER.sub(shown, text)).strip()


async def ask(
    chat: ChatLLM, system: str, user: str, sampling: Sampling, schema: dict[str, Any] | None
) -> str:
    """Ask a chat model, held to a JSON schema where one is given and the model can be held.

    A model that can has a method `structured` beside `chat` (protocols.StructuredLLM).
    """
    if schema is not None and isinstance(chat, StructuredLLM):
        (name,) = schema["properties"]
        user += f'\nWrite them as JSON: {{"{name}": [...]}}.'
        return await chat.structured(system, user, sampling, schema)
    return await chat.chat(system, user, sampling)


async def named(chat: object) -> str:
    """Return what identifies a chat model, as its method `named` says.

    Raises ConfigError where it has none: what it says cannot be kept, for another model of its
    kind would be given it.
    """
    name = getattr(chat, "named", None)
    if name is None:
        raise ConfigError(
            f"what {type(chat).__name__} says cannot be kept, since it does not say which model it "
            "is; give it `async def named(self) -> str`, or leave the cache out"
        )
    return str(await name())


async def close(holder: object) -> None:
    """Close the connections of `holder` where it has an `aclose`; they belong to one event loop."""
    aclose = getattr(holder, "aclose", None)
    if aclose is not None:
        await aclose()


def without_thought(reply: str) -> str:
    """Drop what a reasoning model wrote before it closed its last `</think>`."""
    return _THOUGHT.sub("", reply)
