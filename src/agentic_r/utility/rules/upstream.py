"""The selection rule of the paper's code, and which measurements can still change its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

Signals = Literal["both", "relevance", "correctness"]
"""What the rule of the paper's code goes by."""


class UpstreamRule(msgspec.Struct, frozen=True):
    """The rule of the paper's code (contracts B6), relevance on 0-100 where it has 0-1.

    Sort by correctness, then relevance; keep the search when the top is correct at all and its
    relevance reaches `threshold`; the exact ties with the top are positives, everything else
    may be a negative; at least `negatives` of these are needed.

    Correctness is at most 1, so the first relevance level from the top that holds a 1 decides,
    and nothing below it or below the threshold needs measuring. Where a level's best lies
    between 0 and 1 (a graded reward, several samples), lower levels can still overtake it and
    are needed too. A candidate of unreadable relevance is neither positive nor negative, and a
    failed measurement drops the search only where it could have changed the outcome. Where a
    baseline was measured, what a passage adds to it stands in place of correctness.

    `signals` leaves one of the two out (upstream's variants): by relevance alone no continuation
    is needed, by correctness alone every one.
    """

    threshold: float = 60.0
    max_positives: int = 3
    negatives: int = 15
    per_question: int = 0
    signals: Signals = "both"

    def verdict(self, rows: Sequence[Utility]) -> Verdict:
        """Judge one search by its candidates in rank order."""
        relevance = [row.relevance for row in rows]
        if self.signals == "relevance":
            return self.decide(relevance, dict.fromkeys(range(len(rows)), 1.0))
        if self.signals == "correctness":
            relevance = [100.0] * len(rows)
        measured: dict[int, float | None] = {}
        for rank, row in enumerate(rows):
            tried = row.failed and (row.relevance is not None or self.signals == "correctness")
            if row.correctness is not None or tried:
                measured[rank] = row.gain
        return self.decide(relevance, measured, full=reachable(rows))

    def decide(
        self,
        relevance: Sequence[float | None],
        measured: Mapping[int, float | None],
        full: float = 1.0,
    ) -> Verdict:
        """Judge two columns in rank order: relevance, and by rank what was measured.

        A None in `measured` is a measurement that failed; `full` is the most that can be had.
        """
        known = [rank for rank, value in enumerate(relevance) if value is not None]
        hopeless = self._hopeless(relevance, len(known))
        if not hopeless and full <= 0.0:
            hopeless = ANSWERED
        if hopeless:
            return Verdict(reason=hopeless)
        best, top = 0.0, list[int]()
        for value, level in levels(relevance):
            if best >= full or (value < self.threshold and best == 0.0):
                break
            needed = tuple(rank for rank in level if rank not in measured)
            if needed:
                return Verdict(needed=needed)
            found = [measured[rank] for rank in level]
            scores = [score for score in found if score is not None]
            if len(scores) < len(found):
                return Verdict(reason=NOT_MEASURED)
            if max(scores) > best:
                if value < self.threshold:
                    return Verdict(reason=NO_CORRECT)
                best = max(scores)
                top = [rank for rank in level if measured[rank] == best]
        if not top:
            return Verdict(reason=NO_CORRECT)
        pool = tuple(rank for rank in known if rank not in top)
        return Verdict((), tuple(top), pool, self._short(len(relevance), len(known), len(top)))

    def _hopeless(self, relevance: Sequence[float | None], known: int) -> str:
        """Why the search is lost whatever correctness turns out to be, or an empty string."""
        if not known:
            return NOT_MEASURED if relevance else NO_RELEVANT
        if max(value for value in relevance if value is not None) < self.threshold:
            return NO_RELEVANT
        return self._short(len(relevance), known, 1)

    def _short(self, candidates: int, known: int, positives: int) -> str:
        """Whether negatives run out, and whether unreadable relevance is what to blame."""
        if known - positives >= self.negatives:
            return ""
        return NOT_MEASURED if candidates - positives >= self.negatives else TOO_FEW


UPSTREAM = UpstreamRule()
"""The rule with the numbers of the paper's code."""
