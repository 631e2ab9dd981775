"""The nouns of agentic retrieval: frozen values that every layer reads and none changes.

Every type is a `msgspec.Struct`, so a row on disk is the type itself: field order is column
order, and a malformed row is refused with the path of the bad field. Nothing here imports
torch, reads a file or knows an agent protocol.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Stop = Literal["answered", "budget", "invalid", "length", "context", "error"]
"""Why a trajectory ended; `None` in a trajectory means that it can go on.

It answered, spent its model calls, wrote a turn that its protocol cannot read, ran out of tokens
inside a turn, outgrew what the model reads, or a model call failed; `Trajectory.error` says more
of the last two.
"""

Status = Literal["search", "answer", "invalid", "length", "continue", "given", "spent"]
"""What one turn turned out to be when the dialect read it.

"continue" is a turn after which the model simply goes on, "given" one that the protocol makes
itself, without a model call (the first retrieval of plain RAG), "spent" one after which the
protocol allows no other. A turn that was "invalid" or "length" goes on where the model is told so
(`Turn.observation`), else it is the last.
"""

Why = Literal["measured", "not needed", "failed"]
"""Whether a measurement was made; a failure carries its reason after a colon in `Utility.why`."""


class Passage(msgspec.Struct, frozen=True):
    """One retrievable unit of text."""

    id: str
    text: str
    title: str = ""

    @property
    def contents(self) -> str:
        """The text that encoders and BM25 read: title and text, one line each."""
        return f"{self.title}\n{self.text}" if self.title else self.text


class Question(msgspec.Struct, frozen=True):
    """One question and every answer that counts; the key is (dataset, id)."""

    id: str
    text: str
    answers: tuple[str, ...]
    dataset: str = ""
    metadata: dict[str, Any] = {}

    @property
    def key(self) -> tuple[str, str]:
        """What identifies a question: upstream ids repeat between data sets."""
        return (self.dataset, self.id)


class Hit(msgspec.Struct, frozen=True):
    """A passage as one search returned it."""

    passage: Passage
    score: float


class Search(msgspec.Struct, frozen=True):
    """One retrieval: the agent's query, the exact string the retriever was sent, the hits."""

    query: str
    sent: str
    hits: tuple[Hit, ...] = ()


class ToolCall(msgspec.Struct, frozen=True):
    """One call of a tool as a model wrote it; `arguments` is JSON text, not yet read."""

    name: str
    arguments: str
    id: str = ""


class Turn(msgspec.Struct, frozen=True):
    """What the agent wrote in one go and what it was shown in return.

    `observation` is the rendered evidence, or what the agent was told of a turn that could not be
    read; `None` on a turn with searches means that the hits changed and the dialect has to render
    them anew. `tokens` and `logprobs` are as sampled, kept where RL needs them. `calls` are the
    tools that the agent called, in dialects that have tools. `new_tokens` counts what the model
    wrote, None where it does not say; `prompt_tokens` what it was given, not set where it does not
    say (so that the rows of earlier runs stay as they were). `weights` is the version of the
    weights that drew the tokens, set where a server follows a training.
    """

    text: str
    status: Status
    searches: tuple[Search, ...] = ()
    answer: str | None = None
    observation: str | None = None
    tokens: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    calls: tuple[ToolCall, ...] = ()
    new_tokens: int | None = None
    prompt_tokens: int | msgspec.UnsetType = msgspec.UNSET
    weights: str | msgspec.UnsetType = msgspec.UNSET


class Trajectory(msgspec.Struct, frozen=True):
    """The turns of one agent on one question so far; restarting from a prefix is a value."""

    id: str
    question: Question
    turns: tuple[Turn, ...] = ()
    stop: Stop | None = None
    error: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies a trajectory: its question's key, and its own id."""
        return (*self.question.key, self.id)

    @property
    def searches(self) -> tuple[Search, ...]:
        """All searches in order; search n of the trajectory is `searches[n]`, from 0."""
        return tuple(search for turn in self.turns for search in turn.searches)

    @property
    def answer(self) -> str | None:
        """The final answer, or None where the agent gave none."""
        return self.turns[-1].answer if self.turns else None

    def at_search(self, n: int, passage: Passage, id: str | None = None) -> Trajectory:
        """Cut after the turn of search `n` and put `passage` alone in place of its evidence.

        The result can be carried on by the rollout: this is how a passage's correctness is
        measured (paper, section on global answer correctness). Other searches of the same turn
        were made beside it, not because of it, and keep their hits. Raises IndexError where the
        trajectory has no search `n`.
        """
        return self.cut(n, (Hit(passage, 1.0),), id)

    def cut(self, n: int, hits: tuple[Hit, ...], id: str | None = None) -> Trajectory:
        """Cut after search `n` and put `hits`, perhaps none, in place of its evidence.

        Raises IndexError where the trajectory has no search `n`.
        """
        seen = 0
        for index, turn in enumerate(self.turns):
            if n < seen + len(turn.searches):
                at = n - seen
                search = msgspec.structs.replace(turn.searches[at], hits=hits)
                last = msgspec.structs.replace(
                    turn,
                    searches=(*turn.searches[:at], search, *turn.searches[at + 1 :]),
                    observation=None,
                )
                return Trajectory(id or self.id, self.question, (*self.turns[:index], last))
            seen += len(turn.searches)
        raise IndexError(f"trajectory {self.id} has {seen} searches, so there is no search {n}")


class Candidate(msgspec.Struct, frozen=True):
    """A passage considered for one search, `rank` counted from 0."""

    trajectory_id: str
    search: int
    passage: Passage
    rank: int


class Utility(msgspec.Struct, frozen=True):
    """A passage's worth for one search: relevance 0-100, correctness 0-1, None = not measured.

    `why` says about correctness: "measured", "not needed", or "failed: REASON"; a relevance
    that could not be read is "failed: REASON" too. `baseline` is the correctness of the same
    continuation without the passage and `further` how many searches the agent still made after
    it, both means over samples. `holds` says that the passage holds the sub-answer or an answer
    of the question, `read` that an earlier search of the trajectory showed it; `content` is a
    digest of its text, equal for duplicates.
    """

    trajectory_id: str
    search: int
    sent: str
    passage_id: str
    rank: int
    relevance: float | None
    correctness: float | None
    why: str
    baseline: float | None = None
    further: float | None = None
    holds: bool = False
    read: bool = False
    content: str = ""

    @property
    def gain(self) -> float | None:
        """What the passage adds to the answer: correctness less the baseline, at least 0."""
        if self.correctness is None:
            return None
        return max(0.0, self.correctness - (self.baseline or 0.0))

    @property
    def failed(self) -> bool:
        """Whether a measurement of this candidate was tried and failed."""
        return self.why.startswith("failed")


class Example(msgspec.Struct, frozen=True):
    """One retriever training example: the string sent, passage ids, optional graded targets.

    `targets` hold one number 0-1 per passage, those of the positives first.
    """

    dataset: str
    question_id: str
    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    targets: tuple[float, ...] | None = None
