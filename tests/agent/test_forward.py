"""The lean forward pass against the library's, alone and after stems."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentic_r.agent.decode import Decoder, Row
from agentic_r.agent.forward import (
    LeanForward,
    LibraryForward,
    Reading,
    additive,
    forward_of,
    whole,
)
from agentic_r.agent.slab import PrefixStore, Slab
from agentic_r.protocols import Sampling

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 97}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "granite": {
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.4,
        "logits_scaling": 2.0,
        "attention_multiplier": 0.2,
    },
}


def model(kind: str, **more: Any) -> Any:
    config = AutoConfig.for_model(kind, **SMALL, **HEADS, **more)
    torch.manual_seed(3)
    made = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for parameter in made.parameters():  # so that no norm and no bias is without effect
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


def rows(prompts: list[list[int]], count: int = 9, **sampling: float) -> list[Row]:
    """Rows of unequal length, half of which end early."""
    return [
        Row(
            prompt, count, Sampling(max_tokens=count, **sampling), n, lambda t, n=n: len(t) > n % 12
        )
        for n, prompt in enumerate(prompts)
    ]


def ids(count: int, seed: int) -> list[int]:
    return torch.randint(0, 97, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def families() -> list[list[int]]:
    """Prompts of two large families, a small one and none, in no order."""
    first, second, third = ids(70, 1), ids(33, 2), ids(40, 3)
    found = [first + ids(3 + n, 10 + n) for n in range(9)]
    found += [second + ids(20 - n, 30 + n) for n in range(8)]
    found += [third + ids(5, 50 + n) for n in range(2)]
    found += [ids(25, 60), ids(1, 61), first[:50], first + second]
    return [found[(7 * n) % len(found)] for n in range(len(found))]


@pytest.mark.parametrize("kind", KINDS)
def test_lean_equals_the_library_for_every_architecture_it_takes(kind: str) -> None:
    found = model(kind, **KINDS[kind])
    assert isinstance(forward_of(found), LeanForward)


def test_other_architectures_are_read_by_the_library() -> None:
    gpt = AutoConfig.for_model("gpt_neox", **SMALL, num_attention_heads=4)
    other = AutoModelForCausalLM.from_config(gpt, attn_implementation="sdpa").eval()
    assert isinstance(forward_of(other), LibraryForward)


def test_a_model_that_computes_something_else_is_read_by_the_library() -> None:
    changed = model("llama")
    changed.model.layers[1].mlp.act_fn = torch.nn.Tanh()
    assert isinstance(forward_of(changed), LeanForward)  # the modules are live
    changed.model.config.residual_multiplier = 0.5  # the library's Llama knows no such thing
    assert isinstance(forward_of(changed), LibraryForward)


def test_live_weights_are_read() -> None:
    found = model("qwen2")
    lean = forward_of(found)
    with torch.no_grad():
        found.model.layers[0].mlp.up_proj.weight.mul_(-2)
    tokens, at = torch.tensor([ids(6, 4)]), torch.arange(6)[None]
    logits = lean(Reading(tokens, at, Slab(torch.zeros(2, 2, 1, 2, 6, 8)), None))
    torch.testing.assert_close(logits, found(tokens).logits[:, -1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_decoding_after_stems_equals_decoding_row_by_row(kind: str, temperature: float) -> None:
    found = model(kind, **KINDS[kind])
    together, alone = (
        rows(families(), temperature=temperature),
        rows(families(), temperature=temperature),
    )
    decoder = Decoder(found, PrefixStore(10**7, block=4), group_tokens=64)
    decoder.run(together)
    assert {row.before for row in together} == {0, 33, 70}
    for row in alone:
        Decoder(found, PrefixStore(0), group_tokens=64).run([row])
        assert row.stem is None
    assert [row.tokens for row in together] == [row.tokens for row in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-4)


def test_what_followed_a_stem_is_known_in_the_next_turn() -> None:
    found = model("llama")
    decoder = Decoder(found, PrefixStore(10**7, block=4), group_tokens=64)
    first = rows(families())
    decoder.run(first)
    longer = [row.prompt + row.tokens + ids(6, n) for n, row in enumerate(first)]
    again = rows(longer)
    known = []
    read = decoder._read
    decoder._read = lambda group, *rest: (  # type: ignore[method-assign]
        known.extend(start.row.before + start.known for start in group) or read(group, *rest)
    )
    decoder.run(again)
    assert sum(known) > 0.6 * sum(map(len, longer))
    alone = rows(longer)
    for row in alone:
        Decoder(found, PrefixStore(0), group_tokens=64).run([row])
    assert [row.tokens for row in again] == [row.tokens for row in alone]


def test_hooked_layers_are_not_read_past_their_hooks() -> None:
    found = model("llama")
    assert whole(found)
    called = []
    hook = found.model.layers[0].register_forward_pre_hook(lambda *given: called.append(1))
    assert not whole(found)
    Decoder(found, PrefixStore(10**7), group_tokens=64).run(rows([ids(5, 1)], count=2))
    assert called
    hook.remove()
    assert whole(found)


def test_additive_masks_are_finite() -> None:
    mask = additive(torch.tensor([True, False]), torch.zeros(1, dtype=torch.bfloat16))
    assert mask.tolist()[0] == 0
    assert torch.isfinite(mask).all()
