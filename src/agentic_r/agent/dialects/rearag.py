"""The ReaRAG protocol: thoughts, actions as a fenced dictionary, observations of one sentence.

A step costs two model calls: the agent writes a thought and an action, then answers its own query
from the passages, and that answer is the observation. After `finish` a last call shortens the
answer. An action is data: it is read as JSON, or as a literal in Python's notation, which
released models write; nothing in it is ever run.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any, Literal

from agentic_r.agent.dialects.speech import short_answer, unread, without_end
from agentic_r.agent.dialects.text import Spoken
from agentic_r.protocols import Completion, Conversation, Message, Prompt
from agentic_r.types import Search, Trajectory, Turn

STEPS = 15
LONGEST = 8000
"""Characters of an action that are read at all."""

Call = Literal["think", "observe", "shorten"]

_FENCED = re.compile(r"```[a-zA-Z]*\n?(.+?)```", re.DOTALL)
_ACTION = re.compile(r"^Action\s*\d*:", re.MULTILINE)
_NEXT = re.compile(r"^(?:Observation|Thought|Action)\s*\d*:", re.MULTILINE)


class ReaRAG(Spoken):
    """Prompts, reads and shows evidence to an agent that speaks the ReaRAG protocol.

    `turns` calls are (`turns` - 1) // 2 steps and the last call.
    """

    name = "rearag"
    stop: tuple[str, ...] = ("<|user|>", "<|observation|>", "<|assistant|>")
    turns = 2 * STEPS + 1
    needs = frozenset(("chat",))
    sections = (
        ("system", ()),
        ("user", ("question",)),
        ("observe", ("context", "query")),
        ("shorten", ("question", "answer")),
    )
    told = "rearag_invalid"
    labels = ("Thought", "Action", "Observation")

    def prompt(self, trajectory: Trajectory) -> Prompt:
        """Render the conversation of the next call: to think, to observe or to shorten."""
        call = self.call(trajectory)
        asked = self.asked(trajectory)
        if call == "think":
            return self._thinking(trajectory, asked)
        turn = trajectory.turns[-1]
        if call == "observe":
            before = Trajectory(trajectory.id, trajectory.question, trajectory.turns[:-1])
            text = self.seen(turn, before)
        else:
            found = _action(turn.text)
            answer = _argument(found, "answer") if found else ""
            text = self.template.fill("shorten", question=asked, answer=answer)
        return Conversation((Message("user", text),))

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read a thought with its action, an observation, or the short answer."""
        text = completion.text
        for end in self.stop:
            text = text.removesuffix(end)
        call = self.call(trajectory)
        if call == "observe":
            return Turn(without_end(text).strip(), "continue")
        if call == "shorten":
            answer = short_answer(text)
            return Turn(text, "answer", answer=answer) if answer else Turn(text, "invalid")
        text = _one_step(without_end(text))
        final = self._steps(trajectory) + 1 >= max((self.turns - 1) // 2, 1)
        found = _action(text)
        if found is not None and found["function"] == "finish":
            return Turn(text, "continue")
        if final:
            return Turn(text, "spent")
        if found is not None:
            return Turn(text, "search", (Search(_argument(found, "query"), ""),))
        turn = unread(text, completion.finish)
        return Turn(text, turn.status, observation=self.invalid)

    def observe(self, turn: Turn, trajectory: Trajectory) -> str:
        """Render the prompt of the call that answers the turn's query from its passages."""
        [search] = turn.searches
        context = "\n\n".join(
            f'"{self.shown(hit.passage.title)}"\n{self.shown(hit.passage.text)}'
            for hit in search.hits
        )
        return self.template.fill("observe", context=context, query=search.query)

    def reasoning(self, turn: Turn) -> str:
        """Return the thought of a turn."""
        before = _ACTION.split(turn.text, maxsplit=1)[0]
        return " ".join(re.sub(r"^\s*Thought\s*\d*:", "", before).split())

    def call(self, trajectory: Trajectory) -> Call:
        """Say what the next model call is for, from the turns so far."""
        call: Call = "think"
        for turn in trajectory.turns:
            if call == "observe":
                call = "think"
            elif turn.searches:
                call = "observe"
            elif turn.status == "continue":
                call = "shorten"
        return call

    def _steps(self, trajectory: Trajectory) -> int:
        """Count the thoughts so far: all turns but the observations."""
        return len(trajectory.turns) - sum(bool(turn.searches) for turn in trajectory.turns)

    def _thinking(self, trajectory: Trajectory, asked: str) -> Conversation:
        messages = [
            Message("system", self.template.fill("system", question=asked)),
            Message("user", self.template.fill("user", question=asked)),
        ]
        after_search = False
        for turn in trajectory.turns:
            if after_search:
                # The model wrote it, but from passages: it is shown as data.
                messages.append(Message("observation", self.shown(turn.text)))
            else:
                messages.append(Message("assistant", turn.text))
                if turn.observation is not None and not turn.searches:
                    messages.append(Message("observation", turn.observation))
            after_search = bool(turn.searches)
        return Conversation(tuple(messages))


def _one_step(text: str) -> str:
    """Return the first thought and action of a text that goes on with further ones."""
    action = _ACTION.search(text)
    if action is None:
        return text
    following = _NEXT.search(text, action.end())
    return text[: following.start()].rstrip() if following else text


def _action(text: str) -> dict[str, Any] | None:
    """Return the action of a step, None where there is none that can be read."""
    label = _ACTION.search(text)
    fenced = _FENCED.search(text, label.end() if label else 0)
    if fenced is None or len(fenced.group(1)) > LONGEST:
        return None
    found = _literal(fenced.group(1).strip())
    if not isinstance(found, dict) or found.get("function") not in ("search", "finish"):
        return None
    key = "query" if found["function"] == "search" else "answer"
    return found if _argument(found, key) else None


def _literal(text: str) -> object:
    """Return the data that a text writes down, None where it is not plain data."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _argument(action: dict[str, Any], key: str) -> str:
    parameters = action.get("parameters")
    value = parameters.get(key) if isinstance(parameters, dict) else None
    if isinstance(value, int | float):
        value = str(value)
    return value.strip() if isinstance(value, str) else ""
