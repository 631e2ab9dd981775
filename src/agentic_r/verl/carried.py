"""One row of verl's data carried to its end by the product's own rollout.

What verl gets back are the ids that were sampled, a mask that is 1 on them alone, and a reward that
was read from them alone: a passage that holds an answer earns nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import msgspec

from agentic_r.agent.agent import open_dialect
from agentic_r.agent.guard import invalid_rate
from agentic_r.agent.rewards import Rewarder, em
from agentic_r.agent.rollout import rollout
from agentic_r.agent.tokens import TokenDialect
from agentic_r.errors import ContextError, LLMError
from agentic_r.protocols import Capabilities, Completion, Dialect, Prompt, Retriever, Sampling
from agentic_r.settings import AgentConfig
from agentic_r.training.timed import Timed
from agentic_r.types import Question, Trajectory

NAME = "agentic_r_search"
"""What the agent loop is called in verl's list and in the data."""

Generate = Callable[[list[int], dict[str, Any]], Awaitable[Any]]
"""verl's engine: ids and sampling to an object with token_ids, log_probs, stop_reason."""


class Carrying(msgspec.Struct, frozen=True):
    """All that an agent loop has to know; agent.json in the folder that verl is given.

    `template` is the prompt that a checkpoint brings; lengths are verl's, in tokens.
    """

    agent: AgentConfig
    template: str | None
    k: int
    form: str
    retriever: str
    prompt_length: int
    response_length: int

    def dialect(self, tokenizer: Any) -> Dialect:
        """Make the protocol that the agent speaks."""
        llm: Any = SimpleNamespace(template=self.template, tokenizer=tokenizer)
        return open_dialect(self.agent, llm)


@dataclass(frozen=True)
class Carried:
    """A finished row: ids of prompt and response; mask and log-probabilities of the response."""

    prompt: list[int]
    response: list[int]
    mask: list[int]
    logprobs: list[float]
    reward: float
    figures: dict[str, float]
    calls: int
    generating: float
    searching: float


class _Engine:
    """verl's engine as the language model of a rollout; `room` tokens of response in all."""

    capabilities = Capabilities(text=False, ids=True, tokens=True, logprobs=True)

    def __init__(self, generate: Generate, tokenizer: Any, sampling: Mapping[str, Any], room: int):
        self._generate, self._tokenizer = generate, tokenizer
        self._sampling, self._room = dict(sampling), room
        self._begun: int | None = None
        self.seconds = 0.0

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Continue ids. Raises ContextError where no room for a response is left."""
        assert isinstance(prompt, tuple)
        if self._begun is None:
            self._begun = len(prompt)
        left = self._room - (len(prompt) - self._begun)
        if left < 1:
            raise ContextError(
                f"got {len(prompt) - self._begun} tokens of response, expected less than "
                f"{self._room}; raise agent.train.verl.response_length"
            )
        asked = self._sampling | {
            "stop": list(sampling.stop),
            "include_stop_str_in_output": True,
            "max_tokens": min(left, sampling.max_tokens),
            "logprobs": True,
        }
        began = time.perf_counter()
        told = await self._generate(list(prompt), asked)
        self.seconds += time.perf_counter() - began
        if told.stop_reason == "aborted" or not told.token_ids or told.log_probs is None:
            raise LLMError(
                f"the engine gave {len(told.token_ids)} tokens ({told.stop_reason}), expected "
                "tokens with their log-probabilities"
            )
        return self._completion(tuple(told.token_ids), tuple(told.log_probs), sampling)

    def _completion(
        self, tokens: tuple[int, ...], logprobs: tuple[float, ...], sampling: Sampling
    ) -> Completion:
        def made(text: str, finish: str, stop: str = "") -> Completion:
            return Completion(text, finish, tokens, logprobs, stop, new_tokens=len(tokens))

        if tokens[-1] == self._tokenizer.eos_token_id:
            return made(self._text(tokens[:-1]), "eos")
        text = self._text(tokens)
        found = [(text.find(stop), stop) for stop in sampling.stop if stop in text]
        if found:
            at, stop = min(found)
            return made(text[: at + len(stop)], "stop", stop)
        return made(text, "length")

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text


async def carried(
    question: Question,
    settings: Carrying,
    generate: Generate,
    tokenizer: Any,
    retriever: Retriever,
    sampling: Mapping[str, Any],
) -> Carried:
    """Let the agent answer one question; `sampling` are verl's temperature and nucleus.

    A trajectory that fills the response ends without an answer. Raises OutageError where the
    retriever stays away.
    """
    engine = _Engine(generate, tokenizer, sampling, settings.response_length)
    timed = Timed(retriever)
    dialect: Any = TokenDialect(settings.dialect(tokenizer), tokenizer)
    start = Trajectory(f"{question.dataset}/{question.id}", question)
    if len(dialect.prompt(start)) > settings.prompt_length:
        raise LLMError(
            f"question {question.id}: the prompt has {len(dialect.prompt(start))} tokens, expected "
            f"at most {settings.prompt_length}; raise agent.train.verl.prompt_length"
        )
    (done,) = await rollout(
        engine,
        timed,
        [start],
        dialect,
        k=settings.k,
        form=settings.form,
        turns=settings.agent.turns,
        sampling=Sampling(settings.agent.max_tokens),
        keep_tokens=True,
    )
    sample = dialect.sample(done)
    begin = len(dialect.prompt(start))
    # Where nothing was drawn, verl still wants a response: one token that counts for nothing.
    ids = list(sample.ids[begin:]) or [tokenizer.eos_token_id or 0]
    mask = [int(own) for own in sample.written[begin:]] or [0]
    drawn = iter(sample.logprobs)
    return Carried(
        list(sample.ids[:begin]) or list(dialect.prompt(start)),
        ids,
        mask,
        [next(drawn) if own else 0.0 for own in mask],
        Rewarder(settings.agent.train.rl.reward)(done),
        {
            "em": em(done),
            "searches": float(len(done.searches)),
            "invalid": invalid_rate([done]),
            "failed": float(done.stop in ("error", "context")),
        },
        len(done.turns),
        engine.seconds,
        timed.seconds,
    )


def question_of(row: Mapping[str, Any]) -> Question:
    """Read the question of a row that `folder` wrote, as verl hands it to an agent loop."""
    extra = row["extra_info"]
    answers = row["reward_model"]["ground_truth"]["target"]
    return Question(
        str(extra["id"]),
        str(extra["question"]),
        tuple(str(answer) for answer in answers),
        str(row["data_source"]),
        msgspec.json.decode(extra["metadata"]),
    )
