"""The CoRAG protocol: a chain of sub-queries and sub-answers, then the final answer.

A step costs two model calls, each a conversation of its own: one writes the next sub-query, one
answers it from the passages. The last call answers the question from the chain and all passages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from agentic_r.agent.dialects.speech import short_answer, without_end
from agentic_r.agent.dialects.text import Spoken
from agentic_r.protocols import Completion, Conversation, Message, Prompt
from agentic_r.types import Hit, Search, Trajectory, Turn

STEPS = 4

Call = Literal["query", "answer", "final"]

_NUMBERED = re.compile(r"^Intermediate query\s*\d*:\s*", re.IGNORECASE)


class CoRAG(Spoken):
    """Prompts, reads and shows evidence to an agent that speaks the CoRAG protocol.

    `turns` calls are (`turns` - 1) // 2 steps and the last call.
    """

    name = "corag"
    turns = 2 * STEPS + 1
    needs = frozenset(("chat",))
    sections = (
        ("query", ("question", "chain")),
        ("answer", ("query", "documents")),
        ("final", ("question", "chain", "documents")),
    )
    labels = ("Intermediate query", "Intermediate answer", "Main query")

    def prompt(self, trajectory: Trajectory) -> Prompt:
        """Render the conversation of the next call."""
        call = self.call(trajectory)
        if call == "answer":
            before = Trajectory(trajectory.id, trajectory.question, trajectory.turns[:-1])
            text = self.seen(trajectory.turns[-1], before)
        else:
            hits = [hit for search in trajectory.searches for hit in search.hits]
            found = [f"Doc {at}: {self._contents([hit])}" for at, hit in enumerate(hits)]
            text = self.template.fill(
                call,
                question=self.asked(trajectory),
                chain=self.chain(trajectory),
                documents="\n\n".join(found),
            )
        return Conversation((Message("user", text),))

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read a sub-query, a sub-answer or the final answer."""
        text = without_end(completion.text).strip()
        call = self.call(trajectory)
        if call == "query":
            query = _plain(text)
            return Turn(text, "search", (Search(query, ""),)) if query else Turn(text, "invalid")
        if call == "answer":
            return Turn(text, "continue")
        answer = short_answer(text)
        return Turn(text, "answer", answer=answer) if answer else Turn(text, "invalid")

    def observe(self, turn: Turn, trajectory: Trajectory) -> str:
        """Render the prompt of the call that answers the turn's sub-query."""
        [search] = turn.searches
        return self.template.fill(
            "answer", query=search.query, documents=self._contents(search.hits)
        )

    def reasoning(self, turn: Turn) -> str:
        """Return nothing: a sub-query is written without a thought."""
        return ""

    def call(self, trajectory: Trajectory) -> Call:
        """Say what the next model call is for, from the turns so far."""
        if trajectory.turns and trajectory.turns[-1].searches:
            return "answer"
        return "query" if len(trajectory.searches) < (self.turns - 1) // 2 else "final"

    def chain(self, trajectory: Trajectory) -> str:
        """Return the sub-queries and sub-answers so far, numbered from 1."""
        lines: list[str] = []
        for turn in trajectory.turns:
            if turn.searches:
                number = len(lines) // 2 + 1
                lines.append(f"Intermediate query {number}: {turn.searches[0].query}")
            else:
                # The model wrote it, but from passages: it is shown as data.
                number = len(lines) // 2 + 1
                lines.append(f"Intermediate answer {number}: {self.shown(turn.text)}")
        return "\n".join(lines) if lines else "Nothing yet"

    def _contents(self, hits: Sequence[Hit]) -> str:
        return "\n\n".join(
            f'"{self.shown(hit.passage.title)}"\n{self.shown(hit.passage.text)}' for hit in hits
        )


def _plain(text: str) -> str:
    """Return a sub-query without the quotes and the number that models put around it."""
    lines = text.strip().splitlines()
    query = lines[0].strip() if lines else ""
    if len(query) > 1 and query.startswith('"') and query.endswith('"'):
        query = query[1:-1]
    return _NUMBERED.sub("", query).strip()
