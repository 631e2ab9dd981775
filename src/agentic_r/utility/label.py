"""Trajectories in, utilities and training examples out: the labelling half of the loop.

The unit of work is a question with all its trajectories. Questions are taken in fixed chunks, so
that batches, and with them every measurement, are the same in a resumed run as in an undisturbed
one; rows of a finished chunk are handed out at once, and a chunk that was cut off is redone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
from tqdm import tqdm

from agentic_r.config import UtilityConfig
from agentic_r.errors import ConfigError, DataError
from agentic_r.protocols import Judge, Retriever, Reward, SubAnswers
from agentic_r.types import Trajectory, Utility
from agentic_r.utility.candidates import Known, candidates_at
from agentic_r.utility.continuation import (
    Continue,
    Measurement,
    Protocol,
    ScoredSearch,
    measure,
)
from agentic_r.utility.labelled import Labelled, Labels, SubAnswer, collect
from agentic_r.utility.relevance import Graded, graded
from agentic_r.utility.rows import unmeasured
from agentic_r.utility.select import GradedRule, Rule, UpstreamRule

Place = tuple[Trajectory, int]
"""One search: a trajectory and the number of the search in it, from 0."""


class _Result(NamedTuple):
    """One labelled search while its chunk is under way."""

    trajectory: Trajectory
    search: int
    graded: Graded
    measurement: Measurement

    @property
    def utilities(self) -> tuple[Utility, ...]:
        return tuple(self.measurement.rows)


class Labeller:
    """Labels chunks of questions; the parts that it joins are the arguments of `label`."""

    def __init__(
        self,
        *,
        retriever: Retriever,
        continue_: Continue,
        judge: Judge,
        subanswers: SubAnswers,
        reward: Reward,
        settings: UtilityConfig,
        depth: int | None = None,
        known: Known | None = None,
    ) -> None:
        self._retriever = retriever
        self._continue = continue_
        self._judge = judge
        self._subanswers = subanswers
        self._reward = reward
        self._settings = settings
        self._depth = settings.candidates if depth is None else depth
        self._known = known
        self._rule = rule_of(settings)
        self._protocol = Protocol(
            settings.samples, settings.evidence, settings.baseline, settings.exhaustive
        )

    def label_chunk(self, trajectories: Sequence[Trajectory]) -> list[Labelled]:
        """Label the searches of these trajectories, one row per question, in their order.

        All trajectories of a question belong in one chunk. A question without searches gives an
        empty row, so that it counts as done. Raises LLMError when a server is down.
        """
        questions = by_question(trajectories)
        open_, closed = _open_searches(trajectories)
        results = self._label(open_)
        derived = self._derive(questions, results) if self._settings.continued_searches else []
        further = self._label([place for places in derived for place in places])
        return [
            _row(group, [*_of(group, results)], [*_of(group, further)], closed, self._protocol)
            for group in questions
        ]

    def _label(self, places: Sequence[Place]) -> list[_Result]:
        found = candidates_at(places, self._retriever, self._depth, self._known)
        scores = graded(places, found, self._judge, self._subanswers)
        searches = [
            ScoredSearch(*place, tuple(row), unmeasured(*place, row, each))
            for place, row, each in zip(places, found, scores, strict=True)
        ]
        measured = measure(
            searches, self._continue, self._reward, rule=self._rule, protocol=self._protocol
        )
        return [
            _Result(search.trajectory, search.search, each, of)
            for search, each, of in zip(searches, scores, measured, strict=True)
        ]

    def _derive(
        self, questions: Sequence[Sequence[Trajectory]], results: Sequence[_Result]
    ) -> list[list[Place]]:
        """The searches inside one successful continuation of each labelled search.

        The verdict's first positive is followed, where it was continued: with relevance as the
        only signal nothing is. A string that the question's searches have sent before is not
        labelled again.
        """
        places: list[list[Place]] = []
        for group in questions:
            seen = {search.sent for trajectory in group for search in trajectory.searches}
            for result in _of(group, results):
                positives = self._rule.verdict(result.utilities).positives
                followed = result.measurement.ends.get(positives[0]) if positives else None
                if followed is None:
                    continue
                name = f"{result.trajectory.id}+s{result.search}"
                end = msgspec.structs.replace(followed, id=name)
                later: list[Place] = []
                for trajectory, number in _open_searches([end])[0]:
                    sent = trajectory.searches[number].sent
                    if number > result.search and sent not in seen:
                        seen.add(sent)
                        later.append((trajectory, number))
                places.append(later)
        return places


def label(
    trajectories: Sequence[Trajectory],
    *,
    retriever: Retriever,
    continue_: Continue,
    judge: Judge,
    subanswers: SubAnswers,
    reward: Reward,
    settings: UtilityConfig | None = None,
    seed: int = 0,
    depth: int | None = None,
    known: Known | None = None,
    chunk: int = 64,
    done: Sequence[Labelled] = (),
    on_rows: Callable[[list[Labelled]], None] | None = None,
    progress: str | None = None,
) -> Labels:
    """Measure what passages are worth to the agent at each of its searches, and select examples.

    For every search: `depth` candidates (default `settings.candidates`) for the string as sent, or
    those that are `known`, their relevance by `judge`, which is told the sub-answer, and their
    correctness by `continue_`, lazily unless `settings.exhaustive`. With
    `settings.continued_searches`, the later searches of one successful continuation of each search
    are labelled too, one level deep. Questions are labelled `chunk` at a time; `on_rows` is given
    the new rows of each chunk as it is finished, and `done` are rows of an earlier, interrupted
    call, with the same trajectories, settings and chunk. `progress` names a progress bar. Raises
    LLMError when a server is down.
    """
    settings = settings or UtilityConfig()
    labeller = Labeller(
        retriever=retriever,
        continue_=continue_,
        judge=judge,
        subanswers=subanswers,
        reward=reward,
        settings=settings,
        depth=depth,
        known=known,
    )
    questions = by_question(trajectories)
    wanted = {group[0].question.key for group in questions}
    rows = {row.key: row for row in done if row.key in wanted}
    with tqdm(total=len(questions), desc=progress, disable=progress is None) as bar:
        for start in range(0, len(questions), chunk):
            groups = questions[start : start + chunk]
            if any(group[0].question.key not in rows for group in groups):
                finished = labeller.label_chunk([each for group in groups for each in group])
                new = [row for row in finished if row.key not in rows]
                rows.update((row.key, row) for row in new)
                if on_rows is not None:
                    on_rows(new)
            bar.update(len(groups))
    return collect(rows.values(), rule=rule_of(settings), seed=seed)


def rule_of(settings: UtilityConfig) -> Rule:
    """The selection rule that the settings name.

    Raises ConfigError for one signal alone with the graded rule, which needs both.
    """
    if settings.rule == "graded":
        if settings.signals != "both":
            raise ConfigError(
                f"utility.signals: got {settings.signals!r} with the rule graded, which needs "
                'both; set utility.rule to "upstream" or utility.signals to "both"'
            )
        return GradedRule(
            settings.relevance,
            settings.max_positives,
            settings.negatives,
            settings.per_question,
            settings.margin,
            settings.fewer_searches,
            settings.unanswered,
        )
    return UpstreamRule(
        settings.relevance,
        settings.max_positives,
        settings.negatives,
        settings.per_question,
        settings.signals,
    )


def by_question(trajectories: Sequence[Trajectory]) -> list[list[Trajectory]]:
    """Group trajectories by question, both in the order of their first appearance.

    Raises DataError when two trajectories of one question share an id.
    """
    groups: dict[tuple[str, str], list[Trajectory]] = {}
    for trajectory in trajectories:
        group = groups.setdefault(trajectory.question.key, [])
        if any(each.id == trajectory.id for each in group):
            raise DataError(
                f"question {trajectory.question.key}: got two trajectories with id "
                f"{trajectory.id!r}, expected a different id for each"
            )
        group.append(trajectory)
    return list(groups.values())


def _open_searches(trajectories: Sequence[Trajectory]) -> tuple[list[Place], list[Place]]:
    """Split searches into those that the agent could still use and those of its last call.

    A trajectory that ended for want of calls spent the last one on its last turn (contracts B5:
    round 5 has no global score).
    """
    open_: list[Place] = []
    closed: list[Place] = []
    for trajectory in trajectories:
        count = len(trajectory.searches)
        last = len(trajectory.turns[-1].searches) if trajectory.stop == "budget" else 0
        open_ += [(trajectory, number) for number in range(count - last)]
        closed += [(trajectory, number) for number in range(count - last, count)]
    return open_, closed


def _of(group: Sequence[Trajectory], results: Sequence[_Result]) -> list[_Result]:
    key = group[0].question.key
    return [result for result in results if result.trajectory.question.key == key]


def _row(
    group: Sequence[Trajectory],
    results: Sequence[_Result],
    further: Sequence[_Result],
    closed: Sequence[Place],
    protocol: Protocol,
) -> Labelled:
    every = sorted([*results, *further], key=lambda each: (each.trajectory.id, each.search))
    dataset, question_id = key = group[0].question.key
    return Labelled(
        dataset,
        question_id,
        utilities=tuple(row for each in every for row in each.utilities),
        subanswers=tuple(
            SubAnswer(each.trajectory.id, each.search, each.graded.subanswer) for each in every
        ),
        derived=tuple({each.trajectory.id: each.trajectory for each in further}.values()),
        searches=len(every),
        continued_searches=len(further),
        candidates=sum(protocol.whole(len(each.utilities)) for each in every),
        continuations=sum(each.measurement.continuations for each in every),
        no_turns=sum(trajectory.question.key == key for trajectory, _ in closed),
        judge_calls=sum(each.graded.judge_calls for each in every),
        subanswer_calls=sum(each.graded.subanswer_calls for each in every),
    )
