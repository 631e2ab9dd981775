"""The contrastive loss of the retriever."""

from __future__ import annotations

import torch

from agentic_r.errors import DataError

_NEVER = -1e9


def info_nce(
    queries: torch.Tensor,
    passages: torch.Tensor,
    positive: torch.Tensor,
    allowed: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Mean InfoNCE loss over all (query, positive passage) pairs.

    With s = cosine / temperature, a pair (i, p) costs -log(exp s_ip / (exp s_ip + sum of
    exp s_in over the negatives n of i)): the paper's contrastive objective, one positive at a
    time, so that the positives of one query do not push each other away. Shapes: unit rows
    queries [q, d] and passages [p, d]; positive [q, p] and allowed [q, p] are bool; the
    negatives of i are allowed[i] without positive[i]. Raises DataError where there is no
    positive at all.
    """
    if not bool(positive.any()):
        raise DataError("got a batch without a positive passage, expected one per query")
    scores = queries.float() @ passages.float().T / temperature
    # A finite stand-in for minus infinity: a query without negatives has loss 0 and gradient 0.
    negatives = scores.masked_fill(positive | ~allowed, _NEVER).logsumexp(1, keepdim=True)
    losses = torch.nn.functional.softplus(negatives - scores)
    return losses[positive].mean()
