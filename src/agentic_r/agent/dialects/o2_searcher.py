"""The O2-Searcher protocol: a conversation with one to five queries a turn.

A turn that cannot be read stays in the conversation, and the model is told how to write instead.
"""

from __future__ import annotations

import re

from agentic_r.agent.dialects.speech import between, is_last, unread, without_end
from agentic_r.agent.dialects.text import Spoken
from agentic_r.protocols import Completion, Conversation, Message, Prompt
from agentic_r.types import Search, Trajectory, Turn

QUERIES = 5
"""Queries of one turn that are searched; the protocol asks for no more."""

_QUERY = re.compile(r"<query>(.*?)</query>", re.DOTALL)


class O2Searcher(Spoken):
    """Prompts, reads and shows evidence to an agent that speaks the O2-Searcher protocol."""

    name = "o2-searcher"
    stop: tuple[str, ...] = ("</search>", "</answer>")
    turns = 5
    needs = frozenset(("chat",))
    sections = (("system", ()), ("user", ("question",)))
    told = "o2_searcher_invalid"

    def prompt(self, trajectory: Trajectory) -> Prompt:
        """Render the conversation: the agent's turns and, as the user's, what they found."""
        asked = self.asked(trajectory)
        messages = [
            Message("system", self.template.fill("system", question=asked)),
            Message("user", self.template.fill("user", question=asked)),
        ]
        for turn in trajectory.turns:
            messages.append(Message("assistant", turn.text.strip()))
            messages.append(Message("user", self.seen(turn, trajectory)))
        return Conversation(tuple(messages))

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read one model turn: an answer anywhere in it, else the queries of its last search."""
        text = completion.text
        body = without_end(text)
        answer = between(body, "<answer>", "</answer>")
        if answer is not None:
            return Turn(text, "answer", answer=answer)
        found = between(body, "<search>", "</search>")
        queries = [query.strip() for query in _QUERY.findall(found or "")]
        searches = tuple(Search(query, "") for query in queries if query)[:QUERIES]
        if searches:
            return Turn(text, "search", searches)
        turn = unread(text, completion.finish)
        if is_last(trajectory, self.turns):
            return turn
        return Turn(text, turn.status, observation=self.invalid)

    def observe(self, turn: Turn, trajectory: Trajectory) -> str:
        """Render the passages of all queries of a turn as one block, numbered through."""
        hits = [hit for search in turn.searches for hit in search.hits]
        lines = "".join(
            f'({number})Title: "{self.shown(hit.passage.title)}" '
            f"Text: {self.shown(hit.passage.text)}\n"
            for number, hit in enumerate(hits, start=1)
        )
        return f"Search learnings: <learnings>\n{lines}</learnings>."
