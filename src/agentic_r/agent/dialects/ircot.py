"""IRCoT: every sentence of a chain of thought is the next query, and passages gather.

The passages of all retrievals stand in front of the question, each once with its best score, the
best last, as in FlashRAG.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentic_r.agent.dialects.baselines import RAG
from agentic_r.agent.dialects.speech import is_last, unread, without_end
from agentic_r.protocols import Completion
from agentic_r.types import Hit, Search, Trajectory, Turn

FINAL = "So the answer is:"


class IRCoT(RAG):
    """Prompts, reads and shows evidence by the IRCoT protocol."""

    name = "ircot"
    stop: tuple[str, ...] = ("\n",)
    turns = 2
    labels = ("Question", "Thought", "Wikipedia Title", "So the answer is")

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read one thought: the answer where it says so, else the next query."""
        text = without_end(completion.text)
        thought, found, answer = text.partition(FINAL)
        if found:
            return Turn(text, "answer", answer=answer.strip().removesuffix(".").strip())
        if not thought.strip():
            return unread(text, completion.finish)
        if is_last(trajectory, self.turns):
            return Turn(text, "spent")
        return Turn(text, "search", (Search(thought.strip(), ""),))

    def values(self, trajectory: Trajectory) -> dict[str, str]:
        """Return the question and the passages of all retrievals so far."""
        best: dict[str, Hit] = {}
        for search in trajectory.searches:
            for hit in search.hits:
                known = best.get(hit.passage.id)
                if known is None or hit.score > known.score:
                    best[hit.passage.id] = hit
        # A stable sort over the order of first appearance, as upstream's.
        ordered = sorted(best.values(), key=lambda hit: hit.score)
        return {**super().values(trajectory), "passages": self.documents(ordered)}

    def documents(self, hits: Sequence[Hit]) -> str:
        """Render passages under their titles."""
        return "".join(
            f"Wikipedia Title: {self.shown(hit.passage.title)}\n{self.shown(hit.passage.text)}\n\n"
            for hit in hits
        )

    def transcript(self, trajectory: Trajectory) -> str:
        """Return the thoughts so far, one after the other."""
        thoughts = [turn.text.strip() for turn in trajectory.turns if turn.status != "given"]
        return "".join(f" {thought}" for thought in thoughts)

    def reasoning(self, turn: Turn) -> str:
        """Return nothing: the thought is the query."""
        return ""
