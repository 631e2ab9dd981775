"""Protocols without a search agent, which papers report beside one: no retrieval, RAG, Iter-RetGen.

They go through the same rollout. What is retrieved before the first model call is a turn of the
protocol's own ("given"), and the passages stand inside the prompt, where {passages} is.
"""

from __future__ import annotations

from agentic_r.agent.dialects.speech import given, is_last, short_answer, unread
from agentic_r.agent.dialects.text import TextDialect
from agentic_r.protocols import Completion
from agentic_r.types import Question, Search, Trajectory, Turn


class Direct(TextDialect):
    """No retrieval: the model answers from what it knows."""

    name = "direct"
    turns = 1

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read the answer: the first line, or what is tagged as one."""
        answer = short_answer(completion.text)
        if not answer:
            return unread(completion.text, completion.finish)
        return Turn(completion.text, "answer", answer=answer)


class RAG(Direct):
    """Single-turn RAG: one retrieval for the question, one answer."""

    name = "rag"
    sections = (("user", ("question", "passages")),)

    def opening(self, question: Question) -> Turn:
        """Retrieve for the question before the first call."""
        return given(question)

    def values(self, trajectory: Trajectory) -> dict[str, str]:
        """Return the question and the passages that were found last."""
        found = [turn for turn in trajectory.turns if turn.searches]
        passages = self.seen(found[-1], trajectory) if found else ""
        return {**super().values(trajectory), "passages": passages}

    def transcript(self, trajectory: Trajectory) -> str:
        """Return nothing: each call is a prompt of its own."""
        return ""


class IterRetGen(RAG):
    """Iter-RetGen: what was generated is put to the retriever, and the answer is written anew.

    The query is the question and the last generation, so `retriever.input` "query" is the
    published form. Every call but the last searches.
    """

    name = "iter-retgen"
    turns = 3

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read a generation: the next query, or the answer in the last call."""
        turn = super().read(completion, trajectory)
        if turn.answer is None or is_last(trajectory, self.turns):
            return turn
        query = f"{trajectory.question.text} {turn.answer}"
        return Turn(completion.text, "search", (Search(query, ""),))

    def reasoning(self, turn: Turn) -> str:
        """Return nothing: the generation is the query."""
        return ""
