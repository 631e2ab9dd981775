from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.agent.finetune import finetune
from agentic_r.agent.trainer import encode, pad, written_logits
from agentic_r.config import AgentConfig, AgentTrainConfig
from agentic_r.errors import ConfigError, DataError
from agentic_r.types import Hit, Passage, Question, Search, Trajectory, Turn

DIALECT = SearchR1("Question: {question}\n")


class Killed(Exception):
    pass


def trajectory(number: int, words: int = 3) -> Trajectory:
    passage = Passage(f"p{number}", "the banana " * words + f"of {number}", f"the {number}")
    turns = (
        Turn(
            f"<think>look</think><search>the {number}</search>",
            "search",
            (Search(f"the {number}", f"the {number}", (Hit(passage, 1.0),)),),
        ),
        Turn(f"<think>found</think><answer>{number}</answer>", "answer", answer=str(number)),
    )
    question = Question(str(number), f"which is {number}?", (str(number),))
    return Trajectory(str(number), question, turns, "answered")


TRAJECTORIES = [trajectory(number) for number in range(10)]


def config(model: Path | str, epochs: int = 3, rate: float = 3e-3) -> AgentConfig:
    train = AgentTrainConfig(epochs=epochs, learning_rate=rate, batch=4)
    return AgentConfig(model=str(model), train=train)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@torch.no_grad()
def loss(folder: Path) -> float:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    encoded = [e for e in encode(TRAJECTORIES, tokenizer, DIALECT, 1024) if e is not None]
    logits, targets = written_logits(model.eval(), *pad(encoded))
    return float(torch.nn.functional.cross_entropy(logits, targets))


def test_the_loss_falls_and_the_start_is_left_alone(model_folder: Path, tmp_path: Path) -> None:
    before, start = loss(model_folder), weights(model_folder)
    folder = tmp_path / "agent" / "model"
    steps, skipped = finetune(
        config(model_folder), TRAJECTORIES, seed=0, folder=folder, dialect=DIALECT
    )
    assert (steps, skipped) == (9, 0)  # 3 epochs of 10 trajectories by 4
    assert loss(folder) < 0.8 * before
    assert all(torch.equal(value, start[name]) for name, value in weights(model_folder).items())
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]


@pytest.mark.parametrize("killed_at", [1, 3, 5, 9])
def test_a_killed_training_ends_with_the_same_weights(
    model_folder: Path, tmp_path: Path, killed_at: int
) -> None:
    whole, resumed = tmp_path / "whole" / "model", tmp_path / "resumed" / "model"
    settings: dict[str, Any] = {"seed": 7, "dialect": DIALECT}
    finetune(config(model_folder), TRAJECTORIES, folder=whole, **settings)
    taken = []

    def die(_: Any) -> None:
        taken.append(1)
        if len(taken) == killed_at:
            raise Killed

    with pytest.raises(Killed):
        finetune(config(model_folder), TRAJECTORIES, folder=resumed, on_step=die, **settings)
    assert not resumed.exists()
    again: list[int] = []
    steps, _ = finetune(
        config(model_folder),
        TRAJECTORIES,
        folder=resumed,
        on_step=lambda _: again.append(1),
        **settings,
    )
    assert steps == 9
    assert len(again) == 9 - (killed_at - 1) // 3 * 3  # finished epochs are not done again
    expected = weights(whole)
    found = weights(resumed)
    assert list(found) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_the_seed_orders_the_examples(model_folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        finetune(
            config(model_folder, epochs=1),
            TRAJECTORIES,
            seed=seed,
            folder=tmp_path / str(seed) / "model",
            dialect=DIALECT,
        )
    first, second = (weights(tmp_path / name / "model") for name in ("0", "1"))
    assert any(not torch.equal(value, second[name]) for name, value in first.items())


def test_trajectories_that_are_too_long_are_counted(model_folder: Path, tmp_path: Path) -> None:
    long = [trajectory(number, words=600) for number in (20, 21)]
    steps, skipped = finetune(
        config(model_folder, epochs=1),
        [*TRAJECTORIES[:4], *long],
        seed=0,
        folder=tmp_path / "model",
        dialect=DIALECT,
    )
    assert (steps, skipped) == (1, 2)
    with pytest.raises(DataError, match=r"none of 2 correct trajectories can be trained on"):
        finetune(
            config(model_folder), long, seed=0, folder=tmp_path / "none" / "model", dialect=DIALECT
        )


@pytest.mark.parametrize("model", ["http://localhost:1/v1", "https://host/v1", "oracle-reader"])
def test_an_agent_that_is_elsewhere_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(ConfigError, match=r"agent\.train\.epochs is 3.*cannot be trained"):
        finetune(config(model), TRAJECTORIES, seed=0, folder=tmp_path / "model", dialect=DIALECT)
    assert not (tmp_path / "model").exists()
