"""What labelling leaves behind: one row per question, and the labels of a whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from agentic_r.types import Example, Trajectory, Utility
from agentic_r.utility.select import REASONS, UPSTREAM, Rule, select

NO_TURNS = "no turns left"
"""Why a search is not labelled: the agent had no call left to use what it would find."""

NOTHING_FOUND = "nothing found"
"""Why a search gives no example: the retriever returned no passage for it."""


SMALL_SCALE = 10.0
"""A judge whose highest score of a run is no higher may have graded on 0-1 or 0-10."""


class SubAnswer(msgspec.Struct, frozen=True):
    """What one search ought to have found, None for "Not Sure"; kept for the report."""

    trajectory_id: str
    search: int
    text: str | None


class Labelled(msgspec.Struct, frozen=True):
    """Everything measured for one question: the row that a labelling stage appends.

    `derived` are the successful continuations whose later searches were labelled as well; their
    ids end in "+sN", N being the search that they were continued from. `candidates` is how many
    continuations exhaustive measuring would have run, `continuations` how many were run. `no_turns`
    counts searches that were left out because the agent had no call left after them.
    `judge_calls` and `subanswer_calls` count requests to a language model, second tries included
    and what the cache knew left out.
    """

    dataset: str
    question_id: str
    utilities: tuple[Utility, ...] = ()
    subanswers: tuple[SubAnswer, ...] = ()
    derived: tuple[Trajectory, ...] = ()
    searches: int = 0
    continued_searches: int = 0
    candidates: int = 0
    continuations: int = 0
    no_turns: int = 0
    judge_calls: int = 0
    subanswer_calls: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the row: data set and question id; rows are stored in this order."""
        return (self.dataset, self.question_id)


class Costs(msgspec.Struct, frozen=True):
    """What labelling cost: counts over all questions.

    `searches` were labelled, `continued` of them inside continuations; `kept` became examples.
    `continuations` were run, `exhaustive` would have been without laziness. `judge_calls` and
    `subanswer_calls` were made to a language model; `unread` candidates have no relevance, and
    the continuations of `unfinished` ones failed.
    """

    searches: int = 0
    continued: int = 0
    kept: int = 0
    continuations: int = 0
    exhaustive: int = 0
    judge_calls: int = 0
    subanswer_calls: int = 0
    unread: int = 0
    unfinished: int = 0

    @property
    def calls(self) -> int:
        """Calls of a language model for relevance and sub-answers together."""
        return self.judge_calls + self.subanswer_calls

    def lines(self) -> list[str]:
        """Say in plain lines what labelling cost; of calls only where there were any."""
        searches = max(1, self.searches)
        said = [
            f"{self.searches:,} searches labelled, {self.kept:,} kept",
            f"{self.continuations:,} continuations, {self.continuations / searches:.2f} a search "
            f"({self.exhaustive / searches:.2f} if all candidates were tried)",
        ]
        if self.calls:
            each = f", {self.calls / self.kept:.2f} a kept search" if self.kept else ""
            said.append(
                f"{self.calls:,} calls of a judge's model ({self.judge_calls:,} for relevance, "
                f"{self.subanswer_calls:,} for sub-answers){each}"
            )
        return said


class Labels(msgspec.Struct, frozen=True):
    """The labels of many questions: examples to train on, and why other searches gave none."""

    rows: tuple[Labelled, ...]
    examples: tuple[Example, ...]
    report: dict[str, int]
    costs: Costs

    @property
    def utilities(self) -> tuple[Utility, ...]:
        """All utilities in the order dataset, question, trajectory, search, candidate rank."""
        return tuple(utility for row in self.rows for utility in row.utilities)

    @property
    def failures(self) -> dict[str, int]:
        """How many candidates could not be judged or continued, by reason, the commonest first."""
        reasons = Counter(
            f"{'relevance' if each.relevance is None else 'correctness'} {each.why}"
            for each in self.utilities
            if each.failed
        )
        return dict(reasons.most_common())

    def lines(self) -> list[str]:
        """Say in plain lines what labelling cost, what was dropped and what failed."""
        said = self.costs.lines()
        if self.report:
            dropped = ", ".join(f"{reason} {count:,}" for reason, count in self.report.items())
            said.append(f"searches that gave no example: {dropped}")
        failed = self.failures
        if failed:
            first, count = next(iter(failed.items()))
            said.append(
                f"{sum(failed.values()):,} of {len(self.utilities):,} candidates could not be "
                f"measured, {count:,} of them: {first}"
            )
        scores = [each.relevance for each in self.utilities if each.relevance is not None]
        if scores and max(scores) <= SMALL_SCALE:
            said.append(
                f"no candidate was graded above {max(scores):g} of 100: the judge may have another "
                "scale; see its prompt, or try it with agentic-r label CONFIG --compare-judges"
            )
        return said


def collect(rows: Iterable[Labelled], *, rule: Rule = UPSTREAM, seed: int = 0) -> Labels:
    """Select examples from finished rows, whatever order they were finished in.

    Pure: the same rows, rule and seed give the same labels. `report` counts the searches that
    gave no example, by reason.
    """
    ordered = tuple(sorted(rows, key=lambda row: row.key))
    examples: list[Example] = []
    dropped = dict.fromkeys((*REASONS, NOTHING_FOUND, NO_TURNS), 0)
    for row in ordered:
        chosen, reasons = select(row.dataset, row.question_id, row.utilities, rule=rule, seed=seed)
        examples += chosen
        for reason, count in reasons.items():
            dropped[reason] += count
        measured = {(each.trajectory_id, each.search) for each in row.utilities}
        dropped[NOTHING_FOUND] += row.searches - len(measured)
        dropped[NO_TURNS] += row.no_turns
    report = {reason: count for reason, count in dropped.items() if count}
    return Labels(ordered, tuple(examples), report, _costs(ordered, len(examples)))


def _costs(rows: Sequence[Labelled], kept: int) -> Costs:
    return Costs(
        searches=sum(row.searches for row in rows),
        continued=sum(row.continued_searches for row in rows),
        kept=kept,
        continuations=sum(row.continuations for row in rows),
        exhaustive=sum(row.candidates for row in rows),
        judge_calls=sum(row.judge_calls for row in rows),
        subanswer_calls=sum(row.subanswer_calls for row in rows),
        unread=sum(each.relevance is None for row in rows for each in row.utilities),
        unfinished=sum(
            each.failed and each.relevance is not None for row in rows for each in row.utilities
        ),
    )
