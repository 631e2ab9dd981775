from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from agentic_r.errors import DataError
from agentic_r.retriever.loss import (
    accuracy,
    info_nce,
    listwise_kl,
    matryoshka,
    multi_positive,
    plain_cross_entropy,
    rank_net,
)


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


@pytest.mark.parametrize("seed", range(4))
def test_multi_positive_equals_the_textbook(seed: int) -> None:
    queries, passages = unit(4, 8, seed=seed), unit(9, 8, seed=seed + 50)
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(4, 9, generator=generator) < 0.3
    positive[0] = False
    positive[1, 2] = True
    allowed = torch.rand(4, 9, generator=generator) < 0.6
    losses = []
    for i in range(4):
        good = [math.exp(float(queries[i] @ passages[p]) / 0.1) for p in range(9) if positive[i, p]]
        bad = [
            math.exp(float(queries[i] @ passages[p]) / 0.1)
            for p in range(9)
            if allowed[i, p] and not positive[i, p]
        ]
        if good:
            losses.append(-math.log(sum(good) / (sum(good) + sum(bad))))
    found = multi_positive(queries, passages, positive, allowed, 0.1)
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def graded_targets(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 4, (4, 9), generator=generator).float() / 3
    targets[torch.rand(4, 9, generator=generator) < 0.4] = torch.nan
    targets[3] = torch.nan
    return targets


@pytest.mark.parametrize("seed", range(4))
def test_listwise_kl_equals_the_textbook(seed: int) -> None:
    queries, passages = unit(4, 8, seed=seed), unit(9, 8, seed=seed + 50)
    targets = graded_targets(seed)
    losses = []
    for i in range(4):
        rows = [p for p in range(9) if not math.isnan(float(targets[i, p]))]
        if len(rows) < 2:
            continue
        wanted = [math.exp(float(targets[i, p]) / 0.5) for p in rows]
        given = [math.exp(float(queries[i] @ passages[p]) / 0.2) for p in rows]
        losses.append(
            sum(
                t / sum(wanted) * math.log((t / sum(wanted)) / (m / sum(given)))
                for t, m in zip(wanted, given, strict=True)
            )
        )
    found = listwise_kl(queries, passages, targets, 0.2, 0.5)
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_rank_net_equals_the_textbook(seed: int) -> None:
    queries, passages = unit(4, 8, seed=seed), unit(9, 8, seed=seed + 50)
    targets = graded_targets(seed)
    losses = []
    for i in range(4):
        for a in range(9):
            for b in range(9):
                if float(targets[i, a]) > float(targets[i, b]):
                    gap = float(queries[i] @ passages[a] - queries[i] @ passages[b]) / 0.3
                    losses.append(math.log(1 + math.exp(-gap)))
    found = rank_net(queries, passages, targets, 0.3)
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


@pytest.mark.parametrize("loss", [rank_net, lambda q, p, t, s: listwise_kl(q, p, t, s, 0.5)])
def test_without_grades_the_graded_losses_and_their_gradients_are_zero(loss: Any) -> None:
    queries, passages = unit(2, 8, seed=1).requires_grad_(), unit(3, 8, seed=2)
    value = loss(queries, passages, torch.full((2, 3), torch.nan), 0.1)
    value.backward()
    assert float(value.detach()) == 0.0
    assert queries.grad is not None
    assert queries.grad.eq(0).all()


def test_plain_cross_entropy_counts_every_copy_as_upstream_does() -> None:
    # Contracts B7, literally: 2 queries x 3 passages in one flat list, the label of query i is
    # 3 * i; a passage that two lists share is there twice, and is a negative of its own query.
    queries, passages = unit(2, 8, seed=1), unit(4, 8, seed=2)
    listed = [(0, 1, 2), (3, 1, 0)]
    flat = torch.stack([passages[row] for rows in listed for row in rows])
    scores = queries.double() @ flat.double().T / 0.01
    expected = 0.0
    for i in range(2):
        denominator = torch.logsumexp(scores[i], 0)
        expected += float(denominator - scores[i, 3 * i]) / 2
    found = plain_cross_entropy(queries, passages, listed, 0.01)
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_matryoshka_is_the_mean_over_cut_rows_of_unit_length() -> None:
    queries, passages = unit(3, 8, seed=3), unit(5, 8, seed=4)
    positive, allowed = torch.eye(3, 5, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)
    nested = matryoshka(lambda q, p: info_nce(q, p, positive, allowed, 0.1), (8, 4, 2))
    parts = []
    for d in (8, 4, 2):
        cut_q = torch.stack([row[:d] / row[:d].norm() for row in queries])
        cut_p = torch.stack([row[:d] / row[:d].norm() for row in passages])
        parts.append(slow(cut_q, cut_p, positive, allowed, 0.1))
    assert float(nested(queries, passages)) == pytest.approx(sum(parts) / 3, rel=1e-4)
    with pytest.raises(DataError, match="dimension 16, expected at most 8"):
        matryoshka(lambda q, p: q.sum(), (16,))(queries, passages)


def test_accuracy_counts_queries_whose_best_candidate_is_a_positive() -> None:
    queries = torch.eye(3)
    passages = torch.eye(3)[[0, 1, 1]]
    positive = torch.tensor([[True, False, False], [False, True, False], [True, False, False]])
    allowed = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    assert accuracy(queries, passages, positive, allowed) == pytest.approx(1.0)
    passages = torch.eye(3)[[1, 0, 2]]
    # Query 1's best of what it may see is passage 0, no positive; query 2's best is passage 2.
    assert accuracy(queries, passages, positive, allowed) == pytest.approx(0.0)
