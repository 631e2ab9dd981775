from __future__ import annotations

import math

import pytest
import torch

from agentic_r.errors import DataError
from agentic_r.retriever.loss import info_nce


def slow(
    queries: torch.Tensor,
    passages: torch.Tensor,
    positive: torch.Tensor,
    allowed: torch.Tensor,
    temperature: float,
) -> float:
    """InfoNCE as a textbook writes it, one pair and one term at a time."""
    losses = []
    for i in range(len(queries)):
        for p in range(len(passages)):
            if not positive[i, p]:
                continue
            top = math.exp(float(queries[i] @ passages[p]) / temperature)
            rest = 0.0
            for n in range(len(passages)):
                if allowed[i, n] and not positive[i, n]:
                    rest += math.exp(float(queries[i] @ passages[n]) / temperature)
            losses.append(-math.log(top / (top + rest)))
    return sum(losses) / len(losses)


def unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1).float()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
def test_equals_the_slow_textbook_version(seed: int, temperature: float) -> None:
    queries, passages = unit(5, 8, seed=seed), unit(11, 8, seed=seed + 100)
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(5, 11, generator=generator) < 0.25
    positive[0, 0] = True
    allowed = torch.rand(5, 11, generator=generator) < 0.6
    fast = info_nce(queries, passages, positive, allowed, temperature)
    expected = slow(queries.double(), passages.double(), positive, allowed, temperature)
    assert float(fast) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_one_positive_is_cross_entropy() -> None:
    queries, passages = unit(4, 8, seed=1), unit(4, 8, seed=2)
    positive = torch.eye(4, dtype=torch.bool)
    loss = info_nce(queries, passages, positive, torch.ones(4, 4, dtype=torch.bool), 0.05)
    expected = torch.nn.functional.cross_entropy(queries @ passages.T / 0.05, torch.arange(4))
    torch.testing.assert_close(loss, expected)


def test_what_is_not_allowed_has_no_gradient() -> None:
    queries, passages = unit(1, 8, seed=3), unit(4, 8, seed=4).requires_grad_()
    positive = torch.tensor([[True, False, False, False]])
    allowed = torch.tensor([[False, True, False, True]])
    info_nce(queries, passages, positive, allowed, 0.1).backward()
    assert passages.grad is not None
    assert passages.grad.abs().sum(1).gt(0).tolist() == [True, True, False, True]


def test_other_positives_of_a_query_are_not_in_its_denominator() -> None:
    queries, passages = unit(1, 8, seed=5), unit(3, 8, seed=6)
    allowed = torch.ones(1, 3, dtype=torch.bool)
    both = info_nce(queries, passages, torch.tensor([[True, True, False]]), allowed, 0.1)
    first = info_nce(queries, passages[[0, 2]], torch.tensor([[True, False]]), allowed[:, :2], 0.1)
    second = info_nce(queries, passages[[1, 2]], torch.tensor([[True, False]]), allowed[:, :2], 0.1)
    torch.testing.assert_close(both, (first + second) / 2)


def test_without_negatives_loss_and_gradient_are_zero() -> None:
    queries, passages = unit(1, 8, seed=7).requires_grad_(), unit(1, 8, seed=8)
    loss = info_nce(queries, passages, torch.tensor([[True]]), torch.tensor([[True]]), 0.02)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert queries.grad is not None
    assert queries.grad.eq(0).all()


def test_no_positive_is_refused() -> None:
    none = torch.zeros(1, 2, dtype=torch.bool)
    with pytest.raises(DataError, match="without a positive"):
        info_nce(unit(1, 4, seed=0), unit(2, 4, seed=1), none, ~none, 0.1)
