"""Relevance of passages for one search, 0-100, by a language model that grades them listwise."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from agentic_r.protocols import ChatLLM, JudgeRequest, Sampling
from agentic_r.utility.prompting import Prompt, ask, close, load_prompt, named, one_line
from agentic_r.utility.replies import parse_scores
from agentic_r.utility.subanswers import sure
from agentic_r.utility.tally import count
from agentic_r.utility.windows import joined, spread, windows

JudgeInput = Literal["query", "question+query", "question+reasoning+query"]
"""What the model is told of the search, besides the reference answer."""


class LLMJudge:
    """A language model that grades passages listwise, `window` at a time (contracts B4).

    `chat` is a chat model, or the address of an OpenAI-compatible server and `model` its name
    for the model (empty: the first that it lists). Where passages do not fit one window,
    `anchors` of them are shown in every window, and the windows are put on one scale by them
    (`windows.joined`); upstream has windows of 10 and no anchors. `about` adds the question and
    the agent's reasoning to the query as intent. With `structured`, a server that can is held
    to a JSON schema. What can be read of a reply is kept; the passages without a score are asked
    for once more, then they stay None. Equal texts are graded once.
    """

    def __init__(
        self,
        chat: ChatLLM | str,
        model: str = "",
        *,
        window: int = 20,
        anchors: int = 2,
        about: JudgeInput = "query",
        structured: bool = True,
        prompt_file: str | Path = "",
        max_tokens: int = 1000,
    ) -> None:
        if window < 1:
            raise ValueError(f"window: got {window}, expected 1 or more passages a call")
        if about not in get_args(JudgeInput):
            raise ValueError(f"about: got {about!r}, expected one of {get_args(JudgeInput)}")
        if isinstance(chat, str):
            from agentic_r.agent.remote import RemoteLLM  # the judges by rule need no HTTP

            chat = RemoteLLM(chat, model, role="judge")
        self.chat = chat
        self._window = window
        self._anchors = anchors
        self._about = about
        self._structured = structured
        self._prompt: Prompt = load_prompt("judge", prompt_file, places=("query", "passages"))
        self._sampling = Sampling(max_tokens=max_tokens)

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Score each passage of the request from 0 to 100; None where no score could be read.

        Raises LLMError when the model cannot be reached.
        """
        texts = list(dict.fromkeys(request.passages))
        shown = windows(len(texts), self._window, self._anchors)
        parts = await asyncio.gather(
            *(self._grade(request, [texts[row] for row in rows]) for rows in shown)
        )
        scores = dict(zip(texts, joined(shown, parts, len(texts)), strict=True))
        return [scores[text] for text in request.passages]

    async def asked(self, request: JudgeRequest) -> Any:
        """Return all that the scores depend on besides the passages: what the cache goes by."""
        form = self._fill(request, ())
        return [
            await named(self.chat),
            *form,
            self._window,
            self._anchors,
            self._sampling.max_tokens,
            self._structured,
        ]

    async def aclose(self) -> None:
        """Close the model's connections; the next call opens new ones."""
        await close(self.chat)

    async def _grade(self, request: JudgeRequest, texts: Sequence[str]) -> list[float | None]:
        """Score a window; what could not be read is asked once more, beside anchors as well."""
        scores = await self._ask(request, texts)
        missing = [row for row, score in enumerate(scores) if score is None]
        if not missing:
            return scores
        read = [row for row, score in enumerate(scores) if score is not None]
        anchors = spread(read, min(self._anchors, self._window - len(missing)))
        rows = [*anchors, *missing]
        again = await self._ask(request, [texts[row] for row in rows], again=True)
        return joined([range(len(texts)), rows], [scores, again], len(texts))

    async def _ask(
        self, request: JudgeRequest, texts: Sequence[str], *, again: bool = False
    ) -> list[float | None]:
        system, user = self._fill(request, texts)
        if again:
            user += f"\nReply with the {len(texts)} integers alone: no labels, no words."
        count("judge")
        schema = _schema(len(texts)) if self._structured else None
        return parse_scores(await ask(self.chat, system, user, self._sampling, schema), len(texts))

    def _fill(self, request: JudgeRequest, texts: Sequence[str]) -> tuple[str, str]:
        subanswer = sure(request.subanswer)
        return self._prompt.fill(
            question=one_line(request.question),
            answers=", ".join(one_line(answer) for answer in request.answers),
            query=one_line(request.query),
            intent=self._intent(request),
            reference=f"Reference answer: {one_line(subanswer)}\n" if subanswer else "",
            passages="\n\n".join(
                f"Passage [{n}]: {one_line(text)}" for n, text in enumerate(texts, start=1)
            ),
            count=str(len(texts)),
        )

    def _intent(self, request: JudgeRequest) -> str:
        if self._about == "query":
            return ""
        lines = [f"The search serves this question: {one_line(request.question)}"]
        if self._about == "question+reasoning+query" and request.reasoning.strip():
            lines.append(f"Why the agent searches: {one_line(request.reasoning)}")
        return "\n".join(lines) + "\n"


def _schema(count: int) -> dict[str, Any]:
    """The JSON schema of a reply with `count` scores."""
    score = {"type": "integer", "minimum": 0, "maximum": 100}
    scores = {"type": "array", "items": score, "minItems": count, "maxItems": count}
    return {
        "type": "object",
        "properties": {"scores": scores},
        "required": ["scores"],
        "additionalProperties": False,
    }
