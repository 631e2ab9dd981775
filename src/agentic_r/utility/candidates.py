"""The passages considered for one search: what the current retriever finds for what was sent."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_r.errors import ConfigError
from agentic_r.protocols import Retriever
from agentic_r.types import Candidate, Trajectory


def candidates(
    trajectories: Sequence[Trajectory], retriever: Retriever, depth: int
) -> list[list[Candidate]]:
    """Find the `depth` best passages for every search of every trajectory.

    One list of candidates per search, in the order of trajectories and their searches. The
    string is `Search.sent`, exactly as the agent's own search sent it (contracts B2).
    """
    places = [(each, n) for each in trajectories for n in range(len(each.searches))]
    return candidates_at(places, retriever, depth)


def candidates_at(
    places: Sequence[tuple[Trajectory, int]], retriever: Retriever, depth: int
) -> list[list[Candidate]]:
    """Find the `depth` best passages for chosen searches, given as (trajectory, search).

    Equal strings are searched once, all strings in one call. A passage that the retriever
    returns twice counts once, at its better rank. Raises ConfigError when `depth` is below 1.
    """
    if depth < 1:
        raise ConfigError(f"utility.candidates: got {depth}, expected 1 or more passages a search")
    sent = [trajectory.searches[search].sent for trajectory, search in places]
    unique = list(dict.fromkeys(sent))
    found = dict(zip(unique, retriever.search(unique, depth), strict=True)) if unique else {}
    rows: list[list[Candidate]] = []
    for (trajectory, search), string in zip(places, sent, strict=True):
        passages = {hit.passage.id: hit.passage for hit in reversed(found[string])}
        ids = dict.fromkeys(hit.passage.id for hit in found[string])
        rows.append(
            [Candidate(trajectory.id, search, passages[id], rank) for rank, id in enumerate(ids)]
        )
    return rows
