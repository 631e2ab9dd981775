"""The one rollout: it carries any start of a trajectory to its end.

Evaluation, labelling by continuation and serving are this function with other starts. Every
trajectory is its own coroutine, so that a slow one never makes the others wait; what batches
model calls and searches sits behind the awaits.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from agentic_r.agent.engine import OnRows, side_by_side
from agentic_r.agent.needs import capabilities, needed, require
from agentic_r.agent.query import check, ruler_of, sent_by
from agentic_r.agent.searches import SearchQueue
from agentic_r.errors import ConfigError, ContextError, LLMError, OutageError
from agentic_r.protocols import LLM, Capabilities, Completion, Dialect, Retriever, Ruler, Sampling
from agentic_r.types import Search, Status, Stop, Trajectory, Turn
from agentic_r.waiting import wait

OnTurn = Callable[[Trajectory, Completion], None]
"""Hears of each turn: the trajectory that it now ends, and what the model wrote."""

ENDS: dict[str, Stop] = {"answer": "answered", "spent": "budget"}
"""What ends a trajectory in any case; see also `stopped`."""


def stopped(trajectory: Trajectory, turns: int) -> Stop | None:
    """Say why `trajectory` cannot go on with `turns` model calls in all; None if it can.

    A turn that could not be read, or ran out of tokens, is the last unless the agent was told so.
    """
    if trajectory.stop is not None:
        return trajectory.stop
    if trajectory.turns:
        last = trajectory.turns[-1]
        if last.status in ENDS:
            return ENDS[last.status]
        if last.status in ("invalid", "length") and last.observation is None:
            return last.status
    return "budget" if calls(trajectory) >= turns else None


def calls(trajectory: Trajectory) -> int:
    """Count the model calls of a trajectory: all its turns but those of the protocol itself."""
    return sum(turn.status != "given" for turn in trajectory.turns)


async def rollout(
    llm: LLM,
    retriever: Retriever,
    starts: Sequence[Trajectory],
    dialect: Dialect,
    *,
    k: int,
    form: str,
    turns: int,
    sampling: Sampling,
    keep_tokens: bool = False,
    window: int = 0,
    on_turn: OnTurn | None = None,
    on_rows: OnRows | None = None,
) -> list[Trajectory]:
    """Carry every start to its end and return the trajectories in the order of the starts.

    `turns` counts the model calls of a whole trajectory, those in its start included; 0 takes
    the dialect's own budget. A search in the last call is made and shown, then the trajectory
    ends with "budget" (contracts B8), unless the dialect reads it otherwise (B9). `k` passages
    are shown per search, `form` says what the retriever is sent. A start that has ended is
    returned as it is; missing evidence is rendered. A prompt longer than the model reads ends
    its trajectory with stop "context", another LLMError with "error", the message in both; an
    OutageError (the server is down, which is no answer to any question) and an error of the
    retriever are raised. `keep_tokens` keeps token ids and log-probabilities as sampled.

    `window` trajectories are under way at once, 0 means all. `on_turn` hears of every turn,
    `on_rows` is given trajectories as they end (see `engine.side_by_side`). Raises ConfigError
    before any work where the model cannot do what the dialect needs.
    """
    turns = turns or dialect.turns
    if turns < 1:
        raise ConfigError(f"agent.turns: got {turns}, expected at least 1 model call")
    check(form)
    sampling = msgspec.structs.replace(
        sampling,
        stop=dialect.stop,
        tokens=sampling.tokens or keep_tokens or "logprobs" in getattr(dialect, "needs", ()),
    )
    open_ = next((start for start in starts if start.stop is None), None)
    can = await _checked(llm, dialect, open_, keep_tokens)
    queue = SearchQueue(retriever, k, threaded=can.independent)
    ask = Asking(queue, dialect, form, ruler_of(retriever))

    carrier = Carrier(llm, dialect, ask, sampling, turns, keep_tokens, on_turn)
    return await side_by_side(carrier.carry, starts, window=window, on_rows=on_rows)


@dataclass(frozen=True)
class Carrier:
    """Carries one trajectory after the other to its end; all settings are those of `rollout`."""

    llm: LLM
    dialect: Dialect
    ask: Asking
    sampling: Sampling
    turns: int
    keep_tokens: bool
    on_turn: OnTurn | None

    async def carry(self, start: Trajectory) -> Trajectory:
        """Take turns until the trajectory has ended; what a failed model call ends says why."""
        dialect = self.dialect
        trajectory = await opened(shown(start, dialect), dialect, self.ask)
        while (stop := stopped(trajectory, self.turns)) is None:
            try:
                completion = await self.llm.complete(
                    dialect.prompt(trajectory), seeded(self.sampling, trajectory)
                )
            except OutageError:
                raise
            except LLMError as error:
                how: Stop = "context" if isinstance(error, ContextError) else "error"
                return msgspec.structs.replace(trajectory, stop=how, error=str(error))
            turn = read(completion, trajectory, dialect, self.keep_tokens)
            if turn.searches:
                turn = await self.ask.searched(turn, trajectory)
            trajectory = msgspec.structs.replace(trajectory, turns=(*trajectory.turns, turn))
            if self.on_turn is not None:
                self.on_turn(trajectory, completion)
        return msgspec.structs.replace(trajectory, stop=stop)


async def _checked(
    llm: LLM, dialect: Dialect, start: Trajectory | None, keep_tokens: bool
) -> Capabilities:
    """Refuse a model that cannot take what the dialect writes, or tell what is to be kept."""
    if start is None:
        return capabilities(llm)
    prompt = dialect.prompt(Trajectory(start.id, start.question))
    names = needed(prompt, getattr(dialect, "needs", ()), keep_tokens=keep_tokens)
    return await require(llm, names, f"the dialect {type(dialect).__name__}")


def run_rollout(
    llm: LLM,
    retriever: Retriever,
    starts: Sequence[Trajectory],
    dialect: Dialect,
    **settings: Any,
) -> list[Trajectory]:
    """Call `rollout` from code that is not asynchronous, and close the model's connections."""

    async def whole() -> list[Trajectory]:
        try:
            return await rollout(llm, retriever, starts, dialect, **settings)
        finally:
            close = getattr(llm, "aclose", None)
            if close is not None:
                await close()

    return wait(whole())


