from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from agentic_r.errors import ConfigError
from agentic_r.retriever.encoder import Encoder

LAYER = "encoder.layer.1.attention.self.query"


def adapter(folder: Path, base: Path, name: str = LAYER, **config: object) -> Path:
    """Write an adapter as the library that trains them does."""
    folder.mkdir()
    torch.manual_seed(3)
    prefix = f"base_model.model.{name}"
    weights = {
        f"{prefix}.lora_A.weight": torch.randn(4, 32),
        f"{prefix}.lora_B.weight": torch.randn(32, 4),
    }
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {
        "base_model_name_or_path": str(base),
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["query"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    return folder


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 8 / math.sqrt(4))])
def test_an_adapter_is_added_to_its_base(
    tmp_path: Path, checkpoint: Path, encoder: Encoder, rslora: bool, scale: float
) -> None:
    folder = adapter(tmp_path / "lora", checkpoint, use_rslora=rslora)
    loaded = Encoder.load(str(folder), 32)
    torch.manual_seed(3)
    a, b = torch.randn(4, 32), torch.randn(32, 4)
    before = encoder.model.get_submodule(LAYER).weight
    after = loaded.model.get_submodule(LAYER).weight
    torch.testing.assert_close(after, before + scale * b @ a)
    assert loaded.fingerprint != encoder.fingerprint
    texts = ["kavron was born", "telmi"]
    assert not np.allclose(loaded.encode(texts, "query"), encoder.encode(texts, "query"))
    # Saved, it is a model of its own.
    loaded.save(tmp_path / "merged")
    assert Encoder.load(str(tmp_path / "merged")).fingerprint == loaded.fingerprint


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias = all"),
        ({"modules_to_save": ["pooler"]}, "modules_to_save"),
        ({"rank_pattern": {"query": 2}}, "rank_pattern"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"r": "four"}, "r"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    tmp_path: Path, checkpoint: Path, config: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        Encoder.load(str(adapter(tmp_path / "lora", checkpoint, **config)), 32)


def test_a_layer_that_the_model_lacks_is_named(tmp_path: Path, checkpoint: Path) -> None:
    folder = adapter(tmp_path / "lora", checkpoint, name="layers.9.q_proj")
    with pytest.raises(ConfigError, match=r"layers\.9\.q_proj"):
        Encoder.load(str(folder), 32)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="adapter_model"):
        Encoder.load(str(folder), 32)
