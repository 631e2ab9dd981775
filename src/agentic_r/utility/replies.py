"""Reading what a judge's model wrote: scores in any of the forms that models use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from agentic_r.utility.prompting import without_thought

Item = tuple[int | None, float | None]
"""The number of a passage, None where the order says it, and its score, None for "n/a"."""

_NUMBER = r"-?\d+(?:\.\d+)?"
_LABELLED = re.compile(
    rf"""\[\s*(\d{{1,6}})\s*\]\s*(?:[:=]|-(?=\s))?\s*({_NUMBER})
       |passage\s*\#?\s*(\d{{1,6}})(?:\s*[:=]\s*|\s+-\s+|\s+)({_NUMBER})
       |(?<![\d.])(\d{{1,6}})["']?\s*[:=]\s*({_NUMBER})
       |^[ \t•-]*(\d{{1,6}})[ \t]*[.)]\s+({_NUMBER})
       |^[ \t]*(\d{{1,6}})[ \t]+[-–—][ \t]+({_NUMBER})""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_RULED = re.compile(r"^[\s|:+-]*\|[\s|:+-]*$", re.MULTILINE)
_SEPARATORS = re.compile(r"[\s,;|\[\](){}]+")
_SCORE = re.compile(rf"(?:{_NUMBER})[.%]?")
_NO_SCORE = frozenset(("n/a", "na", "nan", "none", "null", "unknown", "?", "-", "--"))
_SCORE_KEYS = ("score", "relevan", "rating", "grade", "value")
_LABEL_KEYS = ("passage", "index", "number", "id", "doc")


def parse_scores(reply: str, count: int) -> list[float | None]:
    """Read `count` scores from a judge's reply, each limited to 0-100, None where unreadable.

    Read are JSON (a list, scores by number, a list of objects), else labelled scores ("[1] 80",
    "Passage 2: 65", "3. 20") in any order, else the lines that hold nothing but numbers, in order,
    after a heading that ends in a colon too; where they are pairs whose first numbers count the
    passages, as in the rows of a table, these are labels. Labels that begin with 0 are read so.
    Surplus scores are ignored; "n/a" and the like keep their place. Prose is not searched for
    numbers, because "these 10 passages" is no score.
    """
    text = without_thought(reply).replace("*", "").replace("`", "")
    text = re.sub(r"(?<=\d)\s*/\s*100\b", "", text)
    items = _from_json(text)
    if items is None:
        text = _RULED.sub("", text).replace("|", " ")
        items = _labelled(text, count) or _bare(text, count)
    return _placed(items, count)


def _placed(items: list[Item], count: int) -> list[float | None]:
    """Put scores in the places of their labels, the first of a label; in order without labels."""
    labels = {label for label, _ in items if label is not None}
    if not labels:
        values = [score for _, score in items][:count]
        return [*values, *[None] * (count - len(values))]
    first = 0 if 0 in labels and count not in labels and (count == 1 or len(labels) > 1) else 1
    scores: list[float | None] = [None] * count
    for label, score in items:
        place = -1 if label is None else label - first
        if 0 <= place < count and scores[place] is None:
            scores[place] = score
    return scores


def _labelled(text: str, count: int) -> list[Item]:
    found: list[Item] = []
    for match in _LABELLED.finditer(text):
        label, value = (group for group in match.groups() if group is not None)
        if int(label) <= count:
            found.append((int(label), _limited(float(value))))
    return found if any(label for label, _ in found) or count == 1 else []


def _bare(text: str, count: int) -> list[Item]:
    """The numbers of lines without words, in order or, where they are rows of pairs, by label."""
    rows = [row for line in text.splitlines() if (row := _bare_scores(line))]
    flat = [score for row in rows for score in row]
    pairs = len(flat) // 2
    counted = flat[::2] in ([*range(1, pairs + 1)], [*range(pairs)])
    in_rows = len(rows) == pairs > 1 and all(len(row) == 2 for row in rows)
    if len(flat) == 2 * pairs > 0 and counted and (pairs == count or in_rows):
        return [
            (int(label or 0), score) for label, score in zip(flat[::2], flat[1::2], strict=True)
        ]
    return [(None, score) for score in flat]


