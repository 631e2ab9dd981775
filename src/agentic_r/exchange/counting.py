"""Counts in words, as they are printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_SINGULAR = {"queries": "query", "searches": "search", "trajectories": "trajectory"} | {
    f"{noun}s": noun
    for noun in (
        "candidate",
        "document",
        "example",
        "line",
        "negative",
        "passage",
        "row",
        "score",
        "target",
    )
}


def counted(count: int, what: str) -> str:
    """Return a number with what it counts, told in the plural: "1 example", "2 examples".

    Only the first two words can be the noun: "too few negatives" stays as it is.
    """
    words = what.split(" ")
    if count == 1:
        at = next((n for n, word in enumerate(words[:2]) if word in _SINGULAR), None)
        if at is not None:
            words[at] = _SINGULAR[words[at]]
    return f"{count:,} {' '.join(words)}"


def lines(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield every count that is not 0."""
    return (counted(count, what) for what, count in counts.items() if count)


def reasons(counts: Mapping[str, int]) -> str:
    """Return every count that is not 0 in one line."""
    return ", ".join(lines(counts)) or "nothing was there"
