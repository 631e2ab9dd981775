"""The optimiser step that all trainings of an agent share."""

from __future__ import annotations

import pytest
import torch

from agentic_r.agent.descent import Descent, arithmetic, rising, rising_then_falling


def test_a_rate_that_rises_and_stays() -> None:
    assert [rising(4)(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert rising(0)(0) == 1


def test_a_rate_that_rises_then_falls_to_a_tenth() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    descent = Descent([weight], 1.0, rising_then_falling(20, 4))
    rates = []
    for _ in range(20):
        rates.append(descent.rate)
        descent.step()
        descent.advance()
    assert rates[:3] == sorted(rates[:3])
    assert rates[0] == pytest.approx(0.25, abs=0.01)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert descent.rate == pytest.approx(0.1)


def test_a_fall_begins_where_it_is_told() -> None:
    scale = rising_then_falling(100, 1, decay_from=0.5)
    assert [scale(step) for step in (0, 25, 50)] == pytest.approx([1, 1, 1])
    assert scale(75) == pytest.approx(0.55)


def test_the_gradient_is_cut_and_dropped() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    descent = Descent([weight], 0.1, rising(0), max_norm=1.0)
    weight.grad = torch.tensor([30.0, 40.0])
    assert descent.step() == pytest.approx(50.0)
    assert weight.grad is None
    # Adam's first step is the rate along the sign, after weight decay.
    assert weight.tolist() == pytest.approx([1 - 0.001 - 0.1] * 2, abs=1e-4)


def test_slowed_down_it_stays_slow() -> None:
    descent = Descent([torch.nn.Parameter(torch.zeros(1))], 1.0, rising(2))
    descent.slow_down(0.5)
    rates = [descent.rate]
    for _ in range(3):
        descent.step()
        descent.advance()
        rates.append(descent.rate)
    assert rates == [0.25, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_products_are_computed_in_the_precision_and_gradients_in_full(precision: str) -> None:
    layer = torch.nn.Linear(4, 4)
    with arithmetic(precision, "cpu"):
        made = layer(torch.ones(1, 4))
    assert made.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    made.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
