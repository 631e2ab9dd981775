"""Windows of passages that a judge grades in one go, and how their scores become comparable.

A judge grades each window on a scale of its own: the same passage may get 60 beside good ones
and 80 beside bad ones. So some passages, the anchors, are shown in every window. The first
window's scale is kept; every other window is shifted by the mean difference of the anchors'
scores between the first window and itself, as a whole number so that whole grades stay whole
and ties stay ties. Orders inside a window never change; if windows differ by an offset only, the
result is what one window would have given.
"""

from __future__ import annotations

from collections.abc import Sequence


def windows(count: int, size: int, anchors: int) -> list[list[int]]:
    """Split rows 0..count-1 into windows of at most `size` rows.

    The first window holds the first `size` rows. `anchors` of them (fewer where a window would
    hold nothing else), spread evenly, come first in every later window, then new rows. Without
    anchors the windows stand apart, as upstream has them.
    """
    if size < 1:
        raise ValueError(f"size: got {size}, expected at least 1 passage a window")
    first = list(range(min(size, count)))
    found = [first] if first else []
    fixed = spread(first, min(anchors, size - 1)) if count > size else []
    step = size - len(fixed)
    for start in range(size, count, step):
        found.append([*fixed, *range(start, min(start + step, count))])
    return found


def spread(rows: Sequence[int], most: int) -> list[int]:
    """Draw at most that many of the rows, evenly from the first on."""
    shared = max(0, min(most, len(rows)))
    return [rows[place * len(rows) // shared] for place in range(shared)]


def joined(
    shown: Sequence[Sequence[int]], scores: Sequence[Sequence[float | None]], count: int
) -> list[float | None]:
    """Put the scores of windows on the scale of the first; one score 0-100 or None per row."""
    result: list[float | None] = [None] * count
    for number, (rows, given) in enumerate(zip(shown, scores, strict=True)):
        shift = _shift(rows, given, result) if number else 0
        for row, score in zip(rows, given, strict=True):
            if result[row] is None and score is not None:
                result[row] = min(100.0, max(0.0, score + shift))
    return result


def _shift(
    rows: Sequence[int], given: Sequence[float | None], known: Sequence[float | None]
) -> int:
    """How much higher the anchors were scored before; 0 where none was read in both windows."""
    differences = [
        before - score
        for row, score in zip(rows, given, strict=True)
        if score is not None and (before := known[row]) is not None
    ]
    return round(sum(differences) / len(differences)) if differences else 0
