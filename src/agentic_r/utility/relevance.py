"""Relevance of the candidates of many searches at once, with failures kept apart per search."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar

import msgspec

from agentic_r.errors import JudgeError, LLMError, OutageError
from agentic_r.protocols import AnnotatedJudge, Judge, JudgeRequest, SubAnswers
from agentic_r.types import Candidate, Trajectory
from agentic_r.utility.prompting import close
from agentic_r.utility.subanswers import transcript
from agentic_r.utility.tally import tallied
from agentic_r.waiting import wait

T = TypeVar("T")
Place = tuple[Trajectory, int]

OUTAGE = 8
"""Of so many requests or more, more than half failed, mean that the server cannot be used."""

_TAG = re.compile(r"<[^<>]*>")


class Graded(msgspec.Struct, frozen=True):
    """One search as the judge sees it: its sub-answer and a relevance 0-100 per candidate.

    `error` says why scores are missing, empty where single ones could not be read. The calls are
    those that this search caused; a trajectory's sub-answers count for its first search here.
    """

    subanswer: str | None
    relevance: tuple[float | None, ...]
    error: str = ""
    judge_calls: int = 0
    subanswer_calls: int = 0


async def grade(
    places: Sequence[Place],
    found: Sequence[Sequence[Candidate]],
    judge: Judge,
    subanswers: SubAnswers,
) -> list[Graded]:
    """Score the candidates of every search; one result per place, in order.

    A trajectory's sub-answers are asked for once. A request that fails leaves its search without
    scores and with the reason. Raises OutageError when a server is down, LLMError when more than
    half of at least `OUTAGE` requests failed otherwise than by a JudgeError, and ValueError when
    a judge returns another number of scores than passages.
    """
    answers, asked = await _known(places, subanswers)
    texts = {trajectory.key: transcript(trajectory) for trajectory, _ in places}
    tallies: list[Counter[str]] = [Counter() for _ in places]

    async def one(number: int) -> Graded:
        tallies[number] = tallied()
        place, candidates = places[number], found[number]
        known = answers[place[0].key]
        if isinstance(known, LLMError):
            raise known
        request = _request(place, candidates, known[place[1]], texts[place[0].key])
        scores = await _scores(judge, place[0], request, candidates) if candidates else []
        if len(scores) != len(candidates):
            raise ValueError(f"judge: got {len(scores)} scores, expected {len(candidates)}")
        return Graded(known[place[1]], tuple(scores))

    results: list[Graded] = []
    for number, each in enumerate(await _all(one(number) for number in range(len(places)))):
        if isinstance(each, LLMError):
            each = Graded(None, (None,) * len(found[number]), str(each))
        calls = asked.pop(places[number][0].key, Counter())["subanswers"]
        judged = tallies[number]["judge"]
        results.append(msgspec.structs.replace(each, judge_calls=judged, subanswer_calls=calls))
    return results


async def _known(
    places: Sequence[Place], source: SubAnswers
) -> tuple[dict[tuple[str, str, str], list[str | None] | LLMError], dict[object, Counter[str]]]:
    """Ask for the sub-answers of every trajectory, once each, and count the calls."""
    trajectories = list({trajectory.key: trajectory for trajectory, _ in places}.values())
    asked: dict[object, Counter[str]] = {}

    async def one(trajectory: Trajectory) -> list[str | None]:
        asked[trajectory.key] = tallied()
        answers = await source.subanswers(trajectory)
        expected = len(trajectory.searches)
        if len(answers) != expected:
            raise ValueError(f"sub-answers: got {len(answers)}, expected {expected}, one a search")
        return answers

    results = await _all(one(trajectory) for trajectory in trajectories)
    return {t.key: said for t, said in zip(trajectories, results, strict=True)}, asked


def _request(
    place: Place, candidates: Sequence[Candidate], subanswer: str | None, text: str
) -> JudgeRequest:
    trajectory, search = place
    return JudgeRequest(
        question=trajectory.question.text,
        answers=trajectory.question.answers,
        query=trajectory.searches[search].query,
        subanswer=subanswer,
        trajectory=text,
        passages=tuple(each.passage.contents for each in candidates),
        reasoning=reasoning(trajectory, search),
    )


def reasoning(trajectory: Trajectory, search: int) -> str:
    """Return what the agent wrote in the turn of a search before its query, without tags."""
    seen = 0
    for turn in trajectory.turns:
        if search < seen + len(turn.searches):
            text = " ".join(_TAG.sub(" ", turn.text).split())
            query = " ".join(turn.searches[search - seen].query.split())
            found = [
                each.start() for each in re.finditer(rf"(?<!\w){re.escape(query)}(?!\w)", text)
            ]
            return text[: found[-1]].strip() if query and found else text
        seen += len(turn.searches)
    raise IndexError(f"trajectory {trajectory.id} has {seen} searches, so there is no {search}")


async def _scores(
    judge: Judge, trajectory: Trajectory, request: JudgeRequest, candidates: Sequence[Candidate]
) -> list[float | None]:
    """Ask the judge, which sees ids and metadata only where it is one that reads annotation."""
    if isinstance(judge, AnnotatedJudge):
        ids = tuple(each.passage.id for each in candidates)
        return await judge.annotated(trajectory.question, request, ids)
    return await judge.relevance(request)


def graded(
    places: Sequence[Place],
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


async def _all(requests: Iterable[Awaitable[T]]) -> list[T | LLMError]:
    """Await all requests side by side; an LLMError is a result unless most are one.

    A JudgeError does not count: it would come again, and the run could never go on from there.
    """

    async def caught(request: Awaitable[T]) -> T | LLMError:
        try:
            return await request
        except OutageError:
            raise
        except LLMError as error:
            return error

    results = list(await asyncio.gather(*(caught(request) for request in requests)))
    lost = [each for each in results if isinstance(each, LLMError)]
    errors = [each for each in lost if not isinstance(each, JudgeError)]
    if len(results) >= OUTAGE and 2 * len(errors) > len(results):
        raise LLMError(
            f"{len(errors)} of {len(results)} requests of the judge failed, the first with: "
            f"{errors[0]}; nothing of them is kept, the same command goes on from here"
        ) from errors[0]
    return results
