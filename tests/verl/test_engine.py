"""With verl itself: it takes our settings, drives our loop, and computes the advantages we do.

None of it needs a GPU or a server. Without verl these tests are skipped.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentic_r.testing import TableRetriever
from tests.verl.scripted import POISON, Engine, tokenizer
from tests.verl.test_folder import written

pytest.importorskip("verl")
pytest.importorskip("datasets")
pytest.importorskip("cachetools")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PPO = ("--agent.train.method", "ppo", "--agent.train.rl.critic", "model")
GRPO = ("--agent.train.rl.kl", "loss", "--agent.train.rl.kl_kind", "k3")
SEARCH = "<think> Now the painter </think>\n<search> birthplace </search>"


@pytest.mark.parametrize("more", [PPO, GRPO, ("--agent.train.method", "rloo")])
def test_verl_finds_our_settings_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    from agentic_r.verl.preflight import run

    folder = written(tmp_path, *more)
    assert run(folder, ("settings", "data", "lengths")) == {}
    said = capsys.readouterr().out
    assert ("a critic" in said) == (more is PPO)
    assert "All configuration checks passed" in said


def test_a_check_that_fails_is_told_and_the_others_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from agentic_r.verl.preflight import main

    folder = written(tmp_path, "--agent.train.verl.response_length", "100")
    agent = json.loads((folder / "agent.json").read_text())
    (folder / "agent.json").write_text(json.dumps(agent | {"prompt_length": 16}))
    assert main([str(folder), "--only", "data", "lengths"]) == 1
    said = capsys.readouterr().out
    assert "data       FAILED  the longest prompt has" in said
    assert "lengths    FAILED  agent.train.verl.response_length: got 100" in said


def test_verls_worker_drives_our_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from verl import DataProto
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    import agentic_r.verl.loop as loop
    from agentic_r.verl.preflight import composed

    folder = written(tmp_path)
    config: Any = composed(folder)
    words = tokenizer()
    rows = RLHFDataset([str(folder / "dev.parquet")], words, config.data)
    batch = DataProto.from_single_dict(collate_fn([rows[0], rows[1], rows[2]]))
    batch.meta_info["global_steps"] = 1
    batch.non_tensor_batch["priority"] = np.arange(3)
    gold = rows[0]["reward_model"]["ground_truth"]["target"][0]
    monkeypatch.setattr(loop, "_retriever", lambda url: TableRetriever({}, [POISON]))
    answer = f"<think> found </think>\n<answer> {gold} </answer>"
    engine = Engine(SEARCH, answer, tokenizer=words)
    # One at a time, so that the script's texts are one trajectory's.
    worker = AgentLoopWorker(config, engine)
    outputs = [asyncio.run(worker.generate_sequences(batch[at : at + 1])) for at in range(3)]
    for number, output in enumerate(outputs):
        mask = output.batch["response_mask"][0].bool()
        turns = engine.drawn[2 * number : 2 * number + 2]
        assert output.batch["responses"][0][mask].tolist() == [id for ids in turns for id in ids]
        logs = output.batch["rollout_log_probs"][0][mask]
        assert logs.tolist() == [-float(n + 1) for ids in turns for n in range(len(ids))]
        assert output.batch["rm_scores"][0].sum() == (1.0 if number == 0 else 0.0)
        # The reward stands on the last token of the response.
        at = int(output.batch["attention_mask"][0][-len(mask) :].sum()) - 1
        assert output.batch["rm_scores"][0, at] == output.batch["rm_scores"][0].sum()
    assert len(set(engine.requests)) == 3  # one a trajectory, so that prefixes are found again


def test_gae_is_verls() -> None:
    from verl.trainer.ppo.core_algos import compute_gae_advantage_return

    from agentic_r.agent.advantage import gae, whiten

    torch.manual_seed(0)
    mask = torch.rand(6, 17) < 0.6
    mask[:, 0] = True
    rewards = torch.randn(6, 17, dtype=torch.float64) * mask
    values = torch.randn(6, 17, dtype=torch.float64) * mask
    theirs, returns = compute_gae_advantage_return(
        rewards, values, mask.double(), torch.tensor(0.97), torch.tensor(0.9)
    )
    ours, targets = gae(rewards, values, mask, gamma=0.97, lam=0.9)
    torch.testing.assert_close(whiten(ours, mask), theirs * mask, atol=1e-6, rtol=0)
    torch.testing.assert_close(targets, returns * mask, atol=1e-6, rtol=0)
