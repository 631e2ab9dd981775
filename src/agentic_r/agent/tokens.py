"""A dialect in tokens: what was sampled stays as it was sampled.

Reinforcement learning has to score the very tokens that the model drew. Nothing that it wrote is
decoded and encoded again; only the environment's text (the prompt, the evidence) is tokenised,
once. The rollout is the usual one: this stands in for the dialect and prompts with token ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from agentic_r.errors import ConfigError
from agentic_r.protocols import Dialect
from agentic_r.types import Trajectory, Turn


@dataclass(frozen=True)
class Sample:
    """One trajectory as it was sampled.

    `written` says for each id whether the agent drew it; `logprobs` has one number for each that
    it did, in order. `key` names the question: data set and id.
    """

    key: tuple[str, str]
    ids: tuple[int, ...]
    written: tuple[bool, ...]
    logprobs: tuple[float, ...]


class TokenDialect:
    """Prompts with token ids, reads and observes as `dialect` does.

    The dialect's prompt has to be text that ends with the newest evidence, so that evidence can
    be appended as it is; anything else raises ConfigError.
    """

    def __init__(self, dialect: Dialect, tokenizer: Any) -> None:
        self._dialect = dialect
        self._tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dialect, name)

    def prompt(self, trajectory: Trajectory) -> tuple[int, ...]:
        """Return the ids that the model goes on from."""
        return tuple(i for piece, _, _ in self._pieces(trajectory) for i in piece)

    def sample(self, trajectory: Trajectory) -> Sample:
        """Return a finished trajectory's ids; evidence that no turn follows is left out."""
        pieces = self._pieces(trajectory)
        while pieces and not pieces[-1][1]:
            pieces.pop()
        ids = tuple(i for piece, _, _ in pieces for i in piece)
        written = tuple(own for piece, own, _ in pieces for _ in piece)
        logprobs = tuple(number for _, _, numbers in pieces for number in numbers)
        return Sample(trajectory.question.key, ids, written, logprobs)

    def _pieces(
        self, trajectory: Trajectory
    ) -> list[tuple[tuple[int, ...], bool, tuple[float, ...]]]:
        """List (ids, written by the agent, log-probabilities) in order."""
        turns = trajectory.turns
        given = next((at for at, turn in enumerate(turns) if turn.tokens is not None), len(turns))
        head = msgspec.structs.replace(trajectory, turns=turns[:given], stop=None)
        text = self._dialect.prompt(head)
        if not isinstance(text, str):
            raise ConfigError(
                f"agent.dialect: {type(self._dialect).__name__} prompts with "
                f"{type(text).__name__}, expected text; reinforcement learning appends to it"
            )
        pieces: list[tuple[tuple[int, ...], bool, tuple[float, ...]]] = []
        pieces.append((self._encoded(text, special=True), False, ()))
        for turn in turns[given:]:
            pieces.append((*_drawn(turn, trajectory.id),))
            if turn.observation:
                pieces.append((self._encoded(turn.observation), False, ()))
        self._check_end(trajectory)
        return pieces

    def _check_end(self, trajectory: Trajectory) -> None:
        last = trajectory.turns[-1].observation if trajectory.turns else None
        if last and not str(self._dialect.prompt(trajectory)).endswith(last):
            raise ConfigError(
                f"agent.dialect: {type(self._dialect).__name__} writes something behind the "
                "evidence, so that sampled tokens cannot be kept; train with another dialect"
            )

    def _encoded(self, text: str, special: bool = False) -> tuple[int, ...]:
        if special:
            return tuple(self._tokenizer(text)["input_ids"])
        if text not in self._known:
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            self._known[text] = tuple(ids)
        return self._known[text]

    def forget(self) -> None:
        """Drop the evidence that was tokenised so far."""
        self._known.clear()


def _drawn(turn: Turn, id: str) -> tuple[tuple[int, ...], bool, tuple[float, ...]]:
    tokens, logprobs = turn.tokens, turn.logprobs
    if tokens is None or logprobs is None or len(tokens) != len(logprobs):
        raise ConfigError(
            f"trajectory {id}: a turn lacks its sampled tokens or their log-probabilities; "
            "train with a model that tells both"
        )
    return tokens, True, logprobs
