"""Beginnings that many prompts of a batch have in common, read once for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from agentic_r.agent.slab import PrefixStore, common

SIBLINGS = 8
"""Prompts that a stem must serve: fewer are as fast with a copy of its keys and values each."""

BLOCKS = 2
"""Blocks of tokens that a stem must have."""


def stems(prompts: Sequence[Sequence[int]], store: PrefixStore) -> list[tuple[int, list[int]]]:
    """Group prompts by the longest beginning that at least SIBLINGS of them share.

    Returns for each group the number of tokens that all its members begin with and its members,
    as places in `prompts`. A prompt is in one group at most, and never in one that leaves none of
    its tokens to be read.
    """
    keys = [store.keys(prompt[:-1]) for prompt in prompts]
    shared = Counter(key for row in keys for key in row)
    groups: dict[int, list[int]] = {}
    for index, row in enumerate(keys):
        deepest = [key for key in row[BLOCKS - 1 :] if shared[key] >= SIBLINGS]
        if deepest:
            groups.setdefault(deepest[-1], []).append(index)
    found = []
    for members in groups.values():
        if len(members) < SIBLINGS:  # the others went on together
            continue
        first, *others = (prompts[index] for index in members)
        length = min(common(first[:-1], other[:-1]) for other in others)
        found.append((length, members))
    return found
