"""What a run asked of servers: requests, tokens and their price, by who was asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agentic_r.errors import DataError


class Spent(msgspec.Struct, frozen=True):
    """What one role of a run (agent, judge) asked of its servers, over all restarts."""

    who: str
    """"agent" or "judge"; in a grid "agent", a space and the folder of the agent."""
    requests: int
    """Answers that were had from a server."""
    prompt_tokens: int
    """Tokens that were sent, as the server counts them."""
    new_tokens: int
    """Tokens that were written."""
    untold: int = 0
    """Answers whose tokens the server did not count; the figures above lack them."""
    reused: int = 0
    """Answers that were known from before and were not asked again, in the last process."""
    cost: float = 0.0
    """In the unit of the prices; 0 without prices."""


def spent_in(folder: Path) -> list[Spent]:
    """Read what a run spent out of its manifests; empty where no server was asked.

    Raises DataError for a damaged manifest.
    """
    found = []
    for path in sorted(folder.rglob("manifest.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
        except msgspec.DecodeError as error:
            raise DataError(f"{path}: got {error}, expected the JSON of a run") from None
    return spent_of(found)


def said(spent: Spent) -> str:
    """Say in one line what was asked."""
    lacking = f" ({spent.untold:,} of them not counted)" if spent.untold else ""
    price = f", cost {spent.cost:.4g}" if spent.cost else ""
    return (
        f"{spent.who}: {spent.requests:,} answers of servers{lacking}, "
        f"{spent.prompt_tokens:,} tokens read, {spent.new_tokens:,} written{price}"
    )


def spent_of(manifests: Iterable[Mapping[str, Any]]) -> list[Spent]:
    """Take the fullest account of every role: each manifest has all that was asked up to then.

    The agents of a grid are accounted for one by one.
    """
    most: dict[str, Spent] = {}
    for manifest in manifests:
        top, _, rest = str(manifest.get("stage", "")).partition("/")
        for role, told in (manifest.get("facts", {}).get("spent") or {}).items():
            who = f"{role} {rest.partition('/')[0]}" if top == "grid" else role
            found = msgspec.convert({**told, "who": who}, Spent)
            if who not in most or found.requests > most[who].requests:
                most[who] = found
    return [most[who] for who in sorted(most)]
