"""A selection rule with graded targets that keeps likely false negatives out.

Against the upstream rule: near-equal correct passages are positives, not hard negatives; a
passage that holds the answer, repeats a positive or was correct without being chosen is no
negative; what the agent has read before is a negative first of all; `per_question`, where it is
not 0, keeps one question from filling the training set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from agentic_r.types import Utility
from agentic_r.utility.rules.verdict import (
    ANSWERED,
    NO_CORRECT,
    NO_RELEVANT,
    NOT_MEASURED,
    TOO_FEW,
    Verdict,
    levels,
    reachable,
)

Unanswered = Literal["drop", "relevance"]
"""What becomes of a search after which the agent never succeeds."""


class GradedRule(msgspec.Struct, frozen=True):
    """Positives are the best passages within a margin, negatives those that are safe to push away.

    A candidate that an earlier search showed is never a positive. Of the others at or above
    `threshold`, the top is the one that adds most to the answer, then the most relevant, then,
    with `fewer_searches`, the one after which the agent searched least, then the best ranked.
    Positives are those that add as much and are at most `margin` points less relevant, a text
    once. Negatives are candidates of known relevance that are no positive, do not hold the
    (sub-)answer, do not repeat a positive's text, and added nothing where they were measured;
    one whose measurement failed is spared too. Those already read are taken first. A search
    needs one negative at least.

    A search after which the agent never succeeds says nothing of its passages, since a later search
    may be what failed: it is dropped, or with `unanswered = "relevance"` judged by relevance.

    Needed are the relevance levels from the top down, each whole, until a fully correct one is
    found, and then those within `margin` below it; where none is fully correct, all down to
    the threshold. Nothing else that was measured counts. Targets are relevance / 100 x
    (1 + share of the reachable gain) / 2, the gain of what was not measured counting as 0; what
    the agent has read before adds nothing, so that its target is 0.
    """

    threshold: float = 60.0
    max_positives: int = 3
    negatives: int = 15
    per_question: int = 0
    margin: float = 10.0
    fewer_searches: bool = True
    unanswered: Unanswered = "relevance"

    def verdict(self, rows: Sequence[Utility]) -> Verdict:
        """Judge one search by its candidates in rank order."""
        full = reachable(rows)
        known = [rank for rank, row in enumerate(rows) if row.relevance is not None]
        reason = self._hopeless(rows, full)
        if reason:
            return Verdict(reason=reason)
        needed, floor = self._progress(rows, full)
        if needed:
            return Verdict(needed=needed)
        rows = self._needed_only(rows, floor)
        positives = self._positives(rows)
        if not positives and any(rows[rank].failed for rank in self._eligible(rows)):
            return Verdict(reason=NOT_MEASURED)
        if not positives and self.unanswered == "drop":
            return Verdict(reason=NO_CORRECT)
        positives = positives or self._near(rows, self._eligible(rows))
        pool = tuple(rank for rank in known if self._negative(rows, rank, positives))
        targets = tuple(_target(row, full) for row in rows)
        first = tuple(rank for rank in pool if rows[rank].read)
        return Verdict((), positives, pool, "" if pool else TOO_FEW, first, targets)

    def _hopeless(self, rows: Sequence[Utility], full: float) -> str:
        unread = any(row.relevance is None for row in rows)
        if not self._eligible(rows):
            none = unread and all(row.relevance is None for row in rows)
            return NOT_MEASURED if none else NO_RELEVANT
        return ANSWERED if full <= 0.0 else ""

    def _eligible(self, rows: Sequence[Utility]) -> list[int]:
        """The ranks that may become positives, whatever is measured."""
        return [
            rank
            for rank, row in enumerate(rows)
            if row.relevance is not None and row.relevance >= self.threshold and not row.read
        ]

    def _progress(self, rows: Sequence[Utility], full: float) -> tuple[tuple[int, ...], float]:
        """What is to be measured next, and the least relevance that has to be measured."""
        eligible = set(self._eligible(rows))
        floor = self.threshold
        for value, level in levels([row.relevance for row in rows]):
            if value < floor:
                break
            inside = [rank for rank in level if rank in eligible]
            open_ = tuple(rank for rank in inside if not _known(rows[rank]))
            if open_:
                return open_, floor
            if floor == self.threshold and any((rows[r].gain or 0.0) >= full for r in inside):
                floor = max(floor, value - self.margin)
        return (), floor

    def _needed_only(self, rows: Sequence[Utility], floor: float) -> list[Utility]:
        """Forget what need not have been measured, so that measuring more changes nothing."""
        needed = set(self._eligible(rows))
        return [
            row
            if row.relevance is None or (rank in needed and row.relevance >= floor)
            else msgspec.structs.replace(row, correctness=None, further=None, why="not needed")
            for rank, row in enumerate(rows)
        ]

    def _positives(self, rows: Sequence[Utility]) -> tuple[int, ...]:
        correct = [rank for rank in self._eligible(rows) if rows[rank].gain]
        if not correct:
            return ()
        best = max(rows[rank].gain or 0.0 for rank in correct)
        return self._near(rows, [rank for rank in correct if rows[rank].gain == best])

    def _near(self, rows: Sequence[Utility], tied: Sequence[int]) -> tuple[int, ...]:
        """Of passages that add the same, those at most the margin less relevant than the best."""
        ranked = sorted(tied, key=lambda rank: self._order(rows[rank]))
        lowest = (rows[ranked[0]].relevance or 0.0) - self.margin
        near = [rank for rank in ranked if (rows[rank].relevance or 0.0) >= lowest]
        return tuple(_once(rows, near))

    def _order(self, row: Utility) -> tuple[float, float, int]:
        further = row.further if self.fewer_searches else None
        return (-(row.relevance or 0.0), further or 0.0, row.rank)

    def _negative(self, rows: Sequence[Utility], rank: int, positives: Sequence[int]) -> bool:
        row = rows[rank]
        same = row.content and row.content in {rows[each].content for each in positives}
        return not (rank in positives or row.holds or same or row.gain or row.failed)


def _known(row: Utility) -> bool:
    return row.correctness is not None or row.failed


def _once(rows: Sequence[Utility], ranks: Iterable[int]) -> list[int]:
    """The ranks whose text does not repeat that of an earlier one."""
    seen: set[str] = set()
    kept: list[int] = []
    for rank in ranks:
        content = rows[rank].content
        if not content or content not in seen:
            kept.append(rank)
            seen.add(content)
    return kept


def _target(row: Utility, full: float) -> float:
    if row.read:
        return 0.0
    return round((row.relevance or 0.0) / 100 * (1 + (row.gain or 0.0) / full) / 2, 4)
