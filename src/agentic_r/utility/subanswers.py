"""What each search of a trajectory ought to have found: from annotated hops, or from a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentic_r.config import UtilityConfig
from agentic_r.data.questions import hop_asked
from agentic_r.errors import JudgeError
from agentic_r.protocols import ChatLLM, Sampling, SubAnswers
from agentic_r.types import Trajectory
from agentic_r.utility.prompting import (
    ask,
    close,
    load_prompt,
    named,
    one_line,
    quoted_trajectory,
    without_thought,
)
from agentic_r.utility.tally import count

_ITEM = re.compile(r"<sub-answer>(.*?)</sub-answer>", re.DOTALL | re.IGNORECASE)


def transcript(trajectory: Trajectory) -> str:
    """Write out what the agent wrote and was shown, as its dialect rendered it."""
    return "".join(turn.text.strip() + (turn.observation or "") for turn in trajectory.turns)


def sure(subanswer: str | None) -> str | None:
    """Return the sub-answer, or None where it is empty or "Not Sure" (contracts B4)."""
    text = " ".join((subanswer or "").split())
    return None if text.rstrip(".!").lower() in ("", "not sure") else text


class HopSubAnswers:
    """Sub-answers from annotated hops: the answer of the hop whose question the search asks."""

    async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
        """Return one sub-answer a search; None where the search asks no annotated hop."""
        hops = [hop_asked(trajectory.question, search.query) for search in trajectory.searches]
        return [sure(hop.answer) if hop else None for hop in hops]


class KnownSubAnswers:
    """Sub-answers that are known, by `Trajectory.key`; another source is asked for the others."""

    def __init__(
        self, known: Mapping[tuple[str, str, str], Sequence[str | None]], otherwise: SubAnswers
    ) -> None:
        self._known = known
        self._otherwise = otherwise

    async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
        """Return one sub-answer a search. Raises LLMError as the other source does."""
        known = self._known.get(trajectory.key)
        if known is None:
            return await self._otherwise.subanswers(trajectory)
        return list(known)

    async def aclose(self) -> None:
        """Close the connections of the other source."""
        await close(self._otherwise)


class LLMSubAnswers:
    """Sub-answers from a language model that reads the whole trajectory (contracts B3)."""

    def __init__(
        self,
        chat: ChatLLM,
        *,
        structured: bool = True,
        prompt_file: str | Path = "",
        max_tokens: int = 1000,
    ) -> None:
        self._chat = chat
        self._structured = structured
        self._prompt = load_prompt("subanswers", prompt_file, places=("trajectory",))
        self._sampling = Sampling(max_tokens=max_tokens)

    async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
        """Return one sub-answer a search; a trajectory without a search costs no call.

        Raises LLMError when the model cannot be reached, JudgeError when it wrote another number
        of items than there are searches twice.
        """
        expected = len(trajectory.searches)
        if not expected:
            return []
        system, user = self._fill(trajectory)
        found = await self._ask(system, user, expected)
        if len(found) != expected:
            reminder = f"\nA reply with {len(found)} items was wrong: write exactly {expected}."
            found = await self._ask(system, user + reminder, expected)
        if len(found) != expected:
            raise JudgeError(
                f"got {len(found)} sub-answers from the judge, expected {expected}, one a search, "
                "asked twice"  # without the trajectory's id, so that equal reasons are counted
            )
        return found

    async def asked(self, trajectory: Trajectory) -> Any:
        """Return all that the sub-answers depend on: what the cache goes by."""
        limits = self._sampling.max_tokens, self._structured
        return [await named(self._chat), *self._fill(trajectory), *limits]

    async def _ask(self, system: str, user: str, expected: int) -> list[str | None]:
        count("subanswers")
        schema = _schema(expected) if self._structured else None
        return parse_subanswers(await ask(self._chat, system, user, self._sampling, schema))

    def _fill(self, trajectory: Trajectory) -> tuple[str, str]:
        question = trajectory.question
        return self._prompt.fill(
            question=one_line(question.text),
            answers=", ".join(f'"{one_line(answer)}"' for answer in question.answers),
            trajectory=quoted_trajectory(transcript(trajectory)),
            queries="\n".join(
                f"Query [{n}]: {one_line(search.query)}"
                for n, search in enumerate(trajectory.searches, start=1)
            ),
            count=str(len(trajectory.searches)),
        )

    async def aclose(self) -> None:
        """Close the model's connections; the next call opens new ones."""
        await close(self._chat)


def subanswers_of(chat: ChatLLM, settings: UtilityConfig) -> LLMSubAnswers:
    """Have a chat model say the sub-answers as `settings` want them asked."""
    return LLMSubAnswers(
        chat,
        structured=settings.structured == "auto",
        prompt_file=settings.subanswer_prompt_file,
        max_tokens=settings.judge_tokens,
    )


def parse_subanswers(reply: str) -> list[str | None]:
    """Read the `<sub-answer>` items of a reply, over several lines too; None for "Not Sure".

    A JSON object with a list "sub_answers" is read as well.
    """
    text = without_thought(reply)
    items = _ITEM.findall(text)
    return [sure(item) for item in items or _json_items(text)]


def _json_items(text: str) -> list[str]:
    start, end = text.find("{"), text.rfind("}")
    try:
        return msgspec.json.decode(text[start : end + 1].encode(), type=_Reply).sub_answers
    except msgspec.DecodeError:
        return []


class _Reply(msgspec.Struct):
    """A reply that was held to the schema."""

    sub_answers: list[str]


def _schema(count: int) -> dict[str, Any]:
    items = {"type": "array", "items": {"type": "string"}, "minItems": count, "maxItems": count}
    return {
        "type": "object",
        "properties": {"sub_answers": items},
        "required": ["sub_answers"],
        "additionalProperties": False,
    }
