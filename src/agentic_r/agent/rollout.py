"""The one rollout: it carries any start of a trajectory to its end.

Evaluation, labelling by continuation and serving are this function with other starts. Every
trajectory is its own coroutine, so that a slow one never makes the others wait; what batches
model calls and searches sits behind the awaits.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import cast, get_args

import msgspec

from agentic_r.agent.gather import Gather
from agentic_r.agent.query import sent
from agentic_r.errors import ConfigError, LLMError, OutageError
from agentic_r.protocols import LLM, Completion, Dialect, Retriever, Sampling
from agentic_r.types import Hit, Search, Status, Stop, Trajectory, Turn
from agentic_r.waiting import wait


class SearchQueue:
    """Turns single searches into batched calls of a retriever; equal strings are sent once.

    An error of the retriever is raised in every search of its batch: it is not the agent's fault
    and must not become a wrong answer.
    """

    def __init__(self, retriever: Retriever, k: int) -> None:
        if k < 1:
            raise ConfigError(f"k: got {k}, expected at least 1 passage per search")
        self._retriever = retriever
        self._k = k
        self._gather: Gather[str, tuple[Hit, ...]] = Gather(self._search, patience=2)

    async def search(self, query: str) -> tuple[Hit, ...]:
        """Return the `k` best hits for one string, best first."""
        return await self._gather.submit(query)

    def _search(self, queries: list[str]) -> list[tuple[Hit, ...]]:
        unique = list(dict.fromkeys(queries))
        found = self._retriever.search(unique, self._k)
        hits = {query: tuple(row) for query, row in zip(unique, found, strict=True)}
        return [hits[query] for query in queries]


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
) -> list[Trajectory]:
    """Carry every start to its end and return the trajectories in the order of the starts.

    `turns` counts the model calls of a whole trajectory, those in its start included; a search
    in the last call is made and shown, then the trajectory ends with "budget" (contracts B8).
    `k` passages are shown per search, `form` says what the retriever is sent. A start that has
    ended is returned as it is; missing evidence is rendered. An LLMError ends its trajectory
    with stop "error" and the message; an OutageError (the server is down, which is no answer to
    any question) and an error of the retriever are raised. `keep_tokens` keeps token ids and
    log-probabilities as sampled.
    """
    if turns < 1:
        raise ConfigError(f"agent.turns: got {turns}, expected at least 1 model call")
    queue = SearchQueue(retriever, k)
    sampling = msgspec.structs.replace(sampling, stop=dialect.stop)

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
                return msgspec.structs.replace(trajectory, stop="error", error=str(error))
            turn = read(completion, dialect, keep_tokens)
            if turn.status == "search":
                turn = await searched(turn, trajectory, queue, dialect, form)
            trajectory = msgspec.structs.replace(trajectory, turns=(*trajectory.turns, turn))
        return msgspec.structs.replace(trajectory, stop=stop)

    tasks = [asyncio.ensure_future(carry(start)) for start in starts]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def run_rollout(
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
) -> list[Trajectory]:
    """Call `rollout` from code that is not asynchronous, and close the model's connections."""

    async def whole() -> list[Trajectory]:
        try:
            return await rollout(
                llm,
                retriever,
                starts,
                dialect,
                k=k,
                form=form,
                turns=turns,
                sampling=sampling,
                keep_tokens=keep_tokens,
            )
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
