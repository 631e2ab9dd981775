"""Every estimator against its definition, one token at a time, on random masked batches."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest
import torch

from agentic_r.agent.advantage import gae, grpo, reinforce_plus_plus, rloo, whiten

SEEDS = range(8)


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[tuple[str, str]]]:
    """Rewards, values, mask and groups; what the agent did not write is nan."""
    make = torch.Generator().manual_seed(seed)
    rows, tokens = 9, 14
    mask = torch.rand(rows, tokens, generator=make) < 0.6
    mask[:, 3] = True
    values = torch.randn(rows, tokens, generator=make, dtype=torch.float64)
    rewards = torch.randn(rows, tokens, generator=make, dtype=torch.float64)
    groups = [("a", "1"), ("b", "1"), ("a", "1"), ("a", "2"), ("b", "1"), ("a", "1")]
    groups += [("c", "9"), ("b", "1"), ("a", "2")]
    return rewards.where(mask, torch.nan), values.where(mask, torch.nan), mask, groups


def written(table: torch.Tensor, mask: torch.Tensor) -> list[list[float]]:
    return [row[kept].tolist() for row, kept in zip(table, mask, strict=True)]


def put(lists: list[list[float]], mask: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(mask.shape, dtype=torch.float64)
    out[mask] = torch.tensor([x for row in lists for x in row], dtype=torch.float64)
    return out


def slow_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """The sum of equation 16, written out: no recursion."""
    count = len(rewards)
    after = [*values[1:], 0.0]
    deltas = [r + gamma * n - v for r, n, v in zip(rewards, after, values, strict=True)]
    return [
        sum((gamma * lam) ** (later - t) * deltas[later] for later in range(t, count))
        for t in range(count)
    ]


def slow_groups(scores: list[float], groups: list[Any], rule: Any) -> list[float]:
    out = []
    for row, own in enumerate(scores):
        members = [other for other in range(len(scores)) if groups[other] == groups[row]]
        out.append(
            rule(own, [scores[m] for m in members], [scores[m] for m in members if m != row])
        )
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.8), (1.0, 0.0)])
def test_gae(seed: int, gamma: float, lam: float) -> None:
    rewards, values, mask, _ = batch(seed)
    got, targets = gae(rewards, values, mask, gamma=gamma, lam=lam)
    slow = [
        slow_gae(r, v, gamma, lam)
        for r, v in zip(written(rewards, mask), written(values, mask), strict=True)
    ]
    torch.testing.assert_close(got, put(slow, mask), rtol=0, atol=1e-9)
    wanted = torch.where(mask, put(slow, mask) + values, 0.0)
    torch.testing.assert_close(targets, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", [True, False])
def test_grpo(seed: int, scale: bool) -> None:
    rewards, _, mask, groups = batch(seed)
    scores = [sum(row) for row in written(rewards, mask)]

    def rule(own: float, members: list[float], _: list[float]) -> float:
        if len(members) == 1:
            return own / (1 + 1e-6) if scale else own
        centred = own - statistics.mean(members)
        return centred / (statistics.stdev(members) + 1e-6) if scale else centred

    slow = torch.tensor(slow_groups(scores, groups, rule), dtype=torch.float64)
    got = grpo(rewards, mask, groups, scale=scale)
    torch.testing.assert_close(got, torch.where(mask, slow[:, None], 0.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_rloo(seed: int) -> None:
    rewards, _, mask, groups = batch(seed)
    scores = [sum(row) for row in written(rewards, mask)]

    def rule(own: float, _: list[float], others: list[float]) -> float:
        return own - statistics.mean(others) if others else own

    slow = torch.tensor(slow_groups(scores, groups, rule), dtype=torch.float64)
    got = rloo(rewards, mask, groups)
    torch.testing.assert_close(got, torch.where(mask, slow[:, None], 0.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_reinforce_plus_plus(seed: int, gamma: float) -> None:
    rewards, _, mask, _ = batch(seed)
    returns = [
        [sum(gamma ** (u - t) * row[u] for u in range(t, len(row))) for t in range(len(row))]
        for row in written(rewards, mask)
    ]
    flat = [x for row in returns for x in row]
    mean, spread = statistics.mean(flat), (statistics.variance(flat) + 1e-8) ** 0.5
    slow = [[(x - mean) / spread for x in row] for row in returns]
    got = reinforce_plus_plus(rewards, mask, gamma=gamma)
    torch.testing.assert_close(got, put(slow, mask), rtol=0, atol=1e-9)


def test_a_group_is_a_question_whatever_the_order() -> None:
    rewards, _, mask, groups = batch(0)
    order = random.Random(1).sample(range(len(groups)), len(groups))
    shuffled = [groups[row] for row in order]
    for estimate in (grpo, rloo):
        straight = estimate(rewards, mask, groups)[order]
        torch.testing.assert_close(estimate(rewards[order], mask[order], shuffled), straight)


def test_equal_ids_of_two_data_sets_are_two_groups() -> None:
    mask = torch.ones(4, 1, dtype=torch.bool)
    rewards = torch.tensor([[1.0], [0.0], [1.0], [1.0]])
    groups = [
        ("nq", "train_0"),
        ("nq", "train_0"),
        ("hotpotqa", "train_0"),
        ("hotpotqa", "train_0"),
    ]
    assert grpo(rewards, mask, groups, scale=False)[:, 0].tolist() == [0.5, -0.5, 0.0, 0.0]


def test_what_cannot_be_whitened_is_left() -> None:
    mask = torch.tensor([[False, True]])
    assert whiten(torch.tensor([[7.0, 3.0]]), mask).tolist() == [[0.0, 3.0]]


@pytest.fixture(scope="module")
def core() -> Any:
    return pytest.importorskip("verl.trainer.ppo.core_algos", exc_type=ImportError)


class TestVerl:
    """The same numbers as verl's own functions, where verl is installed."""

    @pytest.mark.parametrize("seed", SEEDS)
    def test_gae(self, core: Any, seed: int) -> None:
        rewards, values, mask, _ = batch(seed)
        rewards, values = rewards.nan_to_num(), values.nan_to_num()
        theirs, targets = core.compute_gae_advantage_return(
            rewards, values, mask.double(), 1.0, 0.95
        )
        ours, own = gae(rewards, values, mask, gamma=1.0, lam=0.95)
        torch.testing.assert_close(own, targets * mask, rtol=0, atol=1e-6)
        torch.testing.assert_close(whiten(ours, mask), theirs * mask, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_groups(self, core: Any, seed: int) -> None:
        import numpy as np

        rewards, _, mask, groups = batch(seed)
        rewards, index = rewards.nan_to_num(), np.array(["/".join(g) for g in groups])
        for scale in (True, False):
            theirs, _ = core.compute_grpo_outcome_advantage(
                rewards, mask.double(), index, norm_adv_by_std_in_grpo=scale
            )
            ours = grpo(rewards, mask, groups, scale=scale)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        theirs, _ = core.compute_rloo_outcome_advantage(rewards, mask.double(), index)
        torch.testing.assert_close(rloo(rewards, mask, groups), theirs, rtol=0, atol=1e-6)
