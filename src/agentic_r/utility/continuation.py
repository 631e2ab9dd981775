"""Correctness: the agent goes on from a single passage, and its final answer is the measure.

Contracts B5: the evidence of one search is replaced by one candidate passage, earlier turns stay
as they were, and the agent continues with live retrieval. Only candidates that can still change
the selection rule's verdict are continued (DESIGN, "Lazy correctness").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from agentic_r.errors import LLMError
from agentic_r.protocols import Reward
from agentic_r.types import Candidate, Trajectory
from agentic_r.utility.select import UPSTREAM, Rule

Continue = Callable[[Sequence[Trajectory]], Sequence[Trajectory]]
"""Carries trajectories that were cut to their end, in order; the agent's `continue_`."""

ATTEMPTS = 2
"""How often a continuation is tried before it counts as failed."""


class Scored(msgspec.Struct, frozen=True):
    """A candidate and its relevance 0-100, None where that could not be read."""

    candidate: Candidate
    relevance: float | None


class ScoredSearch(msgspec.Struct, frozen=True):
    """One search of a trajectory with its candidates in rank order."""

    trajectory: Trajectory
    search: int
    scored: tuple[Scored, ...]


@dataclass
class Measurement:
    """What continuing told about one search, by candidate rank.

    `measured` holds correctness 0-1, or None where the continuation failed for good, with the
    reason in `failed`; `ends` the finished trajectories of all that were at all correct;
    `continuations` counts every one that was run, repeated ones included.
    """

    measured: dict[int, float | None] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    ends: dict[int, Trajectory] = field(default_factory=dict)
    continuations: int = 0
    tried: dict[int, int] = field(default_factory=dict)


def next_level(
    scored: Sequence[Scored], measured: Mapping[int, float | None], rule: Rule = UPSTREAM
) -> list[Candidate]:
    """Choose the candidates of one search to continue from next; none when it is decided.

    With the upstream rule this is one level of exactly equal relevance at a time, from the top
    down to the threshold, always the whole level, until a level holds a correct answer.
    """
    needed = rule.verdict([each.relevance for each in scored], measured).needed
    return [scored[rank].candidate for rank in needed]


def measure(
    searches: Sequence[ScoredSearch],
    continue_: Continue,
    reward: Reward,
    *,
    rule: Rule = UPSTREAM,
    exhaustive: bool = False,
    outage: int = 8,
) -> list[Measurement]:
    """Continue the agent from the candidates that matter, for many searches side by side.

    Every round gathers the next level of all open searches into one call of `continue_`. A
    continuation that ends with stop "error" is tried once more. `exhaustive` continues from
    every candidate. Raises LLMError when a round of at least `outage` continuations all failed:
    a dead server must stop the run, not fill it with failures; ValueError when `continue_`
    returns another number of trajectories or `reward` leaves 0-1.
    """
    results = [Measurement() for _ in searches]
    while True:
        wanted = [
            (search, result, candidate)
            for search, result in zip(searches, results, strict=True)
            for candidate in _wanted(search, result, rule, exhaustive)
        ]
        if not wanted:
            return results
        starts = [_start(search, candidate) for search, _, candidate in wanted]
        ends = continue_(starts)
        if len(ends) != len(starts):
            raise ValueError(f"continue_: got {len(ends)} trajectories, expected {len(starts)}")
        if len(ends) >= outage and all(end.stop == "error" for end in ends):
            raise LLMError(f"all {len(ends)} continuations of a round failed: {ends[0].error}")
        for (_, result, candidate), end in zip(wanted, ends, strict=True):
            _record(result, candidate.rank, end, reward)


def _wanted(
    search: ScoredSearch, result: Measurement, rule: Rule, exhaustive: bool
) -> list[Candidate]:
    if exhaustive:
        candidates = [each.candidate for each in search.scored]
        return [each for each in candidates if each.rank not in result.measured]
    return next_level(search.scored, result.measured, rule)


def _start(search: ScoredSearch, candidate: Candidate) -> Trajectory:
    name = f"{search.trajectory.id}+s{search.search}r{candidate.rank}"
    return search.trajectory.at_search(search.search, candidate.passage, id=name)


def _record(result: Measurement, rank: int, end: Trajectory, reward: Reward) -> None:
    result.continuations += 1
    if end.stop == "error":
        result.tried[rank] = result.tried.get(rank, 0) + 1
        if result.tried[rank] >= ATTEMPTS:
            result.measured[rank] = None
            result.failed[rank] = end.error or "the continuation ended with an error"
        return
    value = float(reward(end.question, end.answer))
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"reward: got {value}, expected a number between 0 and 1")
    result.measured[rank] = value
    if value > 0.0:
        result.ends[rank] = end
