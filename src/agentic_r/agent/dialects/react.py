"""The ReAct protocol: numbered lines of thought, action and observation.

An action is Search[query] or Finish[answer]. Observations are one line each, so that no passage
can begin a line, and the words that begin lines are neutralised inside them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentic_r.agent.dialects.neutral import one_line
from agentic_r.agent.dialects.speech import is_last, model_calls, unread, without_end
from agentic_r.agent.dialects.text import TextDialect
from agentic_r.protocols import Completion
from agentic_r.types import Hit, Search, Trajectory, Turn

_ACTION = re.compile(r"^\s*Action\s*\d*:\s*(Search|Finish)\s*\[(.*)\]\s*$", re.MULTILINE)


class ReAct(TextDialect):
    """Prompts, reads and shows evidence to an instruction model that speaks ReAct."""

    name = "react"
    stop: tuple[str, ...] = ("\nObservation",)
    turns = 7
    told = "react_invalid"
    labels = ("Thought", "Action", "Observation", "Question", "Answer")

    def asked(self, trajectory: Trajectory) -> str:
        """Return the question on one line."""
        return one_line(trajectory.question.text, self.labels)

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read the first action of a turn and drop what the model wrote after it."""
        text = without_end(completion.text.partition("\nObservation")[0])
        action = _ACTION.search(text)
        if action is None:
            turn = unread(text, completion.finish)
            if is_last(trajectory, self.turns):
                return turn
            told = self._line(one_line(self.invalid or ""), trajectory)
            return Turn(text, turn.status, observation=told)
        text = text[: action.end()].rstrip()
        kind, argument = action.group(1), action.group(2).strip()
        if kind == "Finish":
            return Turn(text, "answer", answer=argument)
        return Turn(text, "search", (Search(argument, ""),))

    def transcript(self, trajectory: Trajectory) -> str:
        """Return the turns so far and the label of the next thought."""
        steps = []
        for at, turn in enumerate(trajectory.turns):
            before = Trajectory(trajectory.id, trajectory.question, trajectory.turns[:at])
            label = "" if turn.text.lstrip().startswith("Thought") else f"Thought {at + 1}: "
            steps.append(f"{label}{turn.text.strip()}{self.seen(turn, before)}")
        if trajectory.turns and trajectory.turns[-1].status == "answer":
            return "".join(steps)
        return f"{''.join(steps)}Thought {len(trajectory.turns) + 1}:"

    def observe(self, turn: Turn, trajectory: Trajectory) -> str:
        """Render the evidence of a turn as its observation line."""
        hits = [hit for search in turn.searches for hit in search.hits]
        return self._line(self._passages(hits), trajectory)

    def reasoning(self, turn: Turn) -> str:
        """Return the thought of a turn."""
        before = re.split(r"^\s*Action\s*\d*:", turn.text, maxsplit=1, flags=re.MULTILINE)[0]
        return " ".join(re.sub(r"^\s*Thought\s*\d*:", "", before).split())

    def _line(self, text: str, trajectory: Trajectory) -> str:
        return f"\nObservation {model_calls(trajectory.turns) + 1}: {text}\n"

    def _passages(self, hits: Sequence[Hit]) -> str:
        return " ".join(
            f"({number}) {one_line(hit.passage.title, self.labels)}: "
            f"{one_line(hit.passage.text, self.labels)}"
            for number, hit in enumerate(hits, start=1)
        )
