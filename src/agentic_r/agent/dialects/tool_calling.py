"""Native tool calling over the chat API: `search` is a tool, and the last message the answer.

So any current instruction model is an agent. A model may call several searches at once; a call
that cannot be read is answered with what is wrong with it, and the model goes on.
"""

from __future__ import annotations

import json

import msgspec

from agentic_r.agent.dialects.speech import is_last, short_answer, unread
from agentic_r.agent.dialects.text import Spoken
from agentic_r.protocols import Completion, Conversation, Message, Prompt, Tool
from agentic_r.types import Search, ToolCall, Trajectory, Turn

SEARCH = Tool(
    "search",
    "Finds passages of an encyclopaedia. Ask for one fact at a time, in plain words.",
    {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What to look for."}},
        "required": ["query"],
    },
)

CALLS = 5
"""Searches of one turn that are made."""


class ToolCalling(Spoken):
    """Prompts, reads and shows evidence to an instruction model that calls tools."""

    name = "tool-calling"
    turns = 6
    needs = frozenset(("chat", "tools"))
    sections = (("system", ()), ("user", ("question",)), ("last", ()))

    def prompt(self, trajectory: Trajectory) -> Prompt:
        """Render the conversation; before the last call the model is asked to answer."""
        asked = self.asked(trajectory)
        system = self.template.fill("system", question=asked)
        messages = [Message("system", system)] if system else []
        messages.append(Message("user", self.template.fill("user", question=asked)))
        for turn in trajectory.turns:
            messages.append(Message("assistant", turn.text, turn.calls))
            messages += [
                Message("tool", result, call_id=call.id)
                for call, result in zip(turn.calls, self._results(turn), strict=True)
            ]
        if trajectory.turns and is_last(trajectory, self.turns):
            messages.append(Message("user", self.template.fill("last", question=asked)))
        return Conversation(tuple(messages), (SEARCH,))

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read the calls of a message; a message without any is the answer."""
        text = completion.text
        if not completion.calls:
            answer = short_answer(text)
            if completion.finish == "length" or not answer:
                return unread(text, completion.finish)
            return Turn(text, "answer", answer=answer)
        number = len(trajectory.turns)
        made = tuple(
            call if call.id else msgspec.structs.replace(call, id=f"call_{number}_{at}")
            for at, call in enumerate(completion.calls)
        )
        searches = tuple(Search(query, "") for query, _ in map(_read, made[:CALLS]) if query)
        if is_last(trajectory, self.turns):
            return Turn(text, "search" if searches else "invalid", calls=made)
        turn = Turn(text, "search" if searches else "invalid", searches, calls=made)
        if searches:
            return turn
        return msgspec.structs.replace(turn, observation=self.observe(turn, trajectory))

    def observe(self, turn: Turn, trajectory: Trajectory) -> str:
        """Render what all calls of a turn were answered, one after the other."""
        return "\n\n".join(self._results(turn))

    def reasoning(self, turn: Turn) -> str:
        """Return what the model said beside its calls."""
        return " ".join(turn.text.split())

    def _results(self, turn: Turn) -> list[str]:
        """Return the answer to every call: passages, or what was wrong with it."""
        searches = iter(turn.searches)
        results = []
        for at, call in enumerate(turn.calls):
            query, wrong = _read(call)
            if at >= CALLS:
                results.append(f"Not searched: at most {CALLS} calls are made at once.")
            elif query:
                search = next(searches, None)
                results.append(self.documents(search.hits).rstrip("\n") if search else "")
            else:
                results.append(wrong)
        return results


def _read(call: ToolCall) -> tuple[str, str]:
    """Return the query of a call, or "" and what is wrong with it."""
    if call.name != SEARCH.name:
        return "", f'There is no such tool; the only one is "{SEARCH.name}".'
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return "", 'The arguments are not JSON; expected {"query": "..."}.'
    query = arguments.get("query") if isinstance(arguments, dict) else None
    if not isinstance(query, str) or not query.strip():
        return "", 'The arguments have no query; expected {"query": "..."}.'
    return query.strip(), ""
