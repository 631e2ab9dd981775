"""What protocols that are one growing text have in common: instruction, turns, evidence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from agentic_r.agent.dialects.neutral import neutralise
from agentic_r.agent.dialects.template import Template, packaged
from agentic_r.protocols import Completion, Conversation, Message, Prompt, Ruler
from agentic_r.types import Hit, Trajectory, Turn


class Spoken(ABC):
    """The base of all packaged dialects: a prompt file, a budget and the user's other choices.

    `prompt` takes the place of the packaged prompt file, `invalid` that of what the model is told
    of a turn that cannot be read. `turns` is how many model calls a question may cost, 0 takes
    the protocol's own budget. `ruler` tells the agent's tokens apart, for protocols that cut.
    Raises ConfigError for a prompt that lacks a section or a place.
    """

    name = ""
    stop: tuple[str, ...] = ()
    turns = 5
    needs: frozenset[str] = frozenset()
    sections: tuple[tuple[str, tuple[str, ...]], ...] = (("user", ("question",)),)
    """The sections that the prompt file must have, each with its places."""
    told = ""
    """What the model is told of an invalid turn: the name of a packaged file, "" for nothing."""
    labels: tuple[str, ...] = ()
    """Words that, with a colon, begin something in this protocol."""

    def __init__(
        self,
        prompt: str | None = None,
        *,
        turns: int = 0,
        chat: bool = False,
        invalid: str | None = None,
        ruler: Ruler | None = None,
    ) -> None:
        text = packaged(self.name.replace("-", "_")) if prompt is None else prompt
        self.template = Template(text, "the agent prompt")
        for section, places in self.sections:
            self.template.require(section, places)
        self.turns = turns or self.turns
        self.chat = chat
        self.invalid = packaged(self.told) if invalid is None and self.told else invalid
        self.ruler = ruler

    @abstractmethod
    def prompt(self, trajectory: Trajectory) -> Prompt:
        """Render exactly what the model sees before its next turn."""

    @abstractmethod
    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read what the model wrote after `trajectory`."""

    def shown(self, text: str) -> str:
        """Return a text that the agent did not write as the agent may be shown it."""
        return neutralise(text, self.labels)

    def asked(self, trajectory: Trajectory) -> str:
        """Return the question as the agent is shown it."""
        return self.shown(trajectory.question.text)

    def seen(self, turn: Turn, trajectory: Trajectory) -> str:
        """Return what followed a turn; evidence that was changed is rendered anew."""
        if turn.observation is None and turn.searches:
            return self.observe(turn, trajectory)
        return turn.observation or ""

    def observe(self, turn: Turn, trajectory: Trajectory) -> str:
        """Render each search's evidence as a block that follows the agent's text."""
        return "".join(self.block(search.hits) for search in turn.searches)

    def block(self, hits: Sequence[Hit]) -> str:
        """Render the evidence of one search: one line a passage."""
        return self.documents(hits)

    def documents(self, hits: Sequence[Hit]) -> str:
        """Render passages as Search-R1 does, their titles in double quotes."""
        return "".join(
            f'Doc {number}(Title: "{self.shown(hit.passage.title)}") '
            f"{self.shown(hit.passage.text)}\n"
            for number, hit in enumerate(hits, start=1)
        )


class TextDialect(Spoken):
    """A protocol in which the model continues one text.

    With `chat` the instruction is a message for the model's chat template and the rest the
    assistant's begun text; without, all is one plain text.
    """

    def __init__(
        self,
        prompt: str | None = None,
        *,
        turns: int = 0,
        chat: bool = False,
        invalid: str | None = None,
        ruler: Ruler | None = None,
    ) -> None:
        super().__init__(prompt, turns=turns, chat=chat, invalid=invalid, ruler=ruler)
        if chat:
            self.needs = self.needs | {"chat", "begun"}

    def prompt(self, trajectory: Trajectory) -> Prompt:
        """Render what the model continues: instruction, turns, evidence."""
        values = self.values(trajectory)
        system = self.template.fill("system", **values)
        user = self.template.fill("user", **values)
        begun = self.transcript(trajectory)
        if not self.chat:
            return f"{system}\n\n{user}{begun}" if system else f"{user}{begun}"
        messages = [Message("system", system)] if system else []
        return Conversation((*messages, Message("user", user)), begun=begun)

    def values(self, trajectory: Trajectory) -> dict[str, str]:
        """Return what stands in the places of the prompt file."""
        return {"question": self.asked(trajectory), "limit": str(self.turns)}

    def transcript(self, trajectory: Trajectory) -> str:
        """Return the turns so far, each with what the model was shown after it."""
        return "".join(
            self.written(turn) + self.seen(turn, trajectory) for turn in trajectory.turns
        )

    def written(self, turn: Turn) -> str:
        """Return a turn as it stands in the text: without outer spaces, as upstream does."""
        return turn.text.strip()
