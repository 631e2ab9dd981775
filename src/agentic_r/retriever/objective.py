"""From settings and a batch to the one number that is minimised."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from agentic_r.config import RetrieverTrainConfig
from agentic_r.errors import ConfigError, DataError
from agentic_r.retriever.batches import Batch
from agentic_r.retriever.loss import (
    Loss,
    info_nce,
    listwise_kl,
    matryoshka,
    multi_positive,
    plain_cross_entropy,
    rank_net,
)
from agentic_r.types import Example

GRADED_LOSSES = ("listwise-kl", "rank-net")
"""The losses that want a target for each passage."""

UPSTREAM_TEMPERATURE = 0.01


def check_recipe(settings: RetrieverTrainConfig) -> None:
    """Raise ConfigError for settings of which one rules the other out."""
    if settings.recipe == "upstream" and settings.loss not in ("info-nce", "rank-net"):
        raise ConfigError(
            f'retriever.train.loss: got "{settings.loss}" with recipe "upstream", expected '
            '"info-nce" or "rank-net"; or set recipe to "agentic-r"'
        )
    if not settings.evaluations and (settings.keep == "best" or settings.patience):
        raise ConfigError(
            'retriever.train.evaluations: got 0, expected at least 1 for keep = "best" or '
            "patience: both go by what is measured"
        )


def check_objective(settings: RetrieverTrainConfig, examples: Sequence[Example]) -> None:
    """Raise DataError for a loss without its grades, ConfigError as `check_recipe` does."""
    check_recipe(settings)
    graded = sum(example.targets is not None for example in examples)
    if settings.loss in GRADED_LOSSES and not graded:
        raise DataError(
            f'retriever.train.loss: "{settings.loss}" learns graded targets, and none of the '
            f"{len(examples)} examples has any; label with a rule that grades, or take info-nce"
        )


def objective(batch: Batch, settings: RetrieverTrainConfig, device: torch.device) -> Loss:
    """Return the loss of a batch as a function of the vectors of its queries and passages."""
    positive, allowed = batch.positive.to(device), batch.allowed.to(device)
    targets = batch.targets.to(device)
    temperature, weight = settings.temperature, settings.graded_weight
    loss: Loss
    if settings.recipe == "upstream":
        loss = _upstream(batch, settings.loss, device)
    elif settings.loss == "multi-positive":

        def loss(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
            return multi_positive(q, p, positive, allowed, temperature)

    else:

        def contrast(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
            return info_nce(q, p, positive, allowed, temperature)

        def ranked(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
            graded = rank_net(q, p, targets, temperature)
            return (1 - weight) * contrast(q, p) + weight * graded

        def listed(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
            graded = listwise_kl(q, p, targets, temperature, settings.sharpness)
            return (1 - weight) * contrast(q, p) + weight * graded

        loss = {"info-nce": contrast, "rank-net": ranked, "listwise-kl": listed}[settings.loss]
    return matryoshka(loss, settings.matryoshka) if settings.matryoshka else loss


def _upstream(batch: Batch, name: str, device: torch.device) -> Loss:
    """Upstream's recipe: cross-entropy, or half of it and half RankNet on bare cosines."""

    def loss(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        contrast = plain_cross_entropy(q, p, batch.listed, UPSTREAM_TEMPERATURE)
        if name == "info-nce":
            return contrast
        return 0.5 * contrast + 0.5 * rank_net(q, p, places(batch).to(device), 1.0)

    return loss


def places(batch: Batch) -> torch.Tensor:
    """Return targets [q, p] that say 1 / place in the list (contracts B7), NaN outside it.

    Neighbours of equal utility share a place; without utilities no two do.
    """
    found = torch.full(batch.targets.shape, torch.nan)
    for query, rows in enumerate(batch.listed):
        place, before = 0, None
        for number, row in enumerate(rows, 1):
            utility = float(batch.targets[query, row])
            if utility != before:  # NaN equals nothing
                place = number
            before = utility
            found[query, row] = 1 / place
    return found
