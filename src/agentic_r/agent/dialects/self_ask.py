"""Self-Ask: the model asks follow-up questions and answers them from what is found.

The passages of the last retrieval stand in front of the question, as in FlashRAG. One call
answers a follow-up and asks the next one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentic_r.agent.dialects.baselines import RAG
from agentic_r.agent.dialects.neutral import one_line
from agentic_r.agent.dialects.speech import unread, without_end
from agentic_r.protocols import Completion
from agentic_r.types import Hit, Search, Trajectory, Turn

ASKS = "Intermediate answer:"
_FINAL = re.compile(r"So the final answer is:[ \t]*(.*)")
_FOLLOW_UP = re.compile(r"Follow up:[ \t]*(.*)")


class SelfAsk(RAG):
    """Prompts, reads and shows evidence by the Self-Ask protocol."""

    name = "self-ask"
    stop: tuple[str, ...] = (ASKS, "\nContext", "\nQuestion:", "#")
    turns = 5
    labels = (
        *("Question", "Context", "Follow up", "Intermediate answer", "So the final answer is"),
        "Are follow up questions needed here",
    )

    def asked(self, trajectory: Trajectory) -> str:
        """Return the question on one line."""
        return one_line(trajectory.question.text, self.labels)

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read the final answer, else the last follow-up question of a turn."""
        text = completion.text
        for end in self.stop[1:]:
            text = text.removesuffix(end)
        text = without_end(text)
        final = _FINAL.search(text)
        if final is not None and final.group(1).strip():
            answer = final.group(1).strip().removesuffix(".").strip()
            return Turn(text[: final.end()], "answer", answer=answer)
        asked = _FOLLOW_UP.findall(text)
        if not asked or not asked[-1].strip():
            return unread(text, completion.finish)
        if not text.endswith(ASKS):
            text = f"{text.rstrip()}\n{ASKS}"
        return Turn(text, "search", (Search(asked[-1].strip(), ""),))

    def documents(self, hits: Sequence[Hit]) -> str:
        """Render passages, one numbered line each."""
        return "".join(
            f"Context{number}: {one_line(hit.passage.text, self.labels)}\n"
            for number, hit in enumerate(hits, start=1)
        )

    def transcript(self, trajectory: Trajectory) -> str:
        """Return what the model wrote so far."""
        spoken = [turn.text for turn in trajectory.turns if turn.status != "given"]
        return " ".join(text.strip() for text in spoken)

    def reasoning(self, turn: Turn) -> str:
        """Return what the model wrote before its follow-up question."""
        return " ".join(turn.text.rpartition("Follow up:")[0].split())
