"""The one rollout: it carries any start of a trajectory to its end.

Evaluation, labelling by continuation and serving are this function with other starts. Every
trajectory is its own coroutine, so that a slow one never makes the others wait; what batches
model calls and searches sits behind the awaits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, cast, get_args

import msgspec

from agentic_r.agent.engine import OnRows, side_by_side
from agentic_r.agent.needs import capabilities, needed, require
from agentic_r.agent.query import sent
from agentic_r.agent.searches import SearchQueue
from agentic_r.errors import ConfigError, ContextError, LLMError, OutageError
from agentic_r.protocols import LLM, Capabilities, Completion, Dialect, Retriever, Sampling
from agentic_r.types import Search, Status, Stop, Trajectory, Turn
from agentic_r.waiting import wait

OnTurn = Callable[[Trajectory, Completion], None]
"""Hears of each turn: the trajectory that it now ends, and what the model wrote."""


def stopped(trajectory: Trajectory, turns: int) -> Stop | None:
    """Say why `trajectory` cannot go on with `turns` model calls in all; None if it can."""
    if trajectory.stop is not None:
        return trajectory.stop
    if trajectory.turns:
        status = trajectory.turns[-1].status
        if status == "answer":
            return "answered"
        if status != "search":
            return status
    return "budget" if len(trajectory.turns) >= turns else None


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

    `turns` counts the model calls of a whole trajectory, those in its start included; a search
    in the last call is made and shown, then the trajectory ends with "budget" (contracts B8).
    `k` passages are shown per search, `form` says what the retriever is sent. A start that has
    ended is returned as it is; missing evidence is rendered. A prompt longer than the model
    reads ends its trajectory with stop "context", another LLMError with "error", the message in
    both; an OutageError (the server is down, which is no answer to any question) and an error of
    the retriever are raised. `keep_tokens` keeps token ids and log-probabilities as sampled.

    `window` trajectories are under way at once, 0 means all. `on_turn` hears of every turn,
    `on_rows` is given trajectories as they end (see `engine.side_by_side`). Raises ConfigError
    before any work where the model cannot do what the dialect needs.
    """
    if turns < 1:
        raise ConfigError(f"agent.turns: got {turns}, expected at least 1 model call")
    sampling = msgspec.structs.replace(
        sampling, stop=dialect.stop, tokens=sampling.tokens or keep_tokens
    )
    open_ = next((start for start in starts if start.stop is None), None)
    can = await _checked(llm, dialect, open_, keep_tokens)
    queue = SearchQueue(retriever, k, threaded=can.independent)

    async def carry(start: Trajectory) -> Trajectory:
        trajectory = shown(start, dialect)
        while (stop := stopped(trajectory, turns)) is None:
            try:
                completion = await llm.complete(
                    dialect.prompt(trajectory), seeded(sampling, trajectory)
                )
            except OutageError:
                raise
            except LLMError as error:
                how: Stop = "context" if isinstance(error, ContextError) else "error"
                return msgspec.structs.replace(trajectory, stop=how, error=str(error))
            turn = read(completion, dialect, keep_tokens)
            if turn.status == "search":
                turn = await searched(turn, trajectory, queue, dialect, form)
            trajectory = msgspec.structs.replace(trajectory, turns=(*trajectory.turns, turn))
            if on_turn is not None:
                on_turn(trajectory, completion)
        return msgspec.structs.replace(trajectory, stop=stop)

    return await side_by_side(carry, starts, window=window, on_rows=on_rows)


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
    observation = "".join(dialect.observe(search.hits) for search in last.searches)
    last = msgspec.structs.replace(last, observation=observation)
    return msgspec.structs.replace(start, turns=(*start.turns[:-1], last))


def seeded(sampling: Sampling, trajectory: Trajectory) -> Sampling:
    """Give this turn of this trajectory its own seed, so that batches do not matter."""
    if sampling.temperature <= 0 or sampling.seed is None:
        return sampling
    key = (sampling.seed, *trajectory.question.key, trajectory.id, len(trajectory.turns))
    digest = hashlib.sha256(msgspec.json.encode(key)).digest()
    return msgspec.structs.replace(sampling, seed=int.from_bytes(digest[:4], "big") >> 1)


def read(completion: Completion, dialect: Dialect, keep_tokens: bool) -> Turn:
    """Make a turn of what the model wrote; a search is still without its hits."""
    status, payload = dialect.read(completion.text, completion.finish)
    if status not in get_args(Status):
        raise ValueError(f"{type(dialect).__name__}.read gave status {status!r}")
    return Turn(
        text=completion.text,
        status=cast(Status, status),
        searches=(Search(payload or "", ""),) if status == "search" else (),
        answer=payload if status == "answer" else None,
        tokens=completion.tokens if keep_tokens else None,
        logprobs=completion.logprobs if keep_tokens else None,
    )


async def searched(
    turn: Turn, trajectory: Trajectory, queue: SearchQueue, dialect: Dialect, form: str
) -> Turn:
    """Make the searches of `turn` and render what they found."""
    searches = []
    for search in turn.searches:
        string = sent(trajectory.question.text, search.query, form)
        searches.append(Search(search.query, string, await queue.search(string)))
    observation = "".join(dialect.observe(search.hits) for search in searches)
    return msgspec.structs.replace(turn, searches=tuple(searches), observation=observation)
