"""How much memory a training needs and where, told before anything is loaded.

Needs the model's config.json alone. Formulas, with P parameters, t trained ones, b = 2^30 bytes:
weights and gradients 4 P and 4 t bytes, AdamW 8 t, the reference and a critic of its own likewise;
activations and logits as `_activations` says; the rollout's keys and values 2 layers heads d each
position. verl shards what learns over the GPUs; our own trainer holds all of it on each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentic_r.agent.agent import TINY, tiny_checkpoint
from agentic_r.agent.dialects import dialect as find_dialect
from agentic_r.config import Config
from agentic_r.errors import ConfigError

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """The sizes of a causal language model, as config.json has them."""

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    bias: bool
    reads: int

    @property
    def trunk(self) -> int:
        """Parameters apart from the vocabulary's."""
        q, kv = self.heads * self.head, self.kv_heads * self.head
        attention = self.width * (2 * q + 2 * kv) + (q + 2 * kv if self.bias else 0)
        return self.layers * (attention + 3 * self.width * self.inner + 2 * self.width) + self.width

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.trunk + self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def adapters(self) -> int:
        """Parameters of LoRA of rank 1 on every linear layer."""
        q, kv = self.heads * self.head, self.kv_heads * self.head
        attention = 2 * (self.width + q) + 2 * (self.width + kv)
        return self.layers * (attention + 3 * (self.width + self.inner))


def read_shape(model: str) -> Shape:
    """Read a model's config.json: a folder, the packaged agent, or a hub name on this disk.

    Raises ConfigError where there is none, or where it describes another kind of model.
    """
    folder = tiny_checkpoint() if model == TINY else Path(model)
    path = folder / "config.json"
    if not path.is_file():
        path = _cached(model)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = found.get("text_config", found)
        heads, width = found["num_attention_heads"], found["hidden_size"]
        return Shape(
            layers=found["num_hidden_layers"],
            width=width,
            inner=found["intermediate_size"],
            heads=heads,
            kv_heads=found.get("num_key_value_heads") or heads,
            head=found.get("head_dim") or width // heads,
            vocabulary=found["vocab_size"],
            tied=found.get("tie_word_embeddings", False),
            bias=found.get("attention_bias", found.get("model_type") == "qwen2"),
            reads=found.get("max_position_embeddings", 2**20),
        )
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(
            f"{path}: cannot be read as the config of a causal language model ({error!r}); "
            "expected hidden_size, num_hidden_layers and the like"
        ) from error


def _cached(model: str) -> Path:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json") if "/" in model else None
    if not isinstance(found, str):
        raise ConfigError(
            f"agent.model: {model} has no config.json on this disk; give a folder that holds one "
            "(config.json is all that --plan needs)"
        )
    return Path(found)


def needs(config: Config, shape: Shape, length: int) -> dict[str, int]:
    """Return bytes by what they are for, on one GPU, trajectories being `length` tokens long."""
    train = config.agent.train
    rl, supervised = train.rl, train.method == "supervised"
    lora = rl.lora_rank and not supervised
    trained = rl.lora_rank * shape.adapters if lora else shape.parameters
    found = {"weights": 4 * (shape.parameters + (trained if lora else 0))}
    found |= {"gradients": 4 * trained, "optimiser": 8 * trained}
    if supervised:
        batch = train.batch * length
        return found | _activations(shape, batch, length, recompute=False, half=False)
    if rl.kl != "none" and not lora:
        found["reference"] = 4 * shape.parameters
    if train.method == "ppo" and rl.critic == "model":
        found["critic"] = 16 * shape.trunk
    tokens = max(rl.micro_tokens // length, 1) * length
    found |= _activations(shape, tokens, length, rl.gradient_checkpointing, rl.precision == "bf16")
    rows = min(config.agent.batch, rl.questions * rl.samples)
    found["keys and values"] = 8 * shape.layers * shape.kv_heads * shape.head * rows * length
    return found


def _activations(
    shape: Shape, tokens: int, length: int, recompute: bool, half: bool
) -> dict[str, int]:
    """Bytes kept for the backward pass over `tokens` tokens, and the logits of the written half.

    A layer keeps about 8 vectors of the width, 4 of the inner width, the queries, keys and values
    twice, and the mask of its attention is shared; recomputed, one vector a layer is kept and one
    layer at a time is whole.
    """
    size = 2 if half else 4
    heads = 2 * (shape.heads + 2 * shape.kv_heads) * shape.head + shape.heads * shape.head
    layer = size * tokens * (8 * shape.width + 4 * shape.inner + heads)
    kept = layer + shape.layers * size * tokens * shape.width if recompute else shape.layers * layer
    logits = 4 * 4 * (tokens // 2) * shape.vocabulary
    return {"activations": kept + 4 * tokens * length, "logits": logits}


def plan(config: Config, gpus: int = 1, *, sharded: bool = False) -> str:
    """Return a table of what is needed on each of `gpus` GPUs, in GiB.

    Trajectories are taken to be as long as the settings allow, or as the model reads. `sharded`
    spreads weights, gradients, optimiser, reference and critic over the GPUs, as verl does;
    `agent.train.rl.shard` spreads the layers' share of them.
    """
    if gpus < 1:
        raise ConfigError(f"--gpus: got {gpus}, expected at least 1")
    shape = read_shape(config.agent.model)
    length = min(longest(config), shape.reads)
    found = needs(config, shape, length)
    rl = config.agent.train.rl
    layers = rl.shard and config.agent.train.method != "supervised" and not sharded
    spread = {"weights", "gradients", "optimiser", "reference", "critic"}
    spread = spread if sharded or layers else set()
    spreading = shape.trunk / shape.parameters if layers else 1.0
    lines = [
        f"{config.agent.model}: {shape.parameters / 1e6:,.1f} M parameters, method "
        f"{config.agent.train.method}, trajectories of up to {length:,} tokens, {gpus} GPU(s)",
        "",
        f"{'what':<18}{'GiB per GPU':>12}",
    ]
    total = 0.0
    for name, size in found.items():
        moved = (1.0 if name == "critic" else spreading) if name in spread else 0.0
        share = size / GIB * (1.0 - moved + moved / gpus)
        total += share
        lines.append(f"{name:<18}{share:>12.3f}")
    lines.append(f"{'all':<18}{total:>12.3f}")
    if gpus > 1:
        told = "Sharded over the GPUs: " + ", ".join(n for n in found if n in spread)
        whole = "Each GPU holds all of it; agent.train.rl.shard or --engine verl shard what learns"
        if layers:
            told += " (but for the vocabulary's share); while it draws, a GPU holds all weights"
        lines += ["", told if spread else whole]
    return "\n".join(lines)


def longest(config: Config) -> int:
    """Return how many tokens a trajectory may have: a prompt, the turns and their evidence.

    Evidence counts 160 tokens a passage, the prompt 256; turns as set, else the dialect's own.
    """
    turn = config.agent.max_tokens + 160 * config.retriever.k
    turns = config.agent.turns or find_dialect(config.agent.dialect).turns
    return 256 + turns * turn
