"""Reading what a judge's model wrote: scores in any of the forms that models use."""

from __future__ import annotations

import re

from agentic_r.utility.prompting import without_thought

_NUMBER = r"-?\d+(?:\.\d+)?"
_LABELLED = re.compile(
    rf"""\[\s*(\d{{1,6}})\s*\]\s*(?:[:=]|-(?=\s))?\s*({_NUMBER})
       |passage\s*\#?\s*(\d{{1,6}})(?:\s*[:=]\s*|\s+-\s+|\s+)({_NUMBER})
       |(?<![\d.])(\d{{1,6}})["']?\s*[:=]\s*({_NUMBER})
       |^[ \t•-]*(\d{{1,6}})[ \t]*[.)]\s+({_NUMBER})""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_SEPARATORS = re.compile(r"[\s,;|\[\](){}]+")
_SCORE = re.compile(rf"(?:{_NUMBER})[.%]?")
_NO_SCORE = frozenset(("n/a", "na", "nan", "none", "null", "unknown", "?", "-", "--"))


def parse_scores(reply: str, count: int) -> list[float | None]:
    """Read `count` scores from a judge's reply, each limited to 0-100, None where unreadable.

    Read are labelled scores ("[1] 80", "Passage 2: 65", "3. 20", JSON) in any order, else the
    lines that hold nothing but numbers, in order, after a heading that ends in a colon too.
    Surplus scores are ignored; "n/a" and the like keep their place. Prose is not searched for
    numbers, because "these 10 passages" is no score.
    """
    text = without_thought(reply).replace("*", "").replace("`", "")
    text = re.sub(r"(?<=\d)\s*/\s*100\b", "", text)
    scores: list[float | None] = [None] * count
    labelled = False
    for match in _LABELLED.finditer(text):
        place, value = (group for group in match.groups() if group is not None)
        if 1 <= int(place) <= count:
            labelled = True
            if scores[int(place) - 1] is None:
                scores[int(place) - 1] = _limited(value)
    if labelled:
        return scores
    values = [value for line in text.splitlines() for value in _bare_scores(line)][:count]
    return [*values, *[None] * (count - len(values))]


def _bare_scores(line: str) -> list[float | None]:
    """The scores of a line without words, in order; nothing of any other line."""
    tokens = [token for token in _SEPARATORS.split(line.rpartition(":")[2].lower()) if token]
    empty = [token in _NO_SCORE for token in tokens]
    if not all(none or _SCORE.fullmatch(token) for token, none in zip(tokens, empty, strict=True)):
        return []
    return [
        None if none else _limited(token.rstrip(".%"))
        for token, none in zip(tokens, empty, strict=True)
    ]


def _limited(value: str) -> float:
    return min(100.0, max(0.0, float(value)))
