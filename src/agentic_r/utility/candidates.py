"""The passages considered for one search: what the current retriever finds for what was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentic_r.errors import ConfigError
from agentic_r.protocols import Retriever
from agentic_r.types import Candidate, Passage, Trajectory


def candidates(
    trajectories: Sequence[Trajectory], retriever: Retriever, depth: int
) -> list[list[Candidate]]:
    """Find the `depth` best passages for every search of every trajectory.

    One list of candidates per search, in the order of trajectories and their searches. The
    string is `Search.sent`, exactly as the agent's own search sent it (contracts B2).
    """
    places = [(each, n) for each in trajectories for n in range(len(each.searches))]
    return candidates_at(places, retriever, depth)


Known = Mapping[tuple[tuple[str, str, str], int], Sequence[Passage]]
"""Passages, best first, by trajectory (its key) and search."""


def candidates_at(
    places: Sequence[tuple[Trajectory, int]],
    retriever: Retriever,
    depth: int,
    known: Known | None = None,
) -> list[list[Candidate]]:
    """Find the `depth` best passages for chosen searches, given as (trajectory, search).

    Equal strings are searched once, all strings in one call. What is `known` is not searched for.
    A passage that is found twice counts once, at its better rank. Raises ConfigError when `depth`
    is below 1.
    """
    if depth < 1:
        raise ConfigError(f"utility.candidates: got {depth}, expected 1 or more passages a search")
    known = known or {}
    open_ = [(each, n) for each, n in places if (each.key, n) not in known]
    unique = list(dict.fromkeys(each.searches[n].sent for each, n in open_))
    found = dict(zip(unique, retriever.search(unique, depth), strict=True)) if unique else {}
    rows: list[list[Candidate]] = []
    for trajectory, search in places:
        passages = known.get((trajectory.key, search))
        if passages is None:
            passages = [hit.passage for hit in found[trajectory.searches[search].sent]]
        first: dict[str, Passage] = {}
        for passage in passages:
            first.setdefault(passage.id, passage)
        best = list(first.values())[:depth]
        rows.append(
            [Candidate(trajectory.id, search, each, rank) for rank, each in enumerate(best)]
        )
    return rows
