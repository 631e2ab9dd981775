"""Reads what agents write: tags, ends of text, thinking, and the budget that is left."""

from __future__ import annotations

import re
from collections.abc import Iterable

from agentic_r.types import Question, Search, Trajectory, Turn

ENDS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>")
"""End-of-text markers that some servers leave in the text."""

_THOUGHT = re.compile(r"^.*</think>", re.DOTALL)


def without_end(text: str) -> str:
    """Drop trailing space and end-of-text markers."""
    body = text.rstrip()
    while body.endswith(ENDS):
        body = body[: body.rfind("<|")].rstrip()
    return body


def between(text: str, start: str, end: str) -> str | None:
    """Return what stands in the last whole pair of `start` and `end`, stripped; None if none."""
    found = re.findall(f"{re.escape(start)}(.*?){re.escape(end)}", text, re.DOTALL)
    return found[-1].strip() if found else None


def answers(body: str, text: str, start: str, end: str) -> str | None:
    """Return the answer of a turn that ends with `end`, or holds it and ends the text (B8).

    `body` is `text` without what `without_end` drops.
    """
    if body.endswith(end) or (end in body and body != text.rstrip()):
        return between(body, start, end)
    return None


def short_answer(text: str) -> str:
    """Return what a plain reply answers: the first line after any thinking, or its last tag."""
    body = without_end(text)
    tagged = between(body, "<answer>", "</answer>")
    if tagged is not None:
        return tagged
    lines = _THOUGHT.sub("", body).strip().splitlines()
    return lines[0].strip() if lines else ""


def model_calls(turns: Iterable[Turn]) -> int:
    """Count the turns that a model wrote; the others the protocol made by itself."""
    return sum(turn.status != "given" for turn in turns)


def is_last(trajectory: Trajectory, turns: int) -> bool:
    """Say whether the turn after `trajectory` is the last that `turns` model calls allow."""
    return model_calls(trajectory.turns) + 1 >= turns


def unread(text: str, finish: str) -> Turn:
    """Return the turn of a text that could not be read."""
    return Turn(text, "length" if finish == "length" else "invalid")


def given(question: Question) -> Turn:
    """Return the turn of a protocol that retrieves for the question before the first call."""
    return Turn("", "given", (Search(question.text, ""),))
