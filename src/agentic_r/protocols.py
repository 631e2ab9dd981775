"""The seams of the system: what a retriever, a language model, a judge and a reward must do.

Structural protocols: anything with the right methods fits, nothing is registered. The two
learners (agent and retriever) never import each other; they meet here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from agentic_r.types import Hit, Question, Trajectory, Turn
from agentic_r.types import ToolCall as ToolCall

SEPARATOR = " [SEP] "
"""The literal between question and query in a retriever input that holds both."""


class Ruler(Protocol):
    """Says how a text falls into tokens, so that it can be cut to what a model reads."""

    limit: int
    """Tokens that one text may have; what a model adds by itself is taken off already."""

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Return where each token of `text` begins and ends, in characters, nothing cut off."""
        ...


class Retriever(Protocol):
    """Anything that finds passages for strings.

    One that reads no more than so many tokens may say so with a `ruler: Ruler`; what it is sent
    is then made to fit (`agent/query.py`).
    """

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return the `k` best hits for each query, best first, in the order of `queries`."""
        ...


class Tool(msgspec.Struct, frozen=True):
    """A tool that a model may call; `parameters` is a JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation; a "tool" message answers the call named by `call_id`.

    "observation" is a role of some chat templates (GLM's), for what was found.
    """

    role: Literal["system", "user", "assistant", "tool", "observation"]
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
    """How to continue a prompt: at most `max_tokens` new tokens, greedy at temperature 0.

    `tokens` asks for token ids and their log-probabilities, which some servers give only then.
    `schema` is the JSON schema, as JSON, that a chat reply is held to where the server can.
    """

    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    tokens: bool = False
    schema: str = ""


class Completion(msgspec.Struct, frozen=True):
    """What a language model wrote: the text keeps the stop string that ended it.

    `finish` is "stop" (a stop string, which `stop` names), "eos" (the model ended), "length" (out
    of tokens) or "calls" (it called tools: `calls`). `tokens` are the ids as sampled, which may
    go past the stop string. `prompt_tokens` and `new_tokens` are counted by the back end; None
    where it does not say. `weights` is the version of the weights that drew it, where they change.
    """

    text: str
    finish: str
    tokens: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    stop: str = ""
    calls: tuple[ToolCall, ...] = ()
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    weights: str = ""


class Capabilities(msgspec.Struct, frozen=True):
    """What a back end can do; False also where a probe could not find out.

    `text`, `ids` and `chat` are the kinds of prompt that it takes, `begun` that a conversation's
    begun text is continued, `tools` that tools can be offered. `stop` says that it stops at stop
    strings (a back end that does not is cut, at the cost of the tokens after them), `tokens` and
    `logprobs` that it tells them, `seed` that equal seeds give equal samples, `n` that one
    request can have several samples (nothing here relies on it). `independent` says that a
    completion does not depend, to the last bit, on the requests beside it, so that it makes no
    difference where a run is resumed.
    """

    text: bool = True
    ids: bool = False
    chat: bool = False
    begun: bool = False
    tools: bool = False
    stop: bool = True
    tokens: bool = False
    logprobs: bool = False
    seed: bool = False
    n: bool = False
    independent: bool = True


class LLM(Protocol):
    """A language model at the level of completions; what batches requests sits behind it.

    It may have `capabilities` (without, it takes text alone), `async probe()`, which returns them
    once they are checked, and `async aclose()`, which closes the connections of an event loop.
    """

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
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
    """One agent protocol: how the model is prompted, read, and shown passages.

    `stop` are the strings that end a turn of the model, `turns` is how many model calls the
    protocol allows a question. A dialect may have `opening(question) -> Turn`, a turn with
    searches that is made before the first model call ("given"), `question(question) -> str` and
    `reasoning(turn) -> str`, the question and the thought of a turn as the retriever is sent
    them, and `needs: frozenset[str]`, the names of the capabilities that it asks of a model.
    """

    stop: tuple[str, ...]
    turns: int

    def prompt(self, trajectory: Trajectory) -> Prompt:
        """Render exactly what the model sees before its next turn."""
        ...

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read what the model wrote after `trajectory`: its text, status, searches, answer.

        Searches have a query alone; the rollout makes them, whatever their number. A turn without
        searches that is to go on though it could not be read has an `observation` that says so.
        """
        ...

    def observe(self, turn: Turn, trajectory: Trajectory) -> str:
        """Render the evidence of `turn`, which follows `trajectory`, as the model is shown it."""
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
