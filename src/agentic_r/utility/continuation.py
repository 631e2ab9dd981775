"""Correctness: the agent goes on from one passage, and its final answer is the measure.

Contracts B5: the evidence of one search is replaced by one candidate passage, earlier turns stay
as they were, and the agent continues with live retrieval. Only candidates that can still change
the selection rule's verdict are continued (DESIGN, "Lazy correctness").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from agentic_r.errors import LLMError
from agentic_r.protocols import Reward
from agentic_r.types import Candidate, Hit, Trajectory, Utility
from agentic_r.utility.rules.upstream import UPSTREAM
from agentic_r.utility.rules.verdict import Rule

Continue = Callable[[Sequence[Trajectory]], Sequence[Trajectory]]
"""Carries trajectories that were cut to their end, in order; the agent's `continue_`."""

Evidence = Literal["alone", "in-place"]
"""What the agent is shown: the passage alone (upstream), or in place of its top hit."""

ATTEMPTS = 2
"""How often a continuation is tried before it counts as failed."""

WITHOUT = -1
"""Stands for the continuation without any candidate where ranks are meant."""


class ScoredSearch(msgspec.Struct, frozen=True):
    """One search of a trajectory with its candidates in rank order.

    `rows` are their utilities, one per candidate, with nothing measured by continuation yet.
    """

    trajectory: Trajectory
    search: int
    candidates: tuple[Candidate, ...]
    rows: tuple[Utility, ...]


class Protocol(msgspec.Struct, frozen=True):
    """How correctness is measured.

    `samples` continuations are averaged; more than one makes sense for an agent that samples.
    `baseline` measures the same continuation without the candidate too. `exhaustive` continues
    from every candidate, whatever the rule needs.
    """

    samples: int = 1
    evidence: Evidence = "alone"
    baseline: bool = False
    exhaustive: bool = False

    def whole(self, candidates: int) -> int:
        """Return how many continuations a search takes when every candidate is tried."""
        return self.samples * (candidates + self.baseline) if candidates else 0


class _Sample(msgspec.Struct):
    """One continuation of one candidate, tried until it ends or fails for good."""

    tries: int = 0
    value: float | None = None
    further: int = 0
    error: str = ""

    @property
    def open(self) -> bool:
        return self.value is None and self.tries < ATTEMPTS


@dataclass
class Measurement:
    """What continuing told about one search.

    `rows` are its utilities with what was measured, `ends` by rank a finished trajectory of
    each candidate that was at all correct; `continuations` counts every one that was run,
    repeated ones and those without a candidate included.
    """

    rows: list[Utility]
    ends: dict[int, Trajectory] = field(default_factory=dict)
    continuations: int = 0
    samples: dict[int, list[_Sample]] = field(default_factory=dict)


def measure(
    searches: Sequence[ScoredSearch],
    continue_: Continue,
    reward: Reward,
    *,
    rule: Rule = UPSTREAM,
    protocol: Protocol | None = None,
    outage: int = 8,
) -> list[Measurement]:
    """Continue the agent from the candidates that matter, for many searches side by side.

    Every round gathers what the rule needs next of all open searches into one call of
    `continue_`. A continuation that ends with stop "error" is tried once more; correctness is
    the mean of the samples that ended. Raises LLMError when a round of at least `outage`
    continuations all failed: a dead server must stop the run, not fill it with failures;
    ValueError when `continue_` returns another number of trajectories or `reward` leaves 0-1.
    """
    how = protocol or Protocol()
    results = [Measurement(list(search.rows)) for search in searches]
    while True:
        wanted = [
            (search, result, rank, number)
            for search, result in zip(searches, results, strict=True)
            for rank, number in _wanted(result, rule, how)
        ]
        if not wanted:
            return results
        starts = [start(search, rank, number, how) for search, _, rank, number in wanted]
        ends = continue_(starts)
        if len(ends) != len(starts):
            raise ValueError(f"continue_: got {len(ends)} trajectories, expected {len(starts)}")
        if len(ends) >= outage and all(end.stop == "error" for end in ends):
            raise LLMError(f"all {len(ends)} continuations of a round failed: {ends[0].error}")
        for (search, result, rank, number), end in zip(wanted, ends, strict=True):
            _record(search, result, rank, number, end, reward)


