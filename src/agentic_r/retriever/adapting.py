"""Which weights of an encoder learn, and what it costs in memory: LoRA, gradient checkpointing."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from agentic_r.config import RetrieverTrainConfig
from agentic_r.errors import ConfigError


def prepare(model: Any, settings: RetrieverTrainConfig, seed: int) -> Any:
    """Return the model to train: with LoRA adapters and gradient checkpointing where asked.

    Raises ConfigError where LoRA is asked and peft is not installed, or the model cannot recompute.
    """
    plain = model
    if settings.lora_rank:
        model = _with_adapters(plain, settings, seed)
    if settings.gradient_checkpointing:
        _recompute(plain)
        _train_without_dropout(model)
    return model


def finish(model: Any, settings: RetrieverTrainConfig) -> Any:
    """Return the plain model: adapters merged into the weights, nothing recomputed any more."""
    if settings.lora_rank:
        model = model.merge_and_unload()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
    if settings.gradient_checkpointing:
        _method(model, "checkpointing_disable")()
    return model.eval()


def _with_adapters(model: Any, settings: RetrieverTrainConfig, seed: int) -> Any:
    try:
        import peft
    except ImportError:
        raise ConfigError(
            f"retriever.train.lora_rank: got {settings.lora_rank}, but peft is not installed; "
            "pip install 'agentic-r[lora]', or set it to 0"
        ) from None
    config = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        # peft asks transformers for something by its old name.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        torch.manual_seed(seed)  # the adapters start from random numbers
        return peft.get_peft_model(model, config).eval()


def _recompute(model: Any) -> None:
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ConfigError(
            "retriever.train.gradient_checkpointing: this encoder cannot recompute its "
            "activations; set it to false and use retriever.train.cache_tokens"
        )
    _method(model, "checkpointing_enable")({"use_reentrant": False})


def _method(model: Any, name: str) -> Any:
    """Find a method that transformers renames: "gradient" becomes "activation"."""
    return getattr(model, f"activation_{name}", None) or getattr(model, f"gradient_{name}")


def _train_without_dropout(model: Any) -> None:
    """Enter training mode, outside which transformers recomputes nothing, with dropout at 0."""
    for module in model.train().modules():
        for name in ("p", "dropout_prob", "attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
