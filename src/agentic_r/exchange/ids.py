"""Ids in other systems' files: numbers do, and the id of a search tells that of its question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    Id = str
else:
    Id = str | int
"""An id as it stands in a file; `as_text` makes a string of a number."""

_LONGEST = 18
"""Digits of a row number at most: Python refuses to read thousands of them."""


def as_text(row: msgspec.Struct, *fields: str) -> None:
    """Turn these fields of a row, each an id or a tuple of ids, into strings."""
    for field in fields:
        value = getattr(row, field)
        text = tuple(map(str, value)) if isinstance(value, tuple) else str(value)
        msgspec.structs.force_setattr(row, field, text)


def is_number(id: str) -> bool:
    """Say whether an id is a number written in ASCII digits, which `int` reads."""
    return id.isascii() and id.isdecimal() and len(id) <= _LONGEST


def search_id(question_id: str, number: int) -> str:
    """Name one search in formats whose ids must be unique."""
    return f"{question_id}#{number}"


def question_of(id: str, marked: Any) -> str:
    """Return the question of a search that `search_id` named, else the id as it is.

    `marked` is the question id that our files hold beside; an ending alone may be anyone's.
    """
    if isinstance(marked, str):
        question, mark, number = id.rpartition("#")
        if mark and question == marked and is_number(number):
            return question
    return id
