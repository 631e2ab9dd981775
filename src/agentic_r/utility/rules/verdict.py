"""What a selection rule is: it looks at one search's candidates and answers with a verdict.

A rule sees the utilities of one search in candidate-rank order, whatever has been measured of
them so far. The verdict also names the candidates whose correctness can still change it, so that
how lazy the measuring may be is the rule's own word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Protocol

import msgspec

from agentic_r.types import Utility

NO_RELEVANT = "no relevant candidate"
NO_CORRECT = "no correct candidate"
ANSWERED = "answered without any passage"
TOO_FEW = "too few negatives"
OVER_CAP = "over the cap of its question"
NOT_MEASURED = "not measured"
REASONS = (NO_RELEVANT, NO_CORRECT, ANSWERED, TOO_FEW, OVER_CAP, NOT_MEASURED)
"""Why a search is dropped, in the order of every report."""


class Verdict(msgspec.Struct, frozen=True):
    """What a rule says about one search; numbers are candidate ranks.

    `needed` is not empty while the search is open: these candidates are to be measured next.
    `positives` come best first and `pool` are all that may be negatives, of which `first` are
    taken before any is drawn; a search with a `reason` is dropped, and may have positives all
    the same. `targets`, where a rule grades, is one number 0-1 per rank.
    """

    needed: tuple[int, ...] = ()
    positives: tuple[int, ...] = ()
    pool: tuple[int, ...] = ()
    reason: str = ""
    first: tuple[int, ...] = ()
    targets: tuple[float, ...] = ()


class Rule(Protocol):
    """A way to choose positives and negatives, and what it must know to do so."""

    @property
    def max_positives(self) -> int:
        """How many positives an example holds at most."""
        ...

    @property
    def negatives(self) -> int:
        """How many hard negatives an example holds at most."""
        ...

    @property
    def per_question(self) -> int:
        """How many examples one question gives at most; 0 is no cap."""
        ...

    def verdict(self, rows: Sequence[Utility]) -> Verdict:
        """Judge one search by its candidates in rank order; a pure function of them."""
        ...


def levels(relevance: Sequence[float | None]) -> Iterator[tuple[float, list[int]]]:
    """Group ranks of exactly equal relevance, the most relevant first, ranks in order."""
    ranked = sorted(
        ((value, rank) for rank, value in enumerate(relevance) if value is not None),
        key=lambda pair: (-pair[0], pair[1]),
    )
    for value, pairs in groupby(ranked, key=lambda pair: pair[0]):
        yield value, [rank for _, rank in pairs]


def reachable(rows: Sequence[Utility]) -> float:
    """Return the most that any passage of this search can add to the answer, 0-1."""
    return 1.0 - max((row.baseline or 0.0 for row in rows), default=0.0)
