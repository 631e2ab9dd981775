"""Relevance of the candidates of many searches at once, with failures kept apart per search."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar

import msgspec

from agentic_r.errors import LLMError, OutageError
from agentic_r.protocols import Judge, JudgeRequest, SubAnswers
from agentic_r.types import Candidate, Trajectory
from agentic_r.utility.prompting import close
from agentic_r.utility.subanswers import transcript
from agentic_r.waiting import wait

T = TypeVar("T")

OUTAGE = 8
"""So many requests, all failed, mean that the server cannot be used."""


class Graded(msgspec.Struct, frozen=True):
    """One search as the judge sees it: its sub-answer and a relevance 0-100 per candidate.

    `error` says why scores are missing, empty where single ones could not be read.
    """

    subanswer: str | None
    relevance: tuple[float | None, ...]
    error: str = ""


async def grade(
    places: Sequence[tuple[Trajectory, int]],
    found: Sequence[Sequence[Candidate]],
    judge: Judge,
    subanswers: SubAnswers,
) -> list[Graded]:
    """Score the candidates of every search; one result per place, in order.

    A trajectory's sub-answers are asked for once. A request that fails leaves its search without
    scores and with the reason. Raises OutageError when a server is down, LLMError when at least
    `OUTAGE` requests were made and all failed, and ValueError when a judge returns another number
    of scores than passages.
    """
    trajectories = list({_key(trajectory): trajectory for trajectory, _ in places}.values())
    known = dict(
        zip(
            map(_key, trajectories),
            await _all(_subanswers(subanswers, trajectory) for trajectory in trajectories),
            strict=True,
        )
    )
    texts = {_key(trajectory): transcript(trajectory) for trajectory in trajectories}

    async def one(place: tuple[Trajectory, int], candidates: Sequence[Candidate]) -> Graded:
        trajectory, search = place
        answers = known[_key(trajectory)]
        if isinstance(answers, LLMError):
            raise answers
        request = JudgeRequest(
            question=trajectory.question.text,
            answers=trajectory.question.answers,
            query=trajectory.searches[search].query,
            subanswer=answers[search],
            trajectory=texts[_key(trajectory)],
            passages=tuple(each.passage.contents for each in candidates),
        )
        scores = await judge.relevance(request) if candidates else []
        if len(scores) != len(candidates):
            raise ValueError(f"judge: got {len(scores)} scores, expected {len(candidates)}")
        return Graded(answers[search], tuple(scores))

    results = await _all(one(place, row) for place, row in zip(places, found, strict=True))
    return [
        Graded(None, (None,) * len(row), str(each)) if isinstance(each, LLMError) else each
        for each, row in zip(results, found, strict=True)
    ]


def _key(trajectory: Trajectory) -> tuple[str, str, str]:
    return (*trajectory.question.key, trajectory.id)


def graded(
    places: Sequence[tuple[Trajectory, int]],
    found: Sequence[Sequence[Candidate]],
    judge: Judge,
    subanswers: SubAnswers,
) -> list[Graded]:
    """Call `grade` from code that is not asynchronous, and close the models' connections."""

    async def whole() -> list[Graded]:
        try:
            return await grade(places, found, judge, subanswers)
        finally:
            await close(judge)
            await close(subanswers)

    return wait(whole())


async def _subanswers(source: SubAnswers, trajectory: Trajectory) -> list[str | None]:
    answers = await source.subanswers(trajectory)
    expected = len(trajectory.searches)
    if len(answers) != expected:
        raise ValueError(f"sub-answers: got {len(answers)}, expected {expected}, one a search")
    return answers


async def _all(requests: Iterable[Awaitable[T]]) -> list[T | LLMError]:
    """Await all requests side by side; an LLMError is a result unless it is every result."""

    async def caught(request: Awaitable[T]) -> T | LLMError:
        try:
            return await request
        except OutageError:
            raise
        except LLMError as error:
            return error

    results = list(await asyncio.gather(*(caught(request) for request in requests)))
    errors = [each for each in results if isinstance(each, LLMError)]
    if len(errors) == len(results) >= OUTAGE:
        raise errors[0]
    return results
