"""The losses of the retriever: pure functions of vectors and masks, each with its equation.

Notation: q query, p passage, s_qp = cosine / temperature; unit rows queries [q, d] and passages
[p, d], in one order on every process, so that a loss over several processes is the loss over one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch.nn.functional import cross_entropy, log_softmax, normalize, softplus

from agentic_r.errors import DataError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Vectors of queries and passages to one number."""

_NEVER = -1e9
"""A finite stand-in for minus infinity: a query without negatives has loss 0 and gradient 0."""


def info_nce(
    queries: torch.Tensor,
    passages: torch.Tensor,
    positive: torch.Tensor,
    allowed: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Mean InfoNCE loss over all (query, positive passage) pairs.

    A pair (i, p) costs -log(exp s_ip / (exp s_ip + sum of exp s_in over the negatives n of i)):
    the paper's contrastive objective (arXiv 1807.03748), one positive at a time, so that the
    positives of one query do not push each other away. positive and allowed [q, p] are bool; the
    negatives of i are allowed[i] without positive[i]. Raises DataError where there is no positive
    at all.
    """
    _refuse_none(positive)
    scores = _cosines(queries, passages) / temperature
    negatives = scores.masked_fill(positive | ~allowed, _NEVER).logsumexp(1, keepdim=True)
    losses = softplus(negatives - scores)
    return losses[positive].mean()


def multi_positive(
    queries: torch.Tensor,
    passages: torch.Tensor,
    positive: torch.Tensor,
    allowed: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Mean over queries of -log(P / (P + N)), P the sum of exp s over positives, N over negatives.

    The positives of a query are alternatives: one of them on top is enough (MIL-NCE, arXiv
    1912.06430). Masks and errors as in `info_nce`; queries without a positive are left out.
    """
    _refuse_none(positive)
    scores = _cosines(queries, passages) / temperature
    good = scores.masked_fill(~positive, _NEVER).logsumexp(1)
    bad = scores.masked_fill(positive | ~allowed, _NEVER).logsumexp(1)
    return softplus(bad - good)[positive.any(1)].mean()


def plain_cross_entropy(
    queries: torch.Tensor,
    passages: torch.Tensor,
    listed: Sequence[Sequence[int]],
    temperature: float,
) -> torch.Tensor:
    """Upstream's loss: query i against every passage of every query, its first one being right.

    -log(exp s_ic / sum of exp s_ij over all columns j): the columns are the lists of all queries
    one after the other, repeats and other positives included, and c is where the list of i begins
    (contracts B7). listed holds rows of `passages`.
    """
    columns = [row for rows in listed for row in rows]
    starts = list(accumulate((len(rows) for rows in listed[:-1]), initial=0))
    scores = _cosines(queries, passages) / temperature
    return cross_entropy(scores[:, columns], torch.tensor(starts, device=scores.device))


def listwise_kl(
    queries: torch.Tensor,
    passages: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    sharpness: float,
) -> torch.Tensor:
    """Mean over queries of KL(t || m) over their graded passages.

    t = softmax(target / sharpness), m = softmax(s): ListNet's top-one distributions (Cao et al.
    2007) as distillation writes them. targets [q, p] are utilities, NaN where there is none.
    Queries with fewer than two graded passages are left out; 0 with a gradient of 0 if all are.
    """
    graded = ~targets.isnan()
    scores = _cosines(queries, passages) / temperature
    model = log_softmax(scores.masked_fill(~graded, _NEVER), 1)
    wanted = (targets.nan_to_num(0.0).float() / sharpness).masked_fill(~graded, _NEVER)
    teacher = log_softmax(wanted, 1)
    terms = torch.where(graded, teacher.exp() * (teacher - model), 0.0).sum(1)
    kept = graded.sum(1) > 1
    return terms[kept].sum() / max(1, int(kept.sum()))


def rank_net(
    queries: torch.Tensor,
    passages: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Mean of log(1 + exp(s_ib - s_ia)) over all pairs a, b of one query with target a > target b.

    RankNet (Burges et al. 2005); equal targets are no pair. targets as in `listwise_kl`; 0 with a
    gradient of 0 where there is no pair. Upstream's term is the one at temperature 1.
    """
    graded = ~targets.isnan()
    most = max(1, int(graded.sum(1).max()))
    # Only a query's own list is graded: pairs of those few, not of all passages of the batch.
    own = graded.float().topk(most, 1).indices
    scores = (_cosines(queries, passages) / temperature).gather(1, own)
    targets = targets.gather(1, own)
    # A comparison with NaN is false, so that what was not graded is in no pair.
    better = targets[:, :, None] > targets[:, None, :]
    losses = softplus(scores[:, None, :] - scores[:, :, None])
    return losses[better].sum() / max(1, int(better.sum()))


def matryoshka(loss: Loss, dimensions: Sequence[int]) -> Loss:
    """Make the mean of a loss over the first d numbers of every vector, for each d.

    The cut rows are brought to unit length again (Matryoshka representation learning, arXiv
    2205.13147). Raises DataError at the call for a d beyond the vectors.
    """

    def nested(queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
        if max(dimensions) > queries.shape[1]:
            raise DataError(
                f"got matryoshka dimension {max(dimensions)}, expected at most "
                f"{queries.shape[1]}, the length of the vectors"
            )
        parts = [
            loss(normalize(queries[:, :d], dim=-1), normalize(passages[:, :d], dim=-1))
            for d in dimensions
        ]
        return torch.stack(parts).mean()

    return nested


@torch.no_grad()
def accuracy(
    queries: torch.Tensor, passages: torch.Tensor, positive: torch.Tensor, allowed: torch.Tensor
) -> float:
    """Share of queries whose best passage among positives and negatives is a positive."""
    scores = _cosines(queries, passages).masked_fill(~(positive | allowed), _NEVER)
    return float(positive.gather(1, scores.argmax(1, keepdim=True)).float().mean())


def _cosines(queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
    return queries.float() @ passages.float().T


def _refuse_none(positive: torch.Tensor) -> None:
    if not bool(positive.any()):
        raise DataError("got a batch without a positive passage, expected one per query")
