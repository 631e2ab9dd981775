"""Notices that training has collapsed, and says by what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from agentic_r.settings import GuardConfig
from agentic_r.types import Trajectory

GRAM = 8
"""Tokens that have to come again for a repetition."""


def invalid_rate(trajectories: Sequence[Trajectory]) -> float:
    """Return the share of turns that could not be read, 0-1."""
    statuses = [turn.status for trajectory in trajectories for turn in trajectory.turns]
    return sum(s in ("invalid", "length") for s in statuses) / max(1, len(statuses))


def repeated(trajectories: Sequence[Trajectory]) -> float:
    """Return the share of 8-grams of sampled tokens that stood in the same turn before, 0-1."""
    again = total = 0
    for trajectory in trajectories:
        for turn in trajectory.turns:
            tokens = turn.tokens or ()
            grams = Counter(tokens[at : at + GRAM] for at in range(len(tokens) - GRAM + 1))
            total += sum(grams.values())
            again += sum(grams.values()) - len(grams)
    return again / max(1, total)


def collapsed(history: Sequence[Mapping[str, float]], config: GuardConfig) -> str:
    """Say in one line why training has collapsed by its last steps; "" where it has not.

    `history` is one mapping a step with entropy, kl, written, invalid and repeated. What is
    compared with the first steps needs as many of them as are looked at.
    """
    if config.on_collapse == "ignore" or len(history) < config.patience:
        return ""
    first, last = history[: config.patience], history[-config.patience :]

    def mean(steps: Sequence[Mapping[str, float]], name: str) -> float:
        return fmean(step[name] for step in steps)

    now = {name: mean(last, name) for name in ("entropy", "kl", "written", "invalid", "repeated")}
    most_written = config.length * mean(first, "written")
    most_invalid = config.invalid + mean(first, "invalid")
    checks = (
        (now["entropy"] < config.entropy, "entropy", f"at least {config.entropy:g} nats a token"),
        (abs(now["kl"]) > config.kl, "kl", f"at most {config.kl:g} nats a token"),
        (now["written"] > most_written, "written", f"at most {most_written:.0f} tokens"),
        (now["invalid"] > most_invalid, "invalid", f"at most {most_invalid:.0%} of the turns"),
        (now["repeated"] > config.repeated, "repeated", f"at most {config.repeated:.0%}"),
    )
    said = [f"{name} is {now[name]:.3g}, expected {most}" for bad, name, most in checks if bad]
    if not said:
        return ""
    return (
        f"training has collapsed ({'; '.join(said)}; means of {config.patience} steps); lower "
        "agent.train.rl.learning_rate, raise kl_coefficient, or see docs/rl.md"
    )