def _wanted(result: Measurement, rule: Rule, how: Protocol) -> list[tuple[int, int]]:
    """The continuations to run next, as (rank, number of the sample)."""
    again = [
        (rank, number)
        for rank, samples in result.samples.items()
        for number, sample in enumerate(samples)
        if sample.open
    ]
    if again:
        return again
    if how.exhaustive:
        needed: Sequence[int] = range(len(result.rows))
    else:
        needed = rule.verdict(result.rows).needed
    if how.baseline and needed and WITHOUT not in result.samples:
        needed = [WITHOUT]
    new = [rank for rank in needed if rank not in result.samples]
    result.samples.update((rank, [_Sample() for _ in range(how.samples)]) for rank in new)
    return [(rank, number) for rank in new for number in range(how.samples)]


def start(search: ScoredSearch, rank: int, number: int, how: Protocol) -> Trajectory:
    """Cut the trajectory of a search and show what is to be measured in place of its hits.

    In place: the candidate takes the place of the top hit and, where it is among the hits, the
    top hit takes its; without a candidate the top hit is missing.
    """
    shown = f"r{rank}" if rank != WITHOUT else "b"
    sample = f".{number}" if how.samples > 1 else ""
    name = f"{search.trajectory.id}+s{search.search}{shown}{sample}"
    hits = search.trajectory.searches[search.search].hits if how.evidence == "in-place" else ()
    if rank == WITHOUT:
        return search.trajectory.cut(search.search, hits[1:], name)
    passage = search.candidates[rank].passage
    top = hits[0] if hits else Hit(passage, 1.0)
    others = (top if hit.passage.id == passage.id else hit for hit in hits[1:])
    return search.trajectory.cut(search.search, (Hit(passage, top.score), *others), name)


def _record(
    search: ScoredSearch,
    result: Measurement,
    rank: int,
    number: int,
    end: Trajectory,
    reward: Reward,
) -> None:
    result.continuations += 1
    sample = result.samples[rank][number]
    sample.tries += 1
    if end.stop == "error":
        sample.error = end.error or "the continuation ended with an error"
    else:
        sample.value = float(reward(end.question, end.answer))
        if not 0.0 <= sample.value <= 1.0:
            raise ValueError(f"reward: got {sample.value}, expected a number between 0 and 1")
        sample.further = len(end.searches) - search.search - 1
        if sample.value > 0.0 and rank != WITHOUT:
            result.ends.setdefault(rank, end)
    samples = result.samples[rank]
    if not any(each.open for each in samples):
        _close(result, rank, samples)


def _close(result: Measurement, rank: int, samples: Sequence[_Sample]) -> None:
    """Write what all samples of a candidate, or of the baseline, have told into the rows."""
    ended = [sample for sample in samples if sample.value is not None]
    error = next((sample.error for sample in samples if sample.error), "")
    replace = msgspec.structs.replace
    if rank == WITHOUT:
        if ended:
            base = _mean([sample.value or 0.0 for sample in ended])
            result.rows = [replace(row, baseline=base) for row in result.rows]
            return
        why = f"failed: without a passage: {error}"
        result.rows = [row if row.failed else replace(row, why=why) for row in result.rows]
    elif ended:
        # What could not be judged stays "failed", also where exhaustive measuring went on.
        unread = result.rows[rank].relevance is None
        result.rows[rank] = replace(
            result.rows[rank],
            correctness=_mean([sample.value or 0.0 for sample in ended]),
            further=_mean([float(sample.further) for sample in ended]),
            why=result.rows[rank].why if unread else "measured",
        )
    elif result.rows[rank].relevance is not None:
        result.rows[rank] = replace(result.rows[rank], why=f"failed: {error}")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
