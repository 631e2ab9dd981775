"""What a step of reinforcement learning minimises, term by term and token by token.

Every term has the shape of its inputs, whatever it is. `token_weights` says how terms are averaged:
the loss of a mini-batch is the sum of weight times term, so that micro-batches of any size add up
to the same gradient, and a token of weight 0 has none.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Averaging = Literal["token", "sequence"]
KL = Literal["k1", "k2", "k3"]


def token_weights(mask: Tensor, averaging: Averaging) -> Tensor:
    """Return weights [rows, tokens] that sum to 1 over the written tokens, 0 elsewhere.

    "token": every written token weighs the same (Yu et al. 2025, DAPO, arXiv 2503.14476,
    equation 8). "sequence": every row weighs the same and shares its weight among its tokens
    (Shao et al. 2024, arXiv 2402.03300, equation 3). Rows without a written token weigh nothing.
    """
    kept = mask.double()
    per_row = kept.sum(-1, keepdim=True)
    if averaging == "token":
        weights = kept / per_row.sum().clamp(min=1)
    else:
        weights = kept / per_row.clamp(min=1) / (per_row > 0).sum().clamp(min=1)
    return weights


class PolicyTerm(NamedTuple):
    """The policy loss of each token, and where it was clipped (above or below, and dual)."""

    loss: Tensor
    clipped: Tensor
    dual: Tensor


def policy_term(
    logprobs: Tensor,
    old: Tensor,
    advantages: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float = 0.0,
) -> PolicyTerm:
    """Return -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), r the ratio new to old.

    Schulman et al. 2017, arXiv 1707.06347, equation 7; a higher upper bound is clip-higher (Yu et
    al. 2025, arXiv 2503.14476, equation 10). `dual_clip` c > 1 bounds the loss of a bad token by
    -c A (Ye et al. 2020, arXiv 1912.09729, equation 5); 0 leaves it out. The log ratio is cut
    at +-20, beyond which only floats would overflow.
    """
    ratio = (logprobs - old).clamp(-20.0, 20.0).exp()
    plain = -advantages * ratio
    bound = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(plain, bound)
    dual = torch.zeros_like(loss, dtype=torch.bool)
    if dual_clip:
        floor = -advantages * dual_clip
        dual = (advantages < 0) & (loss > floor)
        loss = torch.where(dual, floor, loss)
    return PolicyTerm(loss, bound > plain, dual)


def importance(trained: Tensor, drawn: Tensor, cap: float) -> Tensor:
    """Return min(trained / drawn, cap), the ratio of probabilities, for each sampled token.

    Where another program drew than is trained, their log-probabilities differ a little for the
    same weights; this weight of a token's loss makes up for it (truncated importance sampling,
    Ionides 2008; Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy
    RL training"). No gradient goes through it.
    """
    return (trained - drawn).clamp(-20.0, 20.0).exp().clamp(max=cap).detach()


def kl_term(logprobs: Tensor, reference: Tensor, kind: KL) -> Tensor:
    """Return an estimate of KL(policy, reference) at each sampled token.

    With d = log policy - log reference: k1 = d, unbiased; k2 = d^2 / 2, whose gradient is right;
    k3 = exp(-d) - 1 + d, unbiased and never negative (Schulman 2020, "Approximating KL
    divergence"). k3 is what upstream calls low_var_kl and is cut at +-10 as there, d at +-20.
    """
    d = logprobs - reference
    if kind == "k1":
        return d
    if kind == "k2":
        return d.square() / 2
    cut = (-d).clamp(-20.0, 20.0)
    return (cut.exp() - 1 - cut).clamp(-10.0, 10.0)


def value_term(values: Tensor, old: Tensor, targets: Tensor, *, clip: float = 0.5) -> Tensor:
    """Return max((V - T)^2, (clip(V, old - clip, old + clip) - T)^2) / 2 for each token.

    The clipped value loss of PPO as upstream has it (contracts A4, cliprange_value); `clip` 0 is
    the plain squared error.
    """
    plain = (values - targets).square()
    if not clip:
        return plain / 2
    near = torch.maximum(torch.minimum(values, old + clip), old - clip)
    return torch.maximum(plain, (near - targets).square()) / 2


def entropy_term(logits: Tensor) -> Tensor:
    """Return the entropy in nats of each row of logits [..., vocabulary]."""
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1)


def weighted(weights: Tensor, term: Tensor) -> Tensor:
    """Return the sum of weight times term; where the weight is 0 the term is never read."""
    return (weights.to(term.dtype) * torch.where(weights > 0, term, 0.0)).sum()
