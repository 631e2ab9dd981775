"""How good each written token was: the advantage estimators, one pure function each.

All work on [rows, tokens] with `mask` True where the agent wrote the token. What stands elsewhere
(values, rewards, even nan) is never read: the recursion steps over it and the result is 0 there.
Rows of one question are a group; a group is named by its question, never by a row's place.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return (advantages, value targets) of generalised advantage estimation.

    delta_t = r_t + gamma V_t' - V_t and A_t = delta_t + gamma lam A_t', with t' the next written
    token and V = A = 0 after the last; the target is A_t + V_t (Schulman et al. 2016,
    arXiv 1506.02438, equation 16). Shapes [rows, tokens]; not whitened, see `whiten`.
    """
    advantages, targets = torch.zeros_like(values), torch.zeros_like(values)
    after = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(after)
    for t in range(values.shape[1] - 1, -1, -1):
        here = mask[:, t]
        advantage = rewards[:, t] + gamma * next_value - values[:, t] + gamma * lam * after
        advantages[:, t] = torch.where(here, advantage, 0.0)
        targets[:, t] = torch.where(here, advantage + values[:, t], 0.0)
        after = torch.where(here, advantage, after)
        next_value = torch.where(here, values[:, t], next_value)
    return advantages, targets


def grpo(
    rewards: Tensor, mask: Tensor, groups: Sequence[Hashable], *, scale: bool = True
) -> Tensor:
    """Return each row's return against those of its group, the same for every written token.

    A = (R - mean) / (std + 1e-6) with R the sum of a row's rewards and the unbiased std over the
    rows of one question (Shao et al. 2024, arXiv 2402.03300, section 4.1.2). `scale` False leaves
    the std out (Liu et al. 2025, arXiv 2503.20783), so that easy and hard questions weigh alike.
    A row alone in its group keeps R itself, as in verl.
    """
    returns = _returns(rewards, mask)
    out = torch.empty_like(returns)
    for rows in _members(groups):
        own = returns[rows]
        if len(rows) == 1:
            out[rows] = own / (1 + 1e-6) if scale else own
            continue
        centred = own - own.mean()
        out[rows] = centred / (own.std() + 1e-6) if scale else centred
    return _spread(out, mask)


def rloo(rewards: Tensor, mask: Tensor, groups: Sequence[Hashable]) -> Tensor:
    """Return each row's return less the mean of the others of its group.

    A_i = R_i - sum over j != i of R_j / (n - 1) (Kool et al. 2019; Ahmadian et al. 2024,
    arXiv 2402.14740, equation 8). A row alone in its group keeps R itself.
    """
    returns = _returns(rewards, mask)
    out = torch.empty_like(returns)
    for rows in _members(groups):
        own, count = returns[rows], len(rows)
        out[rows] = own if count == 1 else (own - own.mean()) * count / (count - 1)
    return _spread(out, mask)


def reinforce_plus_plus(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Return discounted returns, whitened over every written token of the batch.

    G_t = r_t + gamma G_t' with t' the next written token, then (G - mean) / std over the whole
    batch (Hu 2025, arXiv 2501.03262). No critic and no groups: one row a question is enough.
    """
    returns = torch.zeros_like(rewards)
    after = torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        after = torch.where(mask[:, t], rewards[:, t] + gamma * after, after)
        returns[:, t] = torch.where(mask[:, t], after, 0.0)
    return whiten(returns, mask)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Return `values` with mean 0 and (unbiased) variance 1 over the mask, 0 elsewhere.

    Fewer than two values cannot be whitened and are returned as they are.
    """
    kept = values[mask]
    if kept.numel() < 2:
        return torch.where(mask, values, 0.0)
    scaled = (values - kept.mean()) * torch.rsqrt(kept.var() + 1e-8)
    return torch.where(mask, scaled, 0.0)


def _returns(rewards: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, rewards, 0.0).sum(-1)


def _spread(scores: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, scores[:, None], 0.0)


def _members(groups: Sequence[Hashable]) -> list[list[int]]:
    found: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        found.setdefault(group, []).append(row)
    return list(found.values())
