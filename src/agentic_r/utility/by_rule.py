"""Judges that need no model: by words, by the answer held, by annotated passages."""

from __future__ import annotations

import re
from functools import lru_cache

from agentic_r.data.questions import hop_asked, hops
from agentic_r.errors import JudgeError
from agentic_r.metrics import answer_in, normalise_answer
from agentic_r.protocols import JudgeRequest
from agentic_r.types import Question
from agentic_r.utility.subanswers import sure

_STOP_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        "about after also among and any are as at be been before being both but by can could "
        "did do does during each for from had has have having he her his how i if in into is it "
        "its let many may me much my no nor not of on once or our out over own she should so "
        "some such than that their them then there these they this those to under until up us "
        "was we were what whats when where which while who whom whose why will with would you "
        "your",
    )
)


class OfflineJudge:
    """A judge by rule, told what the paper's judge is told and no more.

    Coverage is the share of the query's content words that the passage holds. A passage that
    holds the sub-answer scores 60 + 40 x coverage, any other 40 x coverage, so that without a
    sub-answer nothing scores above 40.
    """

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Score each passage of the request, whole numbers from 0 to 100."""
        subanswer = sure(request.subanswer)
        wanted = _content_words(request.query)
        scores: list[float | None] = []
        for passage in request.passages:
            held = len(wanted & _words(passage)) / len(wanted) if wanted else 0.0
            base = 60.0 if subanswer is not None and answer_in(passage, subanswer) else 0.0
            scores.append(float(round(base + 40.0 * held)))
        return scores


@lru_cache(maxsize=65536)
def _words(text: str) -> frozenset[str]:
    return frozenset(normalise_answer(text).split())


def _content_words(query: str) -> frozenset[str]:
    return _words(query) - _STOP_WORDS


class ContainmentJudge:
    """Scores what a passage holds: 100 the sub-answer, 70 an answer of the question, else 0.

    Where the sub-answer is not known, an answer of the question is all that can be looked for.
    """

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Score each passage of the request 0, 70 or 100."""
        return [_held(passage, request) for passage in request.passages]


def _held(passage: str, request: JudgeRequest) -> float:
    subanswer = sure(request.subanswer)
    if subanswer is not None and answer_in(passage, subanswer):
        return 100.0
    return 70.0 if any(answer_in(passage, answer) for answer in request.answers) else 0.0


class GoldJudge:
    """Scores by annotation: 100 the gold passage of the hop asked, 40 that of another hop, else 0.

    A search that asks no annotated hop is scored by the sub-answer: the hop that has it counts
    as asked; where none has, every gold passage of the question gets 100. It is told ids and
    metadata by way of `annotated`, which no other judge has.
    """

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Refuse: texts alone do not say which passage is annotated. Raises JudgeError."""
        raise JudgeError("the gold judge reads annotation and cannot score texts alone")

    async def annotated(
        self, question: Question, request: JudgeRequest, ids: tuple[str, ...]
    ) -> list[float | None]:
        """Score each passage by its id. Raises JudgeError where no gold passage is annotated."""
        steps = [hop for hop in hops(question) if hop.passage_id]
        gold = {hop.passage_id for hop in steps}
        gold |= {str(id) for id in question.metadata.get("gold_passage_ids") or ()}
        if not gold:
            raise JudgeError(
                f"question {question.id!r} names no gold passage, which the gold judge needs; "
                "annotate metadata.hops with passage_id, or take another utility.judge"
            )
        asked = hop_asked(question, request.query)
        here = {asked.passage_id} if asked is not None and asked.passage_id else set()
        answer = sure(request.subanswer)
        if not here and answer is not None:
            wanted = normalise_answer(answer)
            here = {hop.passage_id for hop in steps if normalise_answer(hop.answer) == wanted}
        here = here or gold
        return [100.0 if id in here else 40.0 if id in gold else 0.0 for id in ids]
