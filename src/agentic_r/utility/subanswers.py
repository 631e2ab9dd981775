"""What each search of a trajectory ought to have found: from annotated hops, or from a model."""

from __future__ import annotations

import re
from pathlib import Path

from agentic_r.data.questions import hop_asked
from agentic_r.errors import LLMError
from agentic_r.protocols import ChatLLM, Sampling
from agentic_r.types import Trajectory
from agentic_r.utility.prompting import (
    close,
    load_prompt,
    one_line,
    quoted_trajectory,
    without_thought,
)

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


class LLMSubAnswers:
    """Sub-answers from a language model that reads the whole trajectory (contracts B3)."""

    def __init__(
        self, chat: ChatLLM, *, prompt_file: str | Path = "", max_tokens: int = 1000
    ) -> None:
        self._chat = chat
        self._prompt = load_prompt("subanswers", prompt_file, places=("trajectory",))
        self._sampling = Sampling(max_tokens=max_tokens)

    async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
        """Return one sub-answer a search; a trajectory without a search costs no call.

        Raises LLMError when the model cannot be reached, or when it wrote another number of
        items than there are searches twice.
        """
        expected = len(trajectory.searches)
        if not expected:
            return []
        question = trajectory.question
        system, user = self._prompt.fill(
            question=one_line(question.text),
            answers=", ".join(f'"{one_line(answer)}"' for answer in question.answers),
            trajectory=quoted_trajectory(transcript(trajectory)),
            queries="\n".join(
                f"Query [{n}]: {one_line(search.query)}"
                for n, search in enumerate(trajectory.searches, start=1)
            ),
            count=str(expected),
        )
        found = parse_subanswers(await self._chat.chat(system, user, self._sampling))
        if len(found) != expected:
            reminder = f"\nA reply with {len(found)} items was wrong: write exactly {expected}."
            found = parse_subanswers(await self._chat.chat(system, user + reminder, self._sampling))
        if len(found) != expected:
            raise LLMError(
                f"trajectory {trajectory.id}: got {len(found)} sub-answers from the judge, "
                f"expected {expected}, one a search, asked twice"
            )
        return found

    async def aclose(self) -> None:
        """Close the model's connections; the next call opens new ones."""
        await close(self._chat)


def parse_subanswers(reply: str) -> list[str | None]:
    """Read the `<sub-answer>` items of a reply, over several lines too; None for "Not Sure"."""
    return [sure(item) for item in _ITEM.findall(without_thought(reply))]
