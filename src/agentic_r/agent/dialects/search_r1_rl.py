"""The Search-R1 protocol as agents are trained with it (contracts B9, B10).

It differs from the evaluation form: the first action counts and what follows it is cut off, the
block has no newlines inside, a turn that cannot be read is answered with a message and tried
again, the question ends with a question mark, lengths are cut, and the last call cannot search.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentic_r.agent.dialects.limits import first, last
from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.agent.dialects.speech import is_last, unread, without_end
from agentic_r.protocols import Completion, Prompt
from agentic_r.types import Hit, Question, Search, Trajectory, Turn

START_TOKENS = 2048
"""Tokens of the first prompt; its beginning is lost where it is longer."""

OBSERVATION_TOKENS = 800
"""Tokens of an observation; its end is lost where it is longer."""

PROMPT_TOKENS = 4096
"""Tokens of a prompt with all its turns; its beginning is lost where it is longer."""

_ACTION = re.compile(r"<(search|answer)>(.*?)</\1>", re.DOTALL)


class SearchR1RL(SearchR1):
    """Prompts, reads and shows evidence as the training of Search-R1 does.

    `turns` model calls are `turns` - 1 that may search and a last one that may not.
    """

    name = "search-r1-rl"
    told = "search_r1_rl_invalid"

    def question(self, question: Question) -> str:
        """Return the question as it is put to agent and retriever: with its question mark."""
        text = question.text.strip()
        return text if text.endswith("?") else f"{text}?"

    def asked(self, trajectory: Trajectory) -> str:
        """Return the question as the agent is shown it."""
        return self.shown(self.question(trajectory.question))

    def prompt(self, trajectory: Trajectory) -> Prompt:
        """Render what the model continues, cut at its beginning where it is too long."""
        whole = super().prompt(trajectory)
        if not isinstance(whole, str):
            return whole
        begun = self.transcript(trajectory)
        start = last(whole.removesuffix(begun), START_TOKENS, self.ruler)
        return last(start + begun, PROMPT_TOKENS, self.ruler)

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read the first action of a turn and drop what the model wrote after it."""
        text = without_end(completion.text)
        for end in ("</search>", "</answer>"):
            if end in text:
                text = text[: text.index(end) + len(end)]
                break
        action = _ACTION.search(text)
        final = is_last(trajectory, self.turns)
        if action is not None and action.group(1) == "answer":
            return Turn(text, "answer", answer=action.group(2).strip())
        if action is not None:
            query = Search(action.group(2).strip(), "")
            return Turn(text, "search", () if final else (query,))
        turn = unread(text, completion.finish)
        return turn if final else Turn(text, turn.status, observation=self.invalid)

    def observe(self, turn: Turn, trajectory: Trajectory) -> str:
        """Render the evidence, cut at its end where it is too long."""
        return first(super().observe(turn, trajectory), OBSERVATION_TOKENS, self.ruler)

    def block(self, hits: Sequence[Hit]) -> str:
        """Render one search's evidence without newlines inside the tags."""
        return f"\n\n<information>{self.documents(hits).strip()}</information>\n\n"

    def written(self, turn: Turn) -> str:
        """Return a turn as it was cut, outer spaces included."""
        return turn.text
