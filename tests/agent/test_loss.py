"""Every term against its definition with plain floats, and what a weight of 0 means."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from agentic_r.agent.loss import (
    entropy_term,
    importance,
    kl_term,
    policy_term,
    token_weights,
    value_term,
    weighted,
)

SEEDS = range(6)


def batch(seed: int) -> dict[str, torch.Tensor]:
    make = torch.Generator().manual_seed(seed)
    shape = (7, 11)

    def draw(scale: float) -> torch.Tensor:
        return scale * torch.randn(shape, generator=make, dtype=torch.float64)

    mask = torch.rand(shape, generator=make) < 0.5
    mask[:, 2] = True
    mask[4] = False
    logprobs = -draw(1.0).abs()
    return {
        "mask": mask,
        "logprobs": logprobs,
        "old": logprobs + draw(0.4),
        "advantages": draw(1.0),
        "values": draw(1.0),
        "targets": draw(1.0),
    }


def slow_mean(term: torch.Tensor, mask: torch.Tensor, averaging: str) -> float:
    rows = [
        [x for x, m in zip(t, k, strict=True) if m]
        for t, k in zip(term.tolist(), mask, strict=True)
    ]
    if averaging == "token":
        return sum(map(sum, rows)) / sum(map(len, rows))
    means = [sum(row) / len(row) for row in rows if row]
    return sum(means) / len(means)


def slow_policy(new: float, old: float, a: float, low: float, high: float, dual: float) -> float:
    ratio = math.exp(new - old)
    gain = min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a)
    if dual and a < 0:
        gain = max(gain, dual * a)
    return -gain


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("averaging", ["token", "sequence"])
@pytest.mark.parametrize(
    ("low", "high", "dual"), [(0.2, 0.2, 0.0), (0.2, 0.28, 0.0), (0.1, 0.3, 3.0), (0.2, 0.2, 1.2)]
)
def test_policy_loss(seed: int, averaging: Any, low: float, high: float, dual: float) -> None:
    b = batch(seed)
    term = policy_term(
        b["logprobs"], b["old"], b["advantages"], clip_low=low, clip_high=high, dual_clip=dual
    )
    slow = torch.zeros_like(term.loss)
    for row in range(slow.shape[0]):
        for t in range(slow.shape[1]):
            at = (float(b[name][row, t]) for name in ("logprobs", "old", "advantages"))
            slow[row, t] = slow_policy(*at, low, high, dual)
    torch.testing.assert_close(term.loss, slow, rtol=0, atol=1e-9)
    got = weighted(token_weights(b["mask"], averaging), term.loss)
    assert float(got) == pytest.approx(slow_mean(slow, b["mask"], averaging), abs=1e-9)


@pytest.mark.parametrize("averaging", ["token", "sequence"])
def test_micro_batches_add_up(averaging: Any) -> None:
    b = batch(0)
    weights = token_weights(b["mask"], averaging)
    whole = weighted(weights, b["values"])
    parts = sum(weighted(weights[rows], b["values"][rows]) for rows in ([0, 1, 2], [3, 4], [5, 6]))
    torch.testing.assert_close(whole, parts)
    assert float(weights.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimates(kind: Any) -> None:
    """Against the sum over a whole vocabulary: k1 and k3 are unbiased, k2's gradient is right."""
    make = torch.Generator().manual_seed(1)
    policy = torch.randn(6, generator=make, dtype=torch.float64, requires_grad=True)
    reference = policy.detach() + 0.3 * torch.randn(6, generator=make, dtype=torch.float64)
    p, q = policy.log_softmax(-1), reference.log_softmax(-1)
    exact = (p.exp() * (p - q)).sum()
    term = kl_term(p, q, kind)
    if kind == "k2":
        (wanted,) = torch.autograd.grad(exact, policy, retain_graph=True)
        (got,) = torch.autograd.grad((p.exp().detach() * term).sum(), policy)
        torch.testing.assert_close(got, wanted)
    else:
        torch.testing.assert_close((p.exp() * term).sum(), exact)
    if kind != "k1":
        assert bool((term >= 0).all())


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_value_loss(clip: float) -> None:
    b = batch(2)
    got = value_term(b["values"], b["old"], b["targets"], clip=clip)
    for at in ((0, 0), (3, 5), (6, 10)):
        value, old, target = (float(b[name][at]) for name in ("values", "old", "targets"))
        near = min(max(value, old - clip), old + clip) if clip else value
        wanted = max((value - target) ** 2, (near - target) ** 2) / 2
        assert float(got[at]) == pytest.approx(wanted, abs=1e-12)


def test_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert entropy_term(logits).tolist() == pytest.approx([math.log(4), 0.0], abs=1e-9)


def test_where_the_weight_is_0_nothing_is_read() -> None:
    b = batch(3)
    weights = token_weights(b["mask"], "token")
    results = []
    for junk in (0.0, 5.0, torch.inf, torch.nan):
        logprobs = b["logprobs"].where(b["mask"], junk).requires_grad_()
        term = policy_term(logprobs, b["old"], b["advantages"].where(b["mask"], junk))
        loss = weighted(weights, term.loss)
        (gradient,) = torch.autograd.grad(loss, logprobs)
        results.append((loss, gradient[b["mask"]]))
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.fixture(scope="module")
def core() -> Any:
    return pytest.importorskip("verl.trainer.ppo.core_algos", exc_type=ImportError)


@pytest.mark.filterwarnings("ignore::FutureWarning")
class TestVerl:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("averaging", ["token", "sequence"])
    def test_terms(self, core: Any, seed: int, averaging: Any) -> None:
        b = batch(seed)
        mode = {"token": "token-mean", "sequence": "seq-mean-token-mean"}[averaging]
        mask = b["mask"].double()
        weights = token_weights(b["mask"], averaging)
        theirs = core.compute_value_loss(
            vpreds=b["logprobs"],
            returns=b["targets"],
            values=b["values"],
            response_mask=mask,
            cliprange_value=0.5,
            loss_agg_mode=mode,
        )[0]
        ours = weighted(weights, value_term(b["logprobs"], b["values"], b["targets"], clip=0.5))
        assert float(ours) == pytest.approx(float(theirs), abs=1e-6)
        for kind, name in (("k1", "kl"), ("k2", "mse"), ("k3", "low_var_kl")):
            got = kl_term(b["logprobs"], b["old"], kind)  # type: ignore[arg-type]
            wanted = core.kl_penalty(b["logprobs"], b["old"], name)
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
        theirs = core.compute_policy_loss(
            old_log_prob=b["old"],
            log_prob=b["logprobs"],
            advantages=b["advantages"],
            response_mask=mask,
            cliprange_low=0.2,
            cliprange_high=0.28,
            clip_ratio_c=3.0,
            loss_agg_mode=mode,
        )[0]
        term = policy_term(b["logprobs"], b["old"], b["advantages"], clip_high=0.28, dual_clip=3.0)
        assert float(weighted(weights, term.loss)) == pytest.approx(float(theirs), abs=1e-6)


def test_importance_is_the_capped_ratio_without_a_gradient() -> None:
    trained = torch.tensor([-1.0, -2.0, -0.5, -60.0], requires_grad=True)
    drawn = torch.tensor([-1.0, -1.0, -3.0, -1.0])
    found = importance(trained, drawn, 2.0)
    pairs = zip(trained.tolist(), drawn.tolist(), strict=True)
    slow = [min(math.exp(max(t - d, -20.0)), 2.0) for t, d in pairs]
    torch.testing.assert_close(found, torch.tensor(slow))
    assert not found.requires_grad
