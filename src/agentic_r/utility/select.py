"""The selection rule: which measured candidates become positives and hard negatives.

A rule sees one search at a time as two columns in candidate-rank order, relevance and
correctness, and answers with a `Verdict`. The verdict also names the candidates whose
correctness can still change it, so that how lazy the measuring may be is the rule's own word.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Protocol

import msgspec

from agentic_r.types import Example, Utility

NO_RELEVANT = "no relevant candidate"
NO_CORRECT = "no correct candidate"
TOO_FEW = "too few negatives"
NOT_MEASURED = "not measured"
REASONS = (NO_RELEVANT, NO_CORRECT, TOO_FEW, NOT_MEASURED)
"""Why a search is dropped, in the order of every report."""


class Verdict(msgspec.Struct, frozen=True):
    """What a rule says about one search; numbers are candidate ranks.

    `needed` is not empty while the search is open: these candidates are to be measured next.
    `positives` are the tied best candidates and `pool` all that may be negatives; a search with
    a `reason` is dropped, and may have positives all the same.
    """

    needed: tuple[int, ...] = ()
    positives: tuple[int, ...] = ()
    pool: tuple[int, ...] = ()
    reason: str = ""


class Rule(Protocol):
    """A way to choose positives and negatives, and what it must know to do so."""

    @property
    def max_positives(self) -> int:
        """How many positives an example holds at most."""
        ...

    @property
    def negatives(self) -> int:
        """How many hard negatives an example holds."""
        ...

    def verdict(
        self, relevance: Sequence[float | None], measured: Mapping[int, float | None]
    ) -> Verdict:
        """Judge one search; `measured` maps rank to correctness, None where that failed."""
        ...


class UpstreamRule(msgspec.Struct, frozen=True):
    """The rule of the paper's code (contracts B6), relevance on 0-100 where it has 0-1.

    Sort by correctness, then relevance; keep the search when the top is correct at all and its
    relevance reaches `threshold`; the exact ties with the top are positives, everything else
    may be a negative; at least `negatives` of these are needed.

    Correctness is at most 1, so the first relevance level from the top that holds a 1 decides,
    and nothing below it or below the threshold needs measuring. Where a level's best lies
    between 0 and 1 (a graded reward), lower levels can still overtake it and are needed too. A
    candidate of unreadable relevance is neither positive nor negative, and a failed
    measurement drops the search only where it could have changed the outcome.
    """

    threshold: float = 60.0
    max_positives: int = 3
    negatives: int = 15

    def verdict(
        self, relevance: Sequence[float | None], measured: Mapping[int, float | None]
    ) -> Verdict:
        """Judge one search; a pure function of its two columns."""
        known = [rank for rank, value in enumerate(relevance) if value is not None]
        hopeless = self._hopeless(relevance, len(known))
        if hopeless:
            return Verdict(reason=hopeless)
        best, top = 0.0, list[int]()
        for value, level in levels(relevance):
            if best >= 1.0 or (value < self.threshold and best == 0.0):
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


def levels(relevance: Sequence[float | None]) -> Iterator[tuple[float, list[int]]]:
    """Group ranks of exactly equal relevance, the most relevant first, ranks in order."""
    ranked = sorted(
        ((value, rank) for rank, value in enumerate(relevance) if value is not None),
        key=lambda pair: (-pair[0], pair[1]),
    )
    for value, pairs in groupby(ranked, key=lambda pair: pair[0]):
        yield value, [rank for _, rank in pairs]


def judged(rows: Sequence[Utility], rule: Rule) -> Verdict:
    """The rule's verdict on the utilities of one search, given in candidate-rank order."""
    relevance = [row.relevance for row in rows]
    measured: dict[int, float | None] = {}
    for rank, row in enumerate(rows):
        if row.correctness is not None:
            measured[rank] = row.correctness
        elif row.relevance is not None and row.why.startswith("failed"):
            measured[rank] = None
    return rule.verdict(relevance, measured)


def select(
    dataset: str,
    question_id: str,
    utilities: Sequence[Utility],
    *,
    rule: Rule = UPSTREAM,
    seed: int = 0,
) -> tuple[list[Example], dict[str, int]]:
    """Turn the utilities of one question into training examples, at most one a search.

    An example holds the first `max_positives` positives by candidate rank, and `negatives` of
    the pool, drawn in candidate-rank order by a generator keyed by (seed, dataset, question,
    trajectory, search), so that it depends on nothing else. Returned beside the examples: how
    many searches were dropped for each reason. A search whose utilities do not suffice for this
    rule (measured lazily for another one) counts as "not measured".
    """
    examples: list[Example] = []
    dropped = dict.fromkeys(REASONS, 0)
    for (trajectory_id, search), rows in by_search(utilities):
        verdict = judged(rows, rule)
        if verdict.needed or verdict.reason:
            dropped[verdict.reason or NOT_MEASURED] += 1
            continue
        key = json.dumps([seed, dataset, question_id, trajectory_id, search])
        drawn = sorted(random.Random(key).sample(verdict.pool, rule.negatives))
        examples.append(
            Example(
                dataset,
                question_id,
                rows[0].sent,
                tuple(rows[rank].passage_id for rank in verdict.positives[: rule.max_positives]),
                tuple(rows[rank].passage_id for rank in drawn),
            )
        )
    return examples, {reason: count for reason, count in dropped.items() if count}


def by_search(utilities: Sequence[Utility]) -> list[tuple[tuple[str, int], list[Utility]]]:
    """Group utilities by (trajectory, search), in that order, each group by candidate rank."""
    ordered = sorted(utilities, key=lambda row: (row.trajectory_id, row.search, row.rank))
    groups = groupby(ordered, key=lambda row: (row.trajectory_id, row.search))
    return [(key, list(rows)) for key, rows in groups]
