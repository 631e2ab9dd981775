"""The agent stage by reward, from the command line and killed in the middle."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from agentic_r.cli import main
from agentic_r.config import load_config
from agentic_r.loop import stage_names
from tests.runs import WORLD, differences, read_json, read_lines, results, write_config

RL = """
[agent.train]
method = "ppo"
[agent.train.rl]
steps = 4
questions = 3
learning_rate = 1e-4
validate_every = 2
validate_questions = 2
save_every = 1
kl = "reward"
"""


def config(folder: Path, runs: Path | str = "runs", more: str = RL) -> Path:
    path = write_config(folder, WORLD, runs=runs, agent="tiny")
    path.write_text(path.read_text() + more)
    return path


def train(path: Path, *more: str) -> int:
    return main(["train", str(path), "agent", *more])


def test_trained_by_reward_the_agent_comes_first(tmp_path: Path) -> None:
    names = stage_names(load_config(config(tmp_path)))
    assert names[2:4] == ["iteration-1/agent", "iteration-1/rollouts"]
    plain = load_config(write_config(tmp_path), [("agent.train.epochs", "1")])
    assert stage_names(plain)[7] == "iteration-1/agent"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--agent.train.method", "grpo"), "samples: got 1, expected at least 2 with grpo"),
        (("--agent.model", "oracle-reader"), "oracle-reader cannot be trained from here"),
        (("--agent.train.rl.importance_cap", "2"), "set old_logprobs to recomputed"),
        (("--agent.train.rl.shard", "true"), "shard: got true with one process; leave it out"),
        (
            ("--agent.train.rl.shard", "true", "--agent.train.rl.lora_rank", "4"),
            "shard: got true with LoRA",
        ),
        (
            ("--agent.train.rl.rollouts", "http://a", "--agent.train.rl.top_p", "0.9"),
            "top_p: got 0.9, expected 1 with rollouts on a server",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    path = config(tmp_path, tmp_path / "runs")
    assert train(path, *more) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs" / "small" / "base").exists()


def test_the_plan_is_printed_without_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config(tmp_path, tmp_path / "runs"), "--plan") == 0
    assert "optimiser" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_a_missing_tracker_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n: None if n == "wandb" else find(n))
    for method in (("--agent.train.method", "supervised", "--agent.train.epochs", "1"), ()):
        path = config(tmp_path, tmp_path / "runs")
        assert train(path, "--agent.train.tracker", "wandb", *method) == 2
        assert "agent.train.tracker: wandb is not installed" in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("manifest.json"))


class Listening:
    """A tracker that keeps what it hears."""

    heard: ClassVar[list[tuple[int, set[str]]]] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        assert all(isinstance(value, float) for value in values.values())
        self.heard.append((step, set(values)))

    def close(self) -> None:
        self.heard.append((-1, set()))


@pytest.mark.parametrize(
    ("method", "where", "names"),
    [
        ((), "agentic_r.practice", {"reward", "em", "entropy", "mismatch", "update_seconds"}),
        (
            ("--agent.train.method", "supervised", "--agent.train.epochs", "1"),
            "agentic_r.agent.finetune",
            {"loss", "accuracy"},
        ),
    ],
)
def test_the_tracker_hears_of_every_step_and_no_result_depends_on_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: tuple[str, ...],
    where: str,
    names: set[str],
) -> None:
    monkeypatch.setattr(f"{where}.open_tracker", lambda kind, *_: Listening())
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n: find("os" if n == "trackio" else n))
    Listening.heard = []
    short = ("--agent.train.rl.steps", "2", "--agent.train.rl.validate_every", "2", *method)
    path = config(tmp_path, tmp_path / "runs")
    assert train(path, *short, "--agent.train.tracker", "trackio") == 0
    *steps, end = Listening.heard
    assert [step for step, _ in steps] == list(range(1, len(steps) + 1))
    assert steps
    assert all(names <= found for _, found in steps)
    assert end == (-1, set())
    assert train(path, *short) == 0  # without it the run goes on: nothing is owed


@pytest.mark.slow
def test_killed_and_started_again_it_ends_the_same(tmp_path: Path) -> None:
    whole = config(tmp_path, tmp_path / "whole")
    assert train(whole) == 0
    agent = tmp_path / "whole" / "small" / "iteration-1" / "agent"
    assert [row["step"] for row in read_lines(agent / "curve.jsonl")] == [0, 1, 2, 3, 4]
    assert read_json(agent / "manifest.json")["counts"]["steps"] == 4
    before = results(tmp_path / "whole")
    assert train(whole) == 0  # done: nothing is done again
    assert results(tmp_path / "whole") == before

    (tmp_path / "two").mkdir()
    path = config(tmp_path / "two", tmp_path / "killed")
    command = [sys.executable, "-m", "agentic_r.cli", "train", str(path), "agent"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)
    wanted = tmp_path / "killed" / "small" / "iteration-1" / "agent" / "checkpoints"
    until = time.monotonic() + 300
    while not list(wanted.glob("step-0000002.pt")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(wanted.glob("step-*.pt"))
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env=os.environ)
    killed = results(tmp_path / "killed" / "small")
    assert differences(killed, results(tmp_path / "whole" / "small")) == []
