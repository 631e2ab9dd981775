"""The folder that verl is given, from the command line."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from pathlib import Path

import msgspec
import pytest

from agentic_r.cli import main
from agentic_r.config import load_config
from agentic_r.errors import ConfigError
from agentic_r.verl.carried import Carrying, question_of
from agentic_r.verl.folder import LOCK, write
from agentic_r.verl.options import options, to_yaml
from agentic_r.verl.preflight import versions
from tests.runs import WORLD, write_config

RL = """
[agent.train]
method = "grpo"
[agent.train.rl]
questions = 8
samples = 2
mini_batch = 8
precision = "bf16"
[agent.train.verl]
gpus = 2
prompt_length = 128
"""


def config(folder: Path) -> Path:
    path = write_config(folder, WORLD, runs=folder / "runs", agent="tiny")
    text = path.read_text().replace("[agent]\n", "[agent]\nturns = 4\n")
    path.write_text(text + RL)
    return path


def written(folder: Path, *more: str) -> Path:
    pytest.importorskip("pyarrow")
    assert main(["train", str(config(folder)), "agent", "--engine", "verl", *more]) == 0
    return folder / "runs" / "small" / "verl"


def test_the_folder_holds_all_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path)
    said = capsys.readouterr().out
    assert str(folder / "run.sh") in said
    assert {path.name for path in folder.iterdir()} == {
        "train.parquet", "dev.parquet", "agent.json", "agent_loops.yaml", "agentic_r.yaml",
        "reward.py", "requirements.txt", "run.sh",
    }  # fmt: skip
    assert "verl[vllm]==0.9.1" in (folder / "requirements.txt").read_text()
    subprocess.run(["sh", "-n", str(folder / "run.sh")], check=True)


def test_rows_are_in_verls_schema_and_come_back_as_questions(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = written(tmp_path)
    rows = parquet.read_table(folder / "train.parquet").to_pylist()
    assert set(rows[0]) == {
        "data_source", "prompt", "ability", "reward_model", "extra_info", "agent_name",
    }  # fmt: skip
    assert rows[0]["prompt"][0]["content"].startswith("Question: ")
    assert [row["extra_info"]["index"] for row in rows] == list(range(len(rows)))
    question = question_of(rows[0])
    assert question.metadata["hops"]
    assert question.answers


def test_what_the_loop_reads_is_what_the_config_says(tmp_path: Path) -> None:
    prompt = tmp_path / "own.txt"
    prompt.write_text("Answer this: {question}\n")
    folder = written(tmp_path, "--agent.prompt_file", str(prompt), "--retriever.k", "2")
    carrying = msgspec.json.decode((folder / "agent.json").read_bytes(), type=Carrying)
    assert (carrying.k, carrying.prompt_length, carrying.response_length) == (2, 128, 768)
    assert carrying.agent.prompt_file == str(folder / "prompt_file.txt")
    prompt.unlink()
    assert carrying.dialect(None).prompt  # the folder stands by itself


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--agent.train.method", "supervised"), "agent.train.method: got supervised"),
        (("--agent.train.method", "ppo"), "agent.train.rl.critic: got head, expected model"),
        (("--agent.train.rl.rollouts", "http://a"), "got http://a, expected nothing"),
        (("--agent.train.rl.precision", "fp32"), "agent.train.rl.precision: got fp32"),
        (("--agent.turns", "0"), "agent.turns: got 0, expected a number of model calls"),
        (("--agent.train.verl.gpus", "3"), "expected a multiple of the 3 GPUs"),
        (("--agent.train.rl.mini_batch", "7"), "mini_batch: got 7, expected a multiple of samples"),
        (("--agent.model", "oracle-reader"), "oracle-reader, which cannot be trained"),
        (("--agent.train.verl.overrides", '["a"]'), "overrides: got 'a', expected key=value"),
        (("--agent.train.verl.python", "/no/python"), "/no/python cannot be run"),
    ],
)
def test_what_verl_cannot_be_told_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    pytest.importorskip("pyarrow")
    assert main(["train", str(config(tmp_path)), "agent", "--engine", "verl", *more]) == 2
    assert said in capsys.readouterr().err


def test_the_retriever_is_not_trained_by_verl(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(config(tmp_path)), "retriever", "--engine", "verl"]) == 2
    assert "got retriever, expected agent" in capsys.readouterr().err


def test_overrides_reach_the_script_as_they_are(tmp_path: Path) -> None:
    odd = "trainer.experiment_name=it's $HOME"
    folder = written(tmp_path, "--agent.train.verl.overrides", json.dumps([odd]))
    line = (folder / "run.sh").read_text().splitlines()[-1]
    said = subprocess.run(
        ["sh", "-c", line.replace("exec python", "printf '%s\\n'")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert odd in said.splitlines()


@pytest.mark.parametrize("method", ["ppo", "grpo", "rloo", "reinforce++"])
def test_settings_are_said_in_verls_words(tmp_path: Path, method: str) -> None:
    pairs = [
        ("agent.train.method", method),
        ("agent.train.rl.critic", "model"),
        ("agent.train.rl.kl", "reward"),
        ("agent.train.rl.learning_rate", "1e-6"),
        ("agent.train.rl.old_logprobs", "recomputed"),
    ]
    found = options(load_config(config(tmp_path), pairs), "MODEL", tmp_path)
    algorithm, actor = found["algorithm"], found["actor_rollout_ref"]["actor"]
    assert algorithm["adv_estimator"] in ("gae", "grpo", "rloo", "reinforce_plus_plus")
    assert (algorithm["use_kl_in_reward"], actor["use_kl_loss"]) == (True, False)
    assert algorithm["rollout_correction"] == {"bypass_mode": False}
    assert actor["ppo_mini_batch_size"] == 4  # in questions
    assert ("critic" in found) == (method == "ppo")
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(to_yaml(found)) == json.loads(json.dumps(found))


@pytest.mark.parametrize("name", ["paper", "one-gpu"])
def test_the_packaged_settings_for_gpus_can_be_said(name: str, tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "configs" / f"{name}.toml"
    found = options(load_config(path), "MODEL", tmp_path)
    assert found["trainer"]["total_training_steps"] in (200, 400)
    assert ("critic" in found) == (name == "paper")


def test_nothing_is_written_where_something_is_refused(tmp_path: Path) -> None:
    bad = load_config(config(tmp_path), [("agent.turns", "0")])
    with pytest.raises(ConfigError):
        write(bad, tmp_path / "verl")
    assert not (tmp_path / "verl").exists()


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ({}, ""),
        ({"verl": "0.9.4", "torch": "2.11.1+cu130"}, ""),  # a patch changes nothing here
        ({"verl": "0.10.0"}, "verl: got 0.10.0, expected 0.9.1"),
        ({"cachetools": None}, "cachetools is not installed, expected cachetools"),
        ({"vllm": None}, r"vllm is not installed, expected vllm==0.24.0"),
    ],
)
def test_the_preflight_compares_versions_by_their_series(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: dict[str, str | None],
    said: str,
) -> None:
    (tmp_path / "requirements.txt").write_text(LOCK.format(version="0.1.0"))
    listed = {
        "verl": "0.9.1", "torch": "2.11.0+cpu", "vllm": "0.24.0", "transformers": "5.9.0",
        "tensordict": "0.10.0", "cachetools": "6.0", "fastapi": "1", "uvicorn": "1",
        "pyarrow": "26.0", "agentic-r": "0.1.0",
    }  # fmt: skip

    def version(name: str) -> str:
        found = (listed | installed)[name]
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr("importlib.metadata.version", version)
    if said:
        with pytest.raises(ConfigError, match=said):
            versions(tmp_path)
    else:
        assert "verl 0.9" in versions(tmp_path)
