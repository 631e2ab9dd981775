"""Vectors with gradients: encoded by share, and with gradient caching in little memory.

The loss sees plain vectors and leaves a gradient on them; that gradient then goes through the
encoder. With caching the activations of the first pass are dropped and each group of texts is
encoded once more for its own backward pass (GradCache, arXiv 2101.06983): the same gradients,
with the activations of one group in memory instead of those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from agentic_r.retriever.encoder import plan
from agentic_r.training.processes import Processes

GROUP_TOKENS = 1024
"""Padded tokens that go through the encoder at once."""

Forward = Callable[[Sequence[list[int]]], torch.Tensor]
"""Token lists to unit rows [n, d]."""


@dataclass(frozen=True)
class Side:
    """How the texts of one side are encoded: a forward pass in its number format."""

    forward: Forward
    autocast: Callable[[], AbstractContextManager[object]]
    processes: Processes

    def vectors(self, ids: Sequence[list[int]], budget: int = GROUP_TOKENS) -> torch.Tensor:
        """Encode token lists without gradients; every process gets all rows [n, d]."""
        with torch.no_grad():
            return self._encoded(ids, budget)[0]

    def embed(self, ids: Sequence[list[int]], cache: int = 0) -> Embedded:
        """Encode token lists for a loss; with `cache` tokens at once, keeping no activations."""
        if cache:
            vectors, groups = self.vectors(ids, cache), self._groups(ids, cache)
            return Embedded(vectors.requires_grad_(), self, ids, groups, [])
        vectors, groups, kept = self._encoded(ids, GROUP_TOKENS)
        return Embedded(vectors.requires_grad_(), self, ids, groups, kept)

    def _encoded(
        self, ids: Sequence[list[int]], budget: int
    ) -> tuple[torch.Tensor, list[list[int]], list[torch.Tensor]]:
        groups = self._groups(ids, budget)
        with self.autocast():
            # A process without a text of its own encodes one to learn shape and device.
            kept = [self.forward([ids[row] for row in rows]) for rows in groups or [[0]]]
        order = torch.tensor([row for rows in groups for row in rows], dtype=torch.long)
        own = torch.cat([part.detach() for part in kept])[torch.argsort(order).to(kept[0].device)]
        shares = self.processes.shares([len(row) for row in ids])
        return self.processes.gather(own, shares), groups, kept if groups else []

    def _groups(self, ids: Sequence[list[int]], budget: int) -> list[list[int]]:
        mine = self.processes.shares([len(row) for row in ids])[self.processes.rank]
        return [[mine[at] for at in rows] for rows in plan([len(ids[row]) for row in mine], budget)]


@dataclass(frozen=True)
class Embedded:
    """Texts as `vectors` [n, d], a leaf that takes a gradient, and the way back to the weights."""

    vectors: torch.Tensor
    side: Side
    ids: Sequence[list[int]]
    groups: Sequence[list[int]]
    kept: Sequence[torch.Tensor]


def backward(*embedded: Embedded) -> None:
    """Carry the gradients of the vectors into the weights of the encoder."""
    roots: list[torch.Tensor] = []
    gradients: list[torch.Tensor] = []
    for part in embedded:
        given = part.vectors.grad
        assert given is not None
        if part.kept:
            roots += part.kept
            gradients += [given[rows] for rows in part.groups]
            continue
        for rows in part.groups:
            with part.side.autocast():
                again = part.side.forward([part.ids[row] for row in rows])
            torch.autograd.backward([again], [given[rows]])
    if roots:
        torch.autograd.backward(roots, gradients)
