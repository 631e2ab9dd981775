"""Relevance of passages for one search, 0-100: by a rule offline, or by a language model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from agentic_r.metrics import answer_in, normalise_answer
from agentic_r.protocols import ChatLLM, JudgeRequest, Sampling
from agentic_r.utility.prompting import close, load_prompt, one_line, without_thought
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

_NUMBER = r"-?\d+(?:\.\d+)?"
_LABELLED = re.compile(
    rf"""\[\s*(\d{{1,6}})\s*\]\s*(?:[:=]|-(?=\s))?\s*({_NUMBER})
       |passage\s*\#?\s*(\d{{1,6}})(?:\s*[:=]\s*|\s+-\s+|\s+)({_NUMBER})
       |(?<![\d.])(\d{{1,6}})["']?\s*[:=]\s*({_NUMBER})
       |^[ \t•-]*(\d{{1,6}})[ \t]*[.)]\s+({_NUMBER})""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_SEPARATORS = re.compile(r"[\s,;|\[\](){}]+")
_SCORE = re.compile(rf"(?:{_NUMBER})[.%]?")
_NO_SCORE = frozenset(("n/a", "na", "nan", "none", "null", "unknown", "?", "-", "--"))


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


class LLMJudge:
    """A language model that grades passages listwise, `window` at a time (contracts B4).

    `chat` is a chat model, or the address of an OpenAI-compatible server and `model` its name
    for the model (empty: the first that it lists). Upstream's window is 10. What can be read of
    a reply is kept; the passages without a score are asked for once more, then they stay None.
    """

    def __init__(
        self,
        chat: ChatLLM | str,
        model: str = "",
        *,
        window: int = 10,
        prompt_file: str | Path = "",
        max_tokens: int = 1000,
    ) -> None:
        if window < 1:
            raise ValueError(f"window: got {window}, expected 1 or more passages a call")
        if isinstance(chat, str):
            from agentic_r.agent.remote import RemoteLLM  # the judge by rule needs no HTTP

            chat = RemoteLLM(chat, model, role="judge")
        self.chat = chat
        self._window = window
        self._prompt = load_prompt("judge", prompt_file, places=("query", "passages"))
        self._sampling = Sampling(max_tokens=max_tokens)

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Score each passage of the request from 0 to 100; None where no score could be read.

        Raises LLMError when the model cannot be reached.
        """
        count = len(request.passages)
        windows = [
            range(start, min(start + self._window, count))
            for start in range(0, count, self._window)
        ]
        parts = await asyncio.gather(*(self._grade(request, window) for window in windows))
        return [score for part in parts for score in part]

    async def aclose(self) -> None:
        """Close the model's connections; the next call opens new ones."""
        await close(self.chat)

    async def _grade(self, request: JudgeRequest, window: Sequence[int]) -> list[float | None]:
        scores = await self._ask(request, window)
        missing = [place for place, score in enumerate(scores) if score is None]
        if missing:
            again = await self._ask(request, [window[place] for place in missing], again=True)
            for place, score in zip(missing, again, strict=True):
                scores[place] = score
        return scores

    async def _ask(
        self, request: JudgeRequest, rows: Sequence[int], *, again: bool = False
    ) -> list[float | None]:
        subanswer = sure(request.subanswer)
        system, user = self._prompt.fill(
            question=one_line(request.question),
            answers=", ".join(one_line(answer) for answer in request.answers),
            query=one_line(request.query),
            reference=f"Reference answer: {one_line(subanswer)}\n" if subanswer else "",
            passages="\n\n".join(
                f"Passage [{n}]: {one_line(request.passages[row])}"
                for n, row in enumerate(rows, start=1)
            ),
            count=str(len(rows)),
        )
        if again:
            user += f"\nReply with the {len(rows)} integers alone: no labels, no words."
        return parse_scores(await self.chat.chat(system, user, self._sampling), len(rows))


def parse_scores(reply: str, count: int) -> list[float | None]:
    """Read `count` scores from a judge's reply, each limited to 0-100, None where unreadable.

    Read are labelled scores ("[1] 80", "Passage 2: 65", "3. 20", JSON) in any order, else the
    lines that hold nothing but numbers, in order, after a heading that ends in a colon too.
    Surplus scores are ignored; "n/a" and the like keep their place. Prose is not searched for
    numbers, because "these 10 passages" is no score.
    """
    text = without_thought(reply).replace("*", "").replace("`", "")
    text = re.sub(r"(?<=\d)\s*/\s*100\b", "", text)
    scores: list[float | None] = [None] * count
    labelled = False
    for match in _LABELLED.finditer(text):
        place, value = (group for group in match.groups() if group is not None)
        if 1 <= int(place) <= count:
            labelled = True
            if scores[int(place) - 1] is None:
                scores[int(place) - 1] = _limited(value)
    if labelled:
        return scores
    values = [value for line in text.splitlines() for value in _bare_scores(line)][:count]
    return [*values, *[None] * (count - len(values))]


def _bare_scores(line: str) -> list[float | None]:
    """The scores of a line without words, in order; nothing of any other line."""
    tokens = [token for token in _SEPARATORS.split(line.rpartition(":")[2].lower()) if token]
    empty = [token in _NO_SCORE for token in tokens]
    if not all(none or _SCORE.fullmatch(token) for token, none in zip(tokens, empty, strict=True)):
        return []
    return [
        None if none else _limited(token.rstrip(".%"))
        for token, none in zip(tokens, empty, strict=True)
    ]


def _limited(value: str) -> float:
    return min(100.0, max(0.0, float(value)))
