"""The R1-Searcher protocol (contracts A3): queries and documents between tokens of its own."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_r.agent.dialects.speech import answers, between, unread, without_end
from agentic_r.agent.dialects.text import TextDialect
from agentic_r.protocols import Completion
from agentic_r.types import Hit, Search, Trajectory, Turn


class R1Searcher(TextDialect):
    """Prompts, reads and shows evidence to an agent that speaks the R1-Searcher protocol."""

    name = "r1-searcher"
    stop: tuple[str, ...] = ("<|end_of_query|>", "</answer>")
    turns = 5
    labels: tuple[str, ...] = ("User", "Assistant")
    query = ("<|begin_of_query|>", "<|end_of_query|>")
    evidence = ("<|begin_of_documents|>", "<|end_of_documents|>")

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read one model turn: an answer, else a query at its end, else it is invalid."""
        text = completion.text
        body = without_end(text)
        answer = self.answer(body, text)
        if answer is not None:
            return Turn(text, "answer", answer=answer)
        query = between(body, *self.query) if body.endswith(self.query[1]) else None
        if query is not None:
            return Turn(text, "search", (Search(query, ""),))
        return unread(text, completion.finish)

    def answer(self, body: str, text: str) -> str | None:
        """Return the answer of a turn, None where it gives none."""
        return answers(body, text, "<answer>", "</answer>")

    def block(self, hits: Sequence[Hit]) -> str:
        """Render one search's evidence; a blank line stands before the closing token."""
        lines = "".join(
            f'({number})Title: "{self.shown(hit.passage.title)}" '
            f"Text: {self.shown(hit.passage.text)}\n"
            for number, hit in enumerate(hits, start=1)
        )
        start, end = self.evidence
        return f"\n\n{start}\n{lines}\n{end}\n\n"
