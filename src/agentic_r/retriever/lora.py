"""A LoRA adapter put into the weights that it belongs to, without the library that trained it.

W + scale * B A, with scale = alpha / r, or alpha / sqrt(r) where the adapter says rsLoRA (Hu et
al. 2021; Kalajdzievski 2023). What the sum does not cover is refused, not left out.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file

from agentic_r.errors import ConfigError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


class AdapterConfig(msgspec.Struct):
    """What of an adapter's configuration matters here; other fields are ignored."""

    base_model_name_or_path: str
    r: int
    lora_alpha: float
    peft_type: str = "LORA"
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    bias: str = "none"
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    modules_to_save: list[str] | None = None


def read_adapter(folder: Path) -> AdapterConfig | None:
    """Read the adapter's configuration in `folder`, None where it holds no adapter.

    Raises ConfigError for an adapter of a kind that cannot be put into the weights here.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        return None
    try:
        config = msgspec.json.decode(file.read_bytes(), type=AdapterConfig)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file}: {error}; expected the configuration of an adapter") from None
    odd = [name for name in ("use_dora", "fan_in_fan_out") if getattr(config, name)]
    odd += [name for name in ("rank_pattern", "alpha_pattern") if getattr(config, name)]
    odd += ["modules_to_save"] if config.modules_to_save else []
    odd += [f"bias = {config.bias}"] if config.bias != "none" else []
    odd += [f"peft_type = {config.peft_type}"] if config.peft_type != "LORA" else []
    if odd:
        raise ConfigError(
            f"{file}: got {', '.join(odd)}, expected a plain LoRA adapter; merge it into its base "
            "model with the library that trained it and give the merged folder"
        )
    return config


def merge(model: Any, folder: Path, config: AdapterConfig) -> None:
    """Add an adapter's weights to those of its base model, in place.

    Raises ConfigError where the file is missing or names a layer that the model does not have.
    """
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise ConfigError(f"{file}: there is no such file, expected the adapter's weights")
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(file).items():
        layer, _, part = key.removesuffix(".weight").removesuffix(".default").rpartition(".lora_")
        pairs.setdefault(layer.removeprefix("base_model.model.").removeprefix("model."), {})[
            part
        ] = tensor
    scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
    layers = {name.removeprefix("model."): layer for name, layer in model.named_modules()}
    for name, parts in pairs.items():
        layer = layers.get(name)
        if layer is None or set(parts) != {"A", "B"}:
            raise ConfigError(
                f"{file}: got weights for {name!r}, which {config.base_model_name_or_path} does "
                "not have as a linear layer; check that adapter and base model belong together"
            )
        with torch.no_grad():
            added = scale * (parts["B"].float() @ parts["A"].float())
            layer.weight += added.to(layer.weight)
