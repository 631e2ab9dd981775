"""Packing changes nothing, and what the agent did not write has no say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.agent.advantage import gae
from agentic_r.agent.batch import pack, padded, score, table
from agentic_r.agent.loss import policy_term, token_weights, weighted
from agentic_r.agent.tokens import Sample


def sample(number: int, pattern: str, seed: int = 0) -> Sample:
    """A pattern of e (environment) and a (agent), with random ids."""
    make = torch.Generator().manual_seed(1000 * seed + number)
    ids = torch.randint(2, 290, (len(pattern),), generator=make).tolist()
    own = tuple(letter == "a" for letter in pattern)
    return Sample(("", str(number)), tuple(ids), own, tuple(-1.0 - n for n in range(sum(own))))


PATTERNS = ["eeaa", "e" * 9 + "aaaeeeaa", "eaaaaaaeeea", "eea", "e" * 20 + "a" * 5, "eeaeaea"]
patterns = st.lists(
    st.from_regex(r"e{1,6}(a{1,4}e{0,4}){0,3}a", fullmatch=True), min_size=1, max_size=9
)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=torch.float64, attn_implementation="sdpa"
    )
    return loaded.eval()


@given(patterns, st.integers(1, 64))
def test_every_written_token_is_there_once(found: list[str], micro: int) -> None:
    samples = [sample(n, pattern) for n, pattern in enumerate(found)]
    seen = set()
    for packed in pack(samples, micro):
        width = packed.ids.shape[1]
        assert packed.ids.shape[0] == 1 or packed.ids.numel() <= micro
        for at, target, owner, place in zip(
            packed.before.tolist(),
            packed.targets.tolist(),
            packed.owner.tolist(),
            packed.place.tolist(),
            strict=True,
        ):
            own = [t for t, w in enumerate(samples[owner].written) if w]
            row, column = divmod(at, width)
            assert target == samples[owner].ids[own[place]]
            assert int(packed.ids[row, column]) == samples[owner].ids[own[place] - 1]
            assert int(packed.positions[row, column]) == own[place] - 1
            assert int(packed.segments[row, column]) == owner + 1
            seen.add((owner, place))
    assert len(seen) == sum(len(s.logprobs) for s in samples)
    assert int(table(samples).sum()) == len(seen)


def filled(model: Any, batches: Any, samples: list[Sample]) -> torch.Tensor:
    out = torch.zeros(table(samples).shape, dtype=torch.float64)
    for packed in batches:
        out[packed.owner, packed.place] = score(model, packed).logprobs.double()
    return out


@pytest.mark.parametrize("micro", [1, 60, 10_000])
def test_packed_samples_do_not_see_each_other(model: Any, micro: int) -> None:
    samples = [sample(n, pattern) for n, pattern in enumerate(PATTERNS)]
    with torch.no_grad():
        got = filled(model, pack(samples, micro), samples)
        alone = torch.zeros_like(got)
        for number, one in enumerate(samples):
            row = score(model, padded([one])).logprobs
            alone[number, : row.numel()] = row.double()
        side = filled(model, [padded(samples)], samples)
    torch.testing.assert_close(got, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(side, alone, rtol=0, atol=1e-5)


def gradient(model: Any, samples: list[Sample], micro: int) -> list[torch.Tensor]:
    weights = token_weights(table(samples), "token")
    model.zero_grad()
    for packed in pack(samples, micro):
        written = score(model, packed)
        at = (packed.owner, packed.place)
        term = policy_term(written.logprobs, written.logprobs.detach() - 0.1, torch.ones(()))
        weighted(weights[at], term.loss).backward()  # type: ignore[no-untyped-call]
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_micro_batches_give_the_gradient_of_the_whole(model: Any) -> None:
    samples = [sample(n, pattern) for n, pattern in enumerate(PATTERNS)]
    whole = gradient(model, samples, 10_000)
    for other in (1, 60):
        for a, b in zip(whole, gradient(model, samples, other), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


class Leaf(torch.nn.Module):
    """A model whose logits are a parameter: what reaches them is seen directly."""

    def __init__(self, rows: int, width: int, vocabulary: int) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(3)
        self.logits = torch.nn.Parameter(
            torch.randn(rows, width, vocabulary, generator=make, dtype=torch.float64)
        )
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace())

    @property
    def base_model(self) -> Any:
        return self

    def forward(self, **_: Any) -> Any:
        return SimpleNamespace(last_hidden_state=self.logits)

    def get_output_embeddings(self) -> Any:
        return torch.nn.Identity()


def test_the_gradient_at_what_was_shown_is_exactly_0() -> None:
    samples = [sample(n, pattern) for n, pattern in enumerate(PATTERNS)]
    packed = padded(samples)
    model = Leaf(*packed.ids.shape, 300)
    written = score(model, packed)
    weights = token_weights(table(samples), "token")[packed.owner, packed.place]
    term = policy_term(written.logprobs, written.logprobs.detach() - 0.3, torch.ones(()))
    (weighted(weights, term.loss) + weighted(weights, written.entropy)).backward()  # type: ignore[no-untyped-call]
    grad = model.logits.grad
    assert grad is not None
    reached = torch.zeros(packed.ids.numel(), dtype=torch.bool)
    reached[packed.before] = True
    flat = grad.flatten(0, 1)
    assert bool((flat[~reached] == 0).all())
    assert bool((flat[reached].abs().sum(-1) > 0).all())


def test_other_targets_at_what_was_shown_change_no_bit() -> None:
    """Ids of the environment are read by the model, never aimed at: the logits are held fixed."""
    results = []
    for shift in (0, 1, 77):
        samples = []
        for number, pattern in enumerate(PATTERNS):
            one = sample(number, pattern)
            ids = tuple(
                i if own else 2 + (i + shift) % 280
                for i, own in zip(one.ids, one.written, strict=True)
            )
            samples.append(Sample(one.key, ids, one.written, one.logprobs))
        packed = padded(samples)
        model = Leaf(*packed.ids.shape, 300)
        written = score(model, packed)
        weights = token_weights(table(samples), "sequence")[packed.owner, packed.place]
        loss = weighted(
            weights, policy_term(written.logprobs, written.logprobs.detach(), torch.ones(())).loss
        )
        loss.backward()  # type: ignore[no-untyped-call]
        results.append((loss.detach(), model.logits.grad))
    for loss, grad in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(grad, results[0][1])


@given(st.integers(0, 10_000))
def test_other_values_and_rewards_where_nothing_was_written_change_no_bit(seed: int) -> None:
    make = torch.Generator().manual_seed(seed)
    mask = torch.rand(5, 9, generator=make) < 0.5
    rewards, values, old = (torch.randn(5, 9, generator=make) for _ in range(3))
    results = []
    for junk in (0.0, 3.0, -torch.inf, torch.nan):
        r, v, o = (part.where(mask, junk) for part in (rewards, values, old))
        advantages, targets = gae(r, v, mask, lam=0.9)
        logprobs = torch.full((5, 9), -1.0, requires_grad=True)
        loss = weighted(token_weights(mask, "token"), policy_term(logprobs, o, advantages).loss)
        (grad,) = torch.autograd.grad(loss, logprobs)
        results.append((advantages, targets, loss.detach(), grad.where(mask, 0.0)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))
