"""What a trajectory earns, read from what the agent itself wrote.

The answer is the one that the dialect read in the agent's last turn. The prompt and the passages
are never searched for one: a passage that contains an answer earns nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from agentic_r.errors import ConfigError
from agentic_r.metrics import score_question
from agentic_r.settings import RewardConfig
from agentic_r.types import Trajectory

TrajectoryReward = Callable[[Trajectory], float]


def em(trajectory: Trajectory) -> float:
    """Return 1 where the answer that the agent wrote is a right one (contracts B9), else 0."""
    return score_question(trajectory.question, trajectory.answer).em


def token_f1(trajectory: Trajectory) -> float:
    """Return the token F1 of the answer that the agent wrote, 0-1."""
    return score_question(trajectory.question, trajectory.answer).f1


def well_formed(trajectory: Trajectory) -> float:
    """Return 1 where every turn is a search and the last one an answer, else 0."""
    turns = [turn for turn in trajectory.turns if str(turn.status) != "given"]
    kept = all(turn.status == "search" for turn in turns[:-1])
    return float(bool(turns) and kept and turns[-1].status == "answer")


def found(trajectory: Trajectory) -> float:
    """Return the share of the question's gold passages that a search showed, 0-1.

    Gold passages are those that metadata["hops"] names; a question without any gives 0.
    """
    hops: list[Any] = trajectory.question.metadata.get("hops") or []
    gold = {str(hop["passage_id"]) for hop in hops if hop.get("passage_id")}
    shown = {hit.passage.id for search in trajectory.searches for hit in search.hits}
    return len(gold & shown) / len(gold) if gold else 0.0


class Rewarder:
    """The weighted sum that a config describes, as a function of a trajectory.

    Raises ConfigError where a function of one's own cannot be loaded, and where it returns
    something that is no number.
    """

    def __init__(self, config: RewardConfig) -> None:
        self._config = config
        parts: list[tuple[float, TrajectoryReward]] = [
            (config.em, em),
            (config.f1, token_f1),
            (config.format, well_formed),
            (config.found, found),
            (-config.search, lambda trajectory: float(len(trajectory.searches))),
        ]
        if config.function:
            parts.append((config.function_weight, self._own(load_function(config.function))))
        self._parts = [(weight, part) for weight, part in parts if weight]

    def __call__(self, trajectory: Trajectory) -> float:
        """Return the reward of a finished trajectory."""
        return sum(weight * part(trajectory) for weight, part in self._parts)

    def _own(self, function: Callable[[Trajectory], Any]) -> TrajectoryReward:
        def checked(trajectory: Trajectory) -> float:
            value = function(trajectory)
            if not isinstance(value, int | float) or value != value:
                raise ConfigError(
                    f"agent.train.rl.reward.function: {self._config.function} returned {value!r} "
                    f"for question {trajectory.question.id}, expected a number"
                )
            return float(value)

        return checked


def load_function(path: str) -> Callable[[Trajectory], Any]:
    """Import the function that "package.module:name" names. Raises ConfigError."""
    key = "agent.train.rl.reward.function"
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise ConfigError(f"{key}: got {path!r}, expected package.module:name")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{key}: {path} cannot be imported ({error}); check its name and PYTHONPATH"
        ) from error
    if not callable(function):
        raise ConfigError(f"{key}: {path} is a {type(function).__name__}, expected a function")
    loaded: Callable[[Trajectory], Any] = function
    return loaded