def _bare_scores(line: str) -> list[float | None]:
    """The scores of a line without words, in order; nothing of any other line."""
    tokens = [token for token in _SEPARATORS.split(line.rpartition(":")[2].lower()) if token]
    empty = [token in _NO_SCORE for token in tokens]
    if not all(none or _SCORE.fullmatch(token) for token, none in zip(tokens, empty, strict=True)):
        return []
    return [
        None if none else _limited(float(token.rstrip(".%")))
        for token, none in zip(tokens, empty, strict=True)
    ]


def _from_json(text: str) -> list[Item] | None:
    """Read a reply that is JSON, or holds some; None for any other."""
    found = [*_values(text)]
    objects = [value for value, _ in found if isinstance(value, dict)]
    if len(objects) > 1:
        return _items(objects)
    for value, end in found:
        # A number in brackets, "[1] 80", is a label and no list.
        alone = len(found) == 1 and not re.search(r"\d", text[end:])
        if not isinstance(value, list) or alone or any(isinstance(x, dict) for x in value):
            items = _items(value)
            if items is not None:
                return items
    return None


def _values(text: str) -> Iterator[tuple[Any, int]]:
    """Yield every JSON list and object of a text and where it ends, none inside another."""
    at, decoder = 0, json.JSONDecoder()
    while opening := re.compile(r"[\[{]").search(text, at):
        try:
            value, at = decoder.raw_decode(text, opening.start())
            yield value, at
        except (ValueError, RecursionError):
            at = opening.end()


def _items(value: Any, deep: int = 3) -> list[Item] | None:
    """Read the scores of one JSON value, None where it is of no known form."""
    if isinstance(value, list) and value:
        if all(isinstance(each, dict) for each in value):
            rows = [(_label(each), _scored(each)) for each in value]
            return rows if any(score is not None for _, score in rows) else None
        if all(isinstance(each, list) and len(each) == 2 for each in value):
            return [(_whole(label), _number(score)) for label, score in value]
        flat = not any(isinstance(each, (dict, list)) for each in value)
        return [(None, _number(each)) for each in value] if flat else None
    if not isinstance(value, dict):
        return None
    labels = [_whole(key) for key in value]
    if labels and None not in labels:
        scores = [_scored(x) if isinstance(x, dict) else _number(x) for x in value.values()]
        return list(zip(labels, scores, strict=True))
    if _key(value, _SCORE_KEYS) and (found := _scored(value)) is not None:
        return [(_label(value), found)]
    inner = {key: each for key, each in value.items() if isinstance(each, (dict, list))}
    named = _key(inner, _SCORE_KEYS) or (next(iter(inner)) if len(inner) == 1 else "")
    return _items(inner[named], deep - 1) if named and deep else None


def _key(row: dict[str, Any], parts: tuple[str, ...], other: str = "") -> str:
    """The first key that holds one of the parts, in the order of the parts."""
    keys = [key for part in parts for key in row if part in key.lower() and key != other]
    return keys[0] if keys else ""


def _scored(row: dict[str, Any]) -> float | None:
    return _number(row.get(_key(row, _SCORE_KEYS)))


def _label(row: dict[str, Any]) -> int | None:
    return _whole(row.get(_key(row, _LABEL_KEYS, other=_key(row, _SCORE_KEYS))))


def _whole(value: Any) -> int | None:
    """The one whole number in a label such as 1, "1" or "Passage [1]", else None."""
    found = re.findall(r"\d{1,6}", value if isinstance(value, str) else f"{value}")
    return int(found[0]) if len(found) == 1 and not isinstance(value, float) else None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        text = value.strip()
        return _limited(float(text.rstrip(".%"))) if _SCORE.fullmatch(text) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return None
    return _limited(value)


def _limited(value: float) -> float:
    return float(min(100, max(0, value)))
