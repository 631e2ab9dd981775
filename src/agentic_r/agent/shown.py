"""A trajectory for people: one turn at a time, in colour where the terminal has it."""

from __future__ import annotations

import os
import re
from typing import TextIO

from agentic_r.types import Trajectory

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CODES = {"query": "1;33", "answer": "1;32", "shown": "2", "note": "1;31"}


def in_colour(stream: TextIO) -> bool:
    """Say whether to write colours: to a terminal that has them, unless NO_COLOR is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def turn_text(trajectory: Trajectory, colour: bool = False) -> str:
    """Show the last turn: what the agent wrote, what it was shown, queries and answer marked.

    Control characters in what models and passages wrote are shown as `?`, because a terminal
    would obey them.
    """
    turn = trajectory.turns[-1]
    text = _clean(turn.text.strip())
    for search in turn.searches:
        text = _marked(text, _clean(search.query), "query", colour)
    if turn.answer is not None:
        text = _marked(text, _clean(turn.answer), "answer", colour)
    found = len(turn.searches)
    parts = [f"[turn {len(trajectory.turns)}] {text}"]
    if turn.observation:
        parts.append(_painted(_clean(turn.observation.strip()), "shown", colour))
    elif found:
        parts.append(_painted("(nothing found)", "shown", colour))
    return "\n".join(parts) + "\n"


def end_text(trajectory: Trajectory, colour: bool = False) -> str:
    """Say how it ended: the answer, or why there is none."""
    if trajectory.answer is not None:
        return f"Answer: {_painted(_clean(trajectory.answer), 'answer', colour)}"
    why = trajectory.stop or "unfinished"
    more = f", {_clean(trajectory.error)}" if trajectory.error else ""
    return f"Answer: {_painted(f'(none: {why}{more})', 'note', colour)}"


def _marked(text: str, part: str, kind: str, colour: bool) -> str:
    """Paint the last place of `part` in a text that is not painted there yet."""
    before, found, after = text.rpartition(part) if part else (text, "", "")
    return before + _painted(found, kind, colour) + after if found else text


def _painted(text: str, kind: str, colour: bool) -> str:
    return f"\x1b[{_CODES[kind]}m{text}\x1b[0m" if colour and text else text


def _clean(text: str) -> str:
    return _CONTROL.sub("?", text)
