"""Layers shared out over two processes: what each holds, and what they compute together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from agentic_r.agent.local import LocalLLM
from agentic_r.errors import ConfigError
from agentic_r.training.processes import ALONE
from agentic_r.training.sharding import clip, is_sharded, part, shard, whole
from tests.training.launching import launch

PROGRAM = """
import copy, json, sys
import torch
from agentic_r.agent.local import LocalLLM
from agentic_r.training.processes import join
from agentic_r.training.sharding import clip, gathered, is_sharded, part, shard, whole

torch.set_num_threads(1)
processes = join()
alone = LocalLLM(sys.argv[1]).model.requires_grad_(True)
model = copy.deepcopy(alone)
layers = shard(model, processes, torch.device("cpu"))
found = {"layers": len(layers)}
split = [p for p in model.parameters() if is_sharded(p)]
found["held"] = sum(p.to_local().numel() for p in split)
found["all"] = sum(p.numel() for p in split)

ids = torch.arange(24).reshape(4, 6) % 20
with torch.no_grad(), gathered(layers):  # as many passes as a process likes
    for _ in range(1 + 2 * processes.rank):
        read = model(ids).logits
    found["read"] = float((read - alone(ids).logits).abs().max())
found["again"] = all(is_sharded(p) for p in split)

model(ids[processes.rank :: 2]).logits.square().sum().backward()
processes.sum_gradients(p for p in model.parameters() if not is_sharded(p))
alone(ids).logits.square().sum().backward()
norm = float(clip(list(model.parameters()), 1.0))
found["norms"] = [norm, float(torch.nn.utils.clip_grad_norm_(alone.parameters(), 1.0))]
pairs = list(zip(model.parameters(), alone.parameters(), strict=True))
found["gradients"] = max(float((whole(a.grad) - b.grad).abs().max()) for a, b in pairs)
found["parts"] = all(
    torch.equal(part(whole(p), p).to_local(), p.to_local()) and torch.equal(whole(p), q)
    for p, q in pairs if is_sharded(p)
)
print(json.dumps(found))
"""


def test_two_processes_hold_half_each_and_compute_as_one(
    model_folder: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    for done in launch([str(program), str(model_folder)], 2):
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["layers"] >= 2
        assert found["held"] == found["all"] / 2
        assert found["again"] and found["parts"]
        assert found["read"] < 1e-5
        assert found["norms"][0] == pytest.approx(found["norms"][1], rel=1e-5)
        assert found["gradients"] < 1e-6


def test_what_is_whole_stays_as_it_is() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), 2.0)
    assert not is_sharded(weight)
    assert whole(weight) is weight and part(weight, None) is weight and whole("text") == "text"
    assert float(clip([weight], 1.0).detach()) == pytest.approx(12**0.5)
    assert float(weight.grad.norm()) == pytest.approx(1.0)


def test_a_model_that_does_not_name_its_layers_is_refused(model_folder: Path) -> None:
    model = LocalLLM(str(model_folder)).model
    model._no_split_modules = None
    with pytest.raises(ConfigError, match=r"agent.train.rl.shard: .* does not name its layers"):
        shard(model, ALONE, torch.device("cpu"))
