"""The seams of the system: what a retriever, a language model, a judge and a reward must do.

Structural protocols: anything with the right methods fits, nothing is registered. The two
learners (agent and retriever) never import each other; they meet here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from agentic_r.types import Hit, Question, Trajectory

SEPARATOR = " [SEP] "
"""The literal between question and query in a retriever input that holds both."""


class Retriever(Protocol):
    """Anything that finds passages for strings."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return the `k` best hits for each query, best first, in the order of `queries`."""
        ...


class ToolCall(msgspec.Struct, frozen=True):
    """One call of a tool as a model wrote it; `arguments` is JSON text, not yet read."""

    name: str
    arguments: str
    id: str = ""


class Tool(msgspec.Struct, frozen=True):
    """A tool that a model may call; `parameters` is a JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation; a "tool" message answers the call named by `call_id`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


class Conversation(msgspec.Struct, frozen=True):
    """Messages for a model's chat template; `begun` is the assistant's text to be continued."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    begun: str = ""


Prompt = str | tuple[int, ...] | Conversation
"""What a model continues: text, token ids, or a conversation that its own template renders."""


class Sampling(msgspec.Struct, frozen=True):
    """How to continue a prompt: at most `max_tokens` new tokens, greedy at temperature 0."""

    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


class Completion(msgspec.Struct, frozen=True):
    """What a language model wrote: the text keeps the stop string that ended it.

    `finish` is "stop" (a stop string), "eos" (the model ended), "length" (out of tokens).
    """

    text: str
    finish: str
    tokens: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None


class LLM(Protocol):
    """A language model at the level of completions; what batches requests sits behind it."""

    async def complete(self, prompt: str, sampling: Sampling) -> Completion:
        """Continue `prompt`. Raises `agentic_r.errors.LLMError` when no completion can be had."""
        ...


class ChatLLM(Protocol):
    """A language model that answers a conversation: what an LLM judge needs."""

    async def chat(self, system: str, user: str, sampling: Sampling) -> str:
        """Answer `user` under the `system` message."""
        ...


@runtime_checkable
class StructuredLLM(ChatLLM, Protocol):
    """A chat model whose replies can be held to a JSON schema."""

    async def structured(
        self, system: str, user: str, sampling: Sampling, schema: dict[str, Any]
    ) -> str:
        """Answer as `chat` does, in JSON that fits `schema` where the server can enforce it."""
        ...


class Dialect(Protocol):
    """One agent protocol: how the model is prompted, read, and shown passages."""

    stop: tuple[str, ...]

    def prompt(self, trajectory: Trajectory) -> str:
        """Render the exact text that the model sees before its next turn."""
        ...

    def read(self, text: str, finish: str) -> tuple[str, str | None]:
        """Read one model turn into (status, payload): the query, the answer, or None."""
        ...

    def observe(self, hits: Sequence[Hit]) -> str:
        """Render the evidence of one search as the model is shown it."""
        ...


class JudgeRequest(msgspec.Struct, frozen=True):
    """All that a judge of relevance is told: texts only, no metadata and no passage ids.

    `reasoning` is what the agent wrote in the turn of this search, before its query.
    """

    question: str
    answers: tuple[str, ...]
    query: str
    subanswer: str | None
    trajectory: str
    passages: tuple[str, ...]
    reasoning: str = ""


class Judge(Protocol):
    """Scores how well passages serve one search, 0-100."""

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Score each passage of the request; None where a score could not be had."""
        ...


@runtime_checkable
class AnnotatedJudge(Judge, Protocol):
    """A judge that reads annotation: it alone is told metadata and passage ids."""

    async def annotated(
        self, question: Question, request: JudgeRequest, ids: tuple[str, ...]
    ) -> list[float | None]:
        """Score each passage of the request, whose ids are given in the same order."""
        ...


class SubAnswers(Protocol):
    """Says what each search of a trajectory ought to have found."""

    async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
        """One short fact a search, in order; None is the paper's "Not Sure"."""
        ...


class Reward(Protocol):
    """Scores a final answer between 0 and 1."""

    def __call__(self, question: Question, answer: str | None) -> float:
        """Return the reward of `answer` for `question`."""
        ...
