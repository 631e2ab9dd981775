from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentic_r.agent.memory import longest, needs, plan, read_shape
from agentic_r.config import Config, load_config
from agentic_r.errors import ConfigError

QWEN = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
}


def config(tmp_path: Path, *overrides: tuple[str, str]) -> Config:
    path = tmp_path / "config.toml"
    path.write_text("seed = 0\n")
    return load_config(path, [("agent.train.method", "ppo"), *overrides])


def test_the_parameters_are_counted_as_the_model_has_them(model_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    for model in ("tiny", str(model_folder)):
        shape = read_shape(model)
        from agentic_r.agent.agent import tiny_checkpoint

        folder = tiny_checkpoint() if model == "tiny" else model
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder)
        counted = sum(p.numel() for p in loaded.parameters())
        assert shape.parameters == pytest.approx(counted, rel=0.002)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_the_adapters_are_counted(model_folder: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(model_folder)
    adapted = peft.get_peft_model(loaded, peft.LoraConfig(r=3, target_modules="all-linear"))
    counted = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert 3 * read_shape(str(model_folder)).adapters == counted


def test_a_7b_model_from_its_config_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    shape = read_shape(str(tmp_path))
    assert shape.parameters == pytest.approx(7.6e9, rel=0.01)
    full = config(tmp_path, ("agent.model", str(tmp_path)), ("agent.train.rl.critic", "model"))
    found = needs(full, shape, 4096)
    assert found["optimiser"] == 2 * found["weights"] == 2 * found["gradients"]
    assert "reference" not in found
    assert found["critic"] == pytest.approx(16 * 6.5e9, rel=0.02)
    said = plan(full, gpus=8, sharded=True)
    assert "7,615.6 M parameters" in said
    assert "8 GPU(s)" in said

    def share(said: str) -> float:
        (line,) = [line for line in said.splitlines() if line.startswith("optimiser")]
        return float(line.split()[1])

    # Without sharding every GPU has the whole optimiser; with it, its part of the layers'.
    assert (
        share(plan(full, gpus=8)) == share(plan(full)) == pytest.approx(8 * share(said), rel=0.01)
    )
    assert "Each GPU holds all of it" in plan(full, gpus=8)
    layers = config(
        *(tmp_path, ("agent.model", str(tmp_path)), ("agent.train.rl.shard", "true")),
        ("agent.train.rl.critic", "model"),
    )
    in_layers = shape.trunk / shape.parameters
    assert share(plan(layers, gpus=8)) == pytest.approx(
        share(plan(full)) * (1 - in_layers + in_layers / 8), rel=0.01
    )
    assert "a GPU holds all weights" in plan(layers, gpus=8)
    lora = config(tmp_path, ("agent.train.rl.lora_rank", "16"), ("agent.train.rl.kl", "loss"))
    adapted = needs(lora, shape, 4096)
    assert adapted["optimiser"] < 0.01 * found["optimiser"]
    assert "reference" not in adapted  # the model without its adapters is the reference
    again = config(tmp_path, ("agent.train.rl.gradient_checkpointing", "true"))
    assert needs(again, shape, 4096)["activations"] < 0.2 * found["activations"]


MEASURE = """
import resource, sys, torch
from pathlib import Path
from agentic_r.agent.batch import pack, score, table
from agentic_r.agent.loss import token_weights, weighted
from agentic_r.agent.tokens import Sample
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
def run(rows):
    length = 512
    written = tuple(i % 2 == 1 for i in range(length))
    ids, zeros = tuple(range(2, 2 + length // 2)) * 2, (0.0,) * (length // 2)
    samples = [Sample(("", str(n)), ids, written, zeros) for n in range(rows)]
    weights = token_weights(table(samples), "token")
    for packed in pack(samples, rows * length):
        out = score(model, packed)
        weighted(weights[packed.owner, packed.place], out.logprobs).backward()
run(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(int(sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow  # the peak of a process is another where others take the machine's memory
def test_the_activations_are_near_what_a_run_takes(tmp_path: Path) -> None:
    """Measured: the peak of a forward and backward pass of 16 rows, over that of one."""
    from agentic_r.agent.agent import tiny_checkpoint

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tiny_checkpoint()), "16"],
        capture_output=True,
        text=True,
        check=True,
    )
    measured = float(done.stdout)
    shape = read_shape("tiny")
    found = needs(config(tmp_path, ("agent.train.rl.micro_tokens", "8192")), shape, 512)
    planned = (found["activations"] + found["logits"]) * 15 / 16
    assert 0.6 * measured < planned < 1.6 * measured, (measured, planned)


def test_what_cannot_be_planned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json on this disk"):
        read_shape("nowhere")
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(ConfigError, match="cannot be read as the config"):
        read_shape(str(tmp_path))
    with pytest.raises(ConfigError, match="--gpus: got 0"):
        plan(config(tmp_path), 0)
    short = config(tmp_path, ("agent.turns", "6"), ("agent.max_tokens", "100"))
    assert longest(short) == 256 + 6 * (100 + 2 * 160)
    assert longest(config(tmp_path)) > 0
