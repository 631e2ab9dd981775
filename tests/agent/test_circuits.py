from __future__ import annotations

from typing import Any

import pytest
import torch

from agentic_r.agent.circuits import induce
from agentic_r.agent.tiny import build_model

VOCABULARY = 875


def plain_model(**settings: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = {"num_attention_heads": 4, "num_key_value_heads": 4, **settings}
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=128,
            num_hidden_layers=2,
            tie_word_embeddings=True,
            rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
            initializer_range=0.06,
            attn_implementation="eager",
            **shape,
        )
    ).eval()


def repeated(rows: int, size: int, seed: int) -> torch.Tensor:
    """Random tokens, then the same tokens again: [rows, 2 * size]."""
    generator = torch.Generator().manual_seed(seed)
    once = torch.stack(
        [torch.randperm(VOCABULARY - 10, generator=generator)[:size] + 10 for _ in range(rows)]
    )
    return torch.cat([once, once], dim=1)


@torch.no_grad()
def copied(model: Any, size: int = 60) -> float:
    """How often the first choice is the token that followed when the current one came before."""
    ids = repeated(8, size, seed=1)
    best = model(input_ids=ids).logits.argmax(-1)
    return float((best[:, size:-1] == ids[:, size + 1 :]).float().mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_copying_works_before_any_training(seed: int) -> None:
    model = build_model(VOCABULARY, seed).eval()
    assert copied(model) > 100 / VOCABULARY  # a hundred times what guessing gives


def test_copying_comes_from_the_circuits() -> None:
    model = plain_model()
    assert copied(model) < 5 / VOCABULARY
    induce(model)
    assert copied(model) > 200 / VOCABULARY


def test_two_heads_of_the_second_layer_find_what_came_after() -> None:
    model, size = plain_model(), 60
    induce(model)
    with torch.no_grad():
        ids = repeated(8, size, seed=3)
        found = model(input_ids=ids, output_attentions=True).attentions[1]
    wanted = torch.arange(size, 2 * size - 1) - size + 1
    looked = (found[:, :, size:-1].argmax(-1) == wanted).float().mean(dim=(0, 2)).tolist()
    assert min(looked[:2]) > 0.3
    assert max(looked[2:]) < 0.1


def test_two_heads_look_one_and_two_tokens_back() -> None:
    model = plain_model()
    induce(model)
    with torch.no_grad():
        found = model(input_ids=repeated(2, 40, seed=2), output_attentions=True).attentions[0]
    for head, distance in ((0, 1), (1, 2)):
        best = found[:, head].argmax(-1)
        places = torch.arange(10, best.shape[1])
        looked = (best[:, 10:] == places - distance).float().mean()
        assert float(looked) > 0.95


def test_the_seed_alone_moves_it() -> None:
    models = [plain_model() for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        induce(model, seed)
    weights = [model.model.layers[1].self_attn.q_proj.weight for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="as many key-value heads as heads"):
        induce(plain_model(num_key_value_heads=2))
