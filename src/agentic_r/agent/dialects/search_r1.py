"""The Search-R1 protocol in its evaluation form (contracts B8).

A turn is text that ends with a search or an answer. Evidence comes back as an information block
with one line per passage.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentic_r.agent.dialects.speech import answers, between, unread, without_end
from agentic_r.agent.dialects.text import TextDialect
from agentic_r.protocols import Completion
from agentic_r.types import Hit, Search, Trajectory, Turn


class SearchR1(TextDialect):
    """Prompts, reads and shows evidence to an agent that speaks the Search-R1 protocol."""

    name = "search-r1"
    stop: tuple[str, ...] = ("</search>", "</answer>")
    turns = 5
    evidence = "information"

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read one model turn by the rules of contracts B8.

        A turn that ends with </answer> answers with the last answer in it, one that ends with
        </search> searches for the last query in it, possibly empty. The rest is "length" when
        the tokens ran out and "invalid" otherwise. One deliberate difference: a closing tag
        without its opening one is invalid, where upstream answers "None".
        """
        text = completion.text
        body = without_end(text)
        answer = answers(body, text, "<answer>", "</answer>")
        if answer is not None:
            return Turn(text, "answer", answer=answer)
        query = between(body, "<search>", "</search>") if body.endswith("</search>") else None
        if query is not None:
            return Turn(text, "search", (Search(query, ""),))
        return unread(text, completion.finish)

    def block(self, hits: Sequence[Hit]) -> str:
        """Render one search's evidence; a blank line stands before the closing tag."""
        return f"\n\n<{self.evidence}>\n{self.documents(hits)}\n</{self.evidence}>\n\n"
