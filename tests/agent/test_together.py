"""Two processes train an agent by reward as one: figures, weights; one searches for both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.launching import launch

PROGRAM = """
import json, sys
from dataclasses import replace
from pathlib import Path
import msgspec, torch
from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.agent.learning import Practice
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.together import Job, learn
from agentic_r.settings import RLConfig
from agentic_r.testing import TableRetriever
from agentic_r.training.jobs import dismiss, work
from agentic_r.training.processes import join
from agentic_r.types import Passage, Question

torch.set_num_threads(1)
model, out, *cases = sys.argv[1:]
if join().rank:
    sys.exit(work())
questions = [Question(str(n), f"the ba of {n}?", ("x",), "nq") for n in range(7)]

class Counting(TableRetriever):
    asked = 0
    def search(self, queries, k):
        Counting.asked += len(queries)
        return super().search(queries, k)

practice = Practice(
    Counting({}, [Passage("p", "the bag of cat was near dog", "A")]),
    SearchR1("Question: {question}\\n"), 1, "query", 3, 12,
)
found = {}
for number, case in enumerate(cases):
    method, changes = json.loads(case)
    config = msgspec.convert(
        dict(steps=3, questions=4, samples=2, learning_rate=1e-3, critic_learning_rate=1e-2,
             mini_batch=3, micro_tokens=120, validate_every=2, validate_questions=3, save_every=1,
             guard=dict(on_collapse="ignore"), reward=dict(em=0.0, function="earned:short"))
        | changes,
        RLConfig,
    )
    folder = Path(out) / str(number)
    job = Job(model, 8, config, method, 3, practice, questions, questions, folder)
    if config.shard and join().size == 1:
        job = replace(job, config=msgspec.structs.replace(config, shard=False))
    elif config.shard:  # stopped after two steps, and started again
        learn(replace(job, config=msgspec.structs.replace(config, steps=2)))
    learned = learn(job)
    best = torch.load(folder / "checkpoints" / "step-0000003.pt", weights_only=True)
    found[case] = {
        "curve": [{k: v for k, v in row.items() if "seconds" not in k} for row in learned.curve],
        "searches": Counting.asked,
        "weights": {
            name: tensor.flatten()[:50].tolist()
            for name, tensor in best["reinforcer"]["policy"]["agent"].items()
        },
        "saved": {
            name: tensor.float().flatten()[:50].tolist()
            for name, tensor in LocalLLM(str(folder / "model")).model.state_dict().items()
        },
    }
dismiss()
Path(out, "found.json").write_text(json.dumps(found))
"""

REWARD = """
def short(trajectory):
    first = trajectory.turns[0]
    return float(first.status == "search") + 1.0 / len(first.tokens or (1,) * 9)
"""

CASES: list[tuple[str, dict[str, Any]]] = [
    ("ppo", {"kl": "reward"}),
    ("grpo", {"kl": "loss", "kl_kind": "k3", "averaging": "sequence", "epochs": 2}),
    ("ppo", {"kl": "reward", "critic": "model", "shard": True}),
    (
        "grpo",
        {
            **{"kl": "loss", "kl_kind": "k3", "averaging": "sequence", "epochs": 2},
            **{"shard": True, "gradient_checkpointing": True, "micro_tokens": 60},
        },
    ),
    ("reinforce++", {"questions": 1, "samples": 1, "shard": True}),
    ("reinforce++", {"questions": 1, "samples": 1, "old_logprobs": "recomputed"}),
]


@pytest.fixture(scope="module")
def both(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("processes")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "earned.py").write_text(REWARD)
    cases = [json.dumps(case) for case in CASES]
    for size in (1, 2):
        (folder / str(size)).mkdir()
        program = [str(folder / "program.py"), str(model_folder), str(folder / str(size)), *cases]
        for done in launch(program, size):
            assert done.returncode == 0, done.stderr
    return {name: json.loads((folder / name / "found.json").read_text()) for name in ("1", "2")}


@pytest.mark.parametrize("case", [json.dumps(case) for case in CASES])
def test_two_processes_train_as_one(both: dict[str, Any], case: str) -> None:
    alone, two = both["1"][case], both["2"][case]
    assert len(two["curve"]) == 4  # step 0 is the first validation
    for a, b in zip(alone["curve"], two["curve"], strict=True):
        assert b == pytest.approx(a, abs=2e-5, rel=1e-4)
    # The first process searched for both.
    assert two["searches"] == alone["searches"] > 0
    for name, weights in alone["weights"].items():
        torch.testing.assert_close(
            torch.tensor(two["weights"][name]), torch.tensor(weights), atol=5e-5, rtol=0
        )
    assert two["saved"].keys() == alone["saved"].keys()
    for name, weights in alone["saved"].items():  # in bfloat16
        torch.testing.assert_close(
            torch.tensor(two["saved"][name]), torch.tensor(weights), atol=5e-4, rtol=1e-2
        )
