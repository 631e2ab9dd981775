"""Which settings may change between two starts of a run, and what is said of those that may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentic_r.config import Config, flat
from agentic_r.errors import RunError
from agentic_r.manifest import Manifest, Start
from agentic_r.settings.retriever import SEARCH_ONLY

UNAFFECTING = SEARCH_ONLY | frozenset(
    {
        "name",
        "runs",
        "retriever.train.tracker",
        "agent.train.tracker",
        "agent.concurrency",
        "agent.timeout",
        "agent.retries",
        "agent.price",
        "agent.api_key_env",
        "agent.train.rl.weights",
        "utility.judge_concurrency",
        "utility.judge_timeout",
        "utility.judge_retries",
        "utility.judge_price",
        "utility.judge_api_key_env",
        "utility.cache",
        # Every cell of the grid is a stage that knows what it was made with.
        *(f"evaluation.{key}" for key in ("agents", "retrievers", "datasets", "sample", "depth")),
    }
)
"""Settings that may change between two starts of a run: no result depends on them."""

NAMED = {"agent.model": "agent.name", "utility.judge": "utility.judge_name"}
"""Where a server's model has a name, the name identifies it, and its address may change."""

NEUTRAL: Mapping[str, Any] = {"utility.judge_prompt_file": "", "utility.subanswer_prompt_file": ""}
"""Settings of later versions, with the value that means what was done before there was one.

At that value they are no part of what a run or a stage was made with, so that one of an earlier
version goes on. A setting whose default changes results does not belong here.
"""

ROLLOUTS = "agent.train.rl.rollouts"

CONCERNS: Mapping[str, str] = {
    "": "all stages",
    "given": "rollouts and everything after them",
    "retriever": "index and everything after it",
    "retriever.train": "retriever and everything after it",
    "retriever.rerank": "reranker and everything after it",
    "retriever.k": "rollouts and everything after them",
    "retriever.input": "rollouts and everything after them",
    "agent": "rollouts and everything after them",
    "agent.train": "agent and everything after it",
    "utility": "labels and everything after them",
    "loop": "the iterations that are added or taken away",
    "evaluation": "evaluation and report",
}
"""Which stages a table or key of the config reaches; the longest name that fits counts."""


FORK = "add --fork NAME to loop, rollout, label, train or evaluate"
"""How a new run is started; the other verbs fork nothing."""


def lasting(config: Config | Mapping[str, Any]) -> dict[str, Any]:
    """Return {dotted key: value} of all that results depend on: not how a run is served."""
    values = {
        key: value
        for key, value in flat(config).items()
        if key not in UNAFFECTING
        and not key.startswith(("serve.", "agent.train.verl."))
        and not (key in NEUTRAL and value == NEUTRAL[key])
    }
    if values.get(ROLLOUTS):  # that a server draws counts, not where it is
        values[ROLLOUTS] = "http://..."
    for address, name in NAMED.items():
        if values.get(name) and str(values.get(address)).startswith(("http://", "https://")):
            values[address] = "http://..."
    return values


def check_config(
    folder: Path, before: Mapping[str, Any], config: Config, concerns: Mapping[str, str]
) -> None:
    """Refuse with RunError settings that a run was not started with, naming both values.

    A run without questions holds an index and cells of a grid alone, each of which knows what it
    was made with: it may go on as anything that fits them.
    """
    old, new = lasting(before), lasting(config)
    if old.get("data.source") == "files" and not old.get("data.questions"):
        return
    changed = [
        f"{key} was {_shown(flat(before), key)}, now {_shown(flat(config), key)} "
        f"({_concerned(key, concerns)})"
        for key in dict.fromkeys([*old, *new])
        if _shown(old, key) != _shown(new, key)
    ]
    if changed:
        raise RunError(
            f"{folder} was started with other settings: {'; '.join(changed)}. Go back to them, "
            f"or start a new run that reuses what is unaffected: {FORK}"
        )


def _concerned(key: str, concerns: Mapping[str, str]) -> str:
    fits = [name for name in concerns if not name or key == name or key.startswith(f"{name}.")]
    return concerns[max(fits, key=len)] if fits else "all stages"


def differences(before: Manifest | Start, now: Start) -> list[str]:
    """Say how a stage's settings and inputs have changed, one clause each."""
    old = flat({"settings": _table(before.settings), "inputs": before.inputs})
    new = flat({"settings": _table(now.settings), "inputs": now.inputs})
    return [
        f"{key} was {_shown(old, key)}, now {_shown(new, key)}"
        for key in dict.fromkeys([*old, *new])
        if _shown(old, key) != _shown(new, key)
    ]


def _table(settings: Any) -> dict[str, Any]:
    return settings if isinstance(settings, dict) else {"": settings}


def refusal(folder: Path, changes: Sequence[str]) -> str:
    """Return what a user is told whose stage was made with something else."""
    return (
        f"stage {folder} was made with other settings or inputs: {'; '.join(changes)}. "
        f"Go back to them, start a new run that reuses what is unaffected ({FORK}), "
        "or delete the folder to make it again"
    )


def _shown(values: Mapping[str, Any], key: str) -> str:
    return msgspec.json.encode(values[key]).decode() if key in values else "not set"