def shown(start: Trajectory, dialect: Dialect) -> Trajectory:
    """Render the evidence of a last turn whose hits were changed (`Trajectory.at_search`)."""
    if not start.turns or not start.turns[-1].searches:
        return start
    last = start.turns[-1]
    if last.observation is not None:
        return start
    before = msgspec.structs.replace(start, turns=start.turns[:-1])
    last = msgspec.structs.replace(last, observation=dialect.observe(last, before))
    return msgspec.structs.replace(start, turns=(*before.turns, last))


def seeded(sampling: Sampling, trajectory: Trajectory) -> Sampling:
    """Give this turn of this trajectory its own seed, so that batches do not matter."""
    if sampling.temperature <= 0 or sampling.seed is None:
        return sampling
    key = (sampling.seed, *trajectory.question.key, trajectory.id, len(trajectory.turns))
    digest = hashlib.sha256(msgspec.json.encode(key)).digest()
    return msgspec.structs.replace(sampling, seed=int.from_bytes(digest[:4], "big") >> 1)


def read(
    completion: Completion, trajectory: Trajectory, dialect: Dialect, keep_tokens: bool
) -> Turn:
    """Make a turn of what the model wrote; searches are still without their hits."""
    turn = dialect.read(completion, trajectory)
    if turn.status not in get_args(Status):
        raise ValueError(f"{type(dialect).__name__}.read gave status {turn.status!r}")
    count = completion.new_tokens
    if count is None and completion.tokens is not None:
        count = len(completion.tokens)
    turn = msgspec.structs.replace(turn, new_tokens=count)
    if completion.prompt_tokens is not None:
        turn = msgspec.structs.replace(turn, prompt_tokens=completion.prompt_tokens)
    if completion.weights:
        turn = msgspec.structs.replace(turn, weights=completion.weights)
    if keep_tokens:
        return msgspec.structs.replace(turn, tokens=completion.tokens, logprobs=completion.logprobs)
    return turn


class Asking:
    """Makes the searches of turns: says what is sent, asks the queue, lets the dialect show."""

    def __init__(
        self, queue: SearchQueue, dialect: Dialect, form: str, ruler: Ruler | None
    ) -> None:
        self._queue = queue
        self._dialect = dialect
        self._form = form
        self._ruler = ruler

    async def searched(self, turn: Turn, trajectory: Trajectory) -> Turn:
        """Make the searches of `turn`, which follows `trajectory`, and render what they found."""
        # Without a task of its own where there is one search: tasks take turns of the event
        # loop, and what is batched with what depends on them.
        if len(turn.searches) == 1:
            searches = [await self._one(turn.searches[0].query, turn, trajectory)]
        else:
            searches = await asyncio.gather(
                *(self._one(search.query, turn, trajectory) for search in turn.searches)
            )
        turn = msgspec.structs.replace(turn, searches=tuple(searches))
        observation = self._dialect.observe(turn, trajectory)
        return msgspec.structs.replace(turn, observation=observation)

    async def _one(self, query: str, turn: Turn, trajectory: Trajectory) -> Search:
        string = sent_by(self._dialect, trajectory, turn, query, self._form, self._ruler)
        return Search(query, string, await self._queue.search(string))


async def opened(trajectory: Trajectory, dialect: Dialect, ask: Asking) -> Trajectory:
    """Put the turn that a protocol makes before the first model call, where it has one."""
    opening = getattr(dialect, "opening", None)
    if opening is None or trajectory.turns or trajectory.stop is not None:
        return trajectory
    given = opening(trajectory.question)
    unwritten = msgspec.structs.replace(given, new_tokens=0, prompt_tokens=0)
    turn = await ask.searched(unwritten, trajectory)
    return msgspec.structs.replace(trajectory, turns=(turn,))
