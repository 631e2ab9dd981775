"""Reinforcement learning of a random tiny model, whole: every method, resumed, rolled back."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.agent.learning import Learned, Learning, Practice
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.policy import Policy
from agentic_r.agent.reinforce import Method, Reinforcer
from agentic_r.errors import ConfigError, DataError
from agentic_r.settings import GuardConfig, RewardConfig, RLConfig
from agentic_r.testing import TableRetriever
from agentic_r.types import Passage, Question, Trajectory

QUESTIONS = [Question(str(n), f"the ba of {n}?", ("x",), "nq") for n in range(7)]
PASSAGES = [Passage("p", "the bag of cat was near dog", "A")]
REWARD = RewardConfig(em=0.0, function=f"{__name__}:short")


def short(trajectory: Trajectory) -> float:
    """Something that a random model can learn: to search soon."""
    first = trajectory.turns[0]
    return float(first.status == "search") + 1.0 / len(first.tokens or (1,) * 9)


class Killed(Exception):
    pass


def rl(**changes: Any) -> RLConfig:
    settings: dict[str, Any] = {
        "steps": 4,
        "questions": 5,
        "samples": 2,
        "learning_rate": 1e-3,
        "critic_learning_rate": 1e-2,
        "mini_batch": 4,
        "micro_tokens": 300,
        "validate_every": 2,
        "save_every": 1,
        "reward": REWARD,
        "guard": GuardConfig(on_collapse="ignore"),
    }
    return RLConfig(**{**settings, **changes})


def learning(
    model: Path, folder: Path, config: RLConfig, method: Method = "ppo", on_step: Any = None
) -> Learning:
    llm = LocalLLM(model)
    policy = Policy(llm, config, reference=config.kl != "none", critic=method == "ppo")
    practice = Practice(
        TableRetriever({}, PASSAGES), SearchR1("Question: {question}\n"), 1, "query", 3, 16
    )
    reinforcer = Reinforcer(policy, method, config.steps, seed=3)
    return Learning(reinforcer, practice, QUESTIONS, QUESTIONS[:2], folder, on_step)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def same(a: Learned, b: Learned) -> bool:
    def still(learned: Learned) -> list[dict[str, float]]:
        return [{k: v for k, v in f.items() if "seconds" not in k} for f in learned.curve]

    return still(a) == still(b) and (a.best, a.best_step) == (b.best, b.best_step)


@pytest.mark.parametrize("method", ["ppo", "grpo", "rloo", "reinforce++"])
def test_every_method_trains_and_leaves_a_model(
    model_folder: Path, tmp_path: Path, method: Method
) -> None:
    found = learning(model_folder, tmp_path, rl(kl="reward"), method).run()
    assert [f["step"] for f in found.curve] == [0, 1, 2, 3, 4]
    for figures in found.curve[1:]:
        assert figures["gradient"] > 0
        assert figures["update_seconds"] > 0
        assert {"generation_seconds", "retrieval_seconds", "scoring_seconds"} <= set(figures)
    assert [f["step"] for f in found.curve if "dev_em" in f] == [0, 2, 4]
    opened = LocalLLM(tmp_path / "model")
    assert opened.limit == 1024
    assert next(iter(weights(tmp_path).values())).dtype == torch.bfloat16


def test_the_rewards_rise(model_folder: Path, tmp_path: Path) -> None:
    config = rl(steps=16, questions=7, samples=4, learning_rate=5e-3, validate_every=99)
    curve = learning(model_folder, tmp_path, config, "reinforce++").run().curve[1:]
    first, last = (sum(f["reward"] for f in part) / 4 for part in (curve[:4], curve[-4:]))
    assert last > first + 0.1


@pytest.mark.parametrize("method", ["ppo", "grpo"])
@pytest.mark.parametrize("killed_at", [1, 3])
def test_a_killed_training_ends_the_same(
    model_folder: Path, tmp_path: Path, method: Method, killed_at: int
) -> None:
    config = rl(kl="loss", kl_kind="k3", warmup=0.5)
    whole = learning(model_folder, tmp_path / "whole", config, method)
    found = whole.run()

    def die(figures: dict[str, float]) -> None:
        if figures["step"] == killed_at:
            raise Killed

    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        learning(model_folder, folder, config, method, die).run()
    taken: list[float] = []
    resumed = learning(model_folder, folder, config, method, lambda f: taken.append(f["step"]))
    assert same(resumed.run(), found)
    assert taken == list(range(killed_at + 1, 5))  # replay of nothing
    for name, value in whole.reinforcer.policy.model.state_dict().items():
        assert torch.equal(value, resumed.reinforcer.policy.model.state_dict()[name])
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(value, weights(folder)[name])


def test_checkpoints_rotate(model_folder: Path, tmp_path: Path) -> None:
    learning(model_folder, tmp_path, rl(keep=2), "rloo").run()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-0000003.pt", "step-0000004.pt"]


def test_a_collapse_ends_with_the_best_weights(model_folder: Path, tmp_path: Path) -> None:
    guard = GuardConfig(patience=1, entropy=1000.0)
    found = learning(model_folder, tmp_path, rl(guard=guard), "grpo").run()
    assert "step 1: training has collapsed (entropy is" in found.ended
    assert found.best_step == 0
    start = LocalLLM(model_folder).model.state_dict()
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, start[name].bfloat16())


def test_a_roll_back_goes_on_from_the_best_at_half_the_rate(
    model_folder: Path, tmp_path: Path
) -> None:
    guard = GuardConfig(patience=1, entropy=1000.0, on_collapse="roll-back")
    learner = learning(model_folder, tmp_path, rl(guard=guard), "grpo")
    found = learner.run()
    assert found.roll_backs == 3
    assert "collapsed" in found.ended
    assert learner.reinforcer.step == 0


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_lora_trains_adapters_and_saves_a_plain_model(model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    start = LocalLLM(model_folder).model.state_dict()
    config = rl(lora_rank=4, kl="loss", validate_every=4)
    learner = learning(model_folder, tmp_path, config, "grpo")
    learner.saved.save_best = lambda state: None  # type: ignore[method-assign]
    learner.saved.best = lambda: learner._state()  # type: ignore[method-assign]
    learner.run()
    assert len(learner.reinforcer.policy.parameters()) == 2 * 2 * 7  # 2 layers, 7 projections
    saved = weights(tmp_path)
    assert set(saved) <= set(start)
    assert any(not torch.equal(value, start[name].bfloat16()) for name, value in saved.items())


def test_gradient_checkpointing_changes_nothing(model_folder: Path, tmp_path: Path) -> None:
    plain = learning(model_folder, tmp_path / "a", rl(steps=2), "grpo").run()
    again = learning(
        model_folder, tmp_path / "b", rl(steps=2, gradient_checkpointing=True), "grpo"
    ).run()
    for a, b in zip(plain.curve[1:], again.curve[1:], strict=True):
        assert a["policy_loss"] == pytest.approx(b["policy_loss"], abs=1e-5)


def test_in_bf16_the_weights_stay_whole_and_what_is_drawn_is_scored_alike(
    model_folder: Path, tmp_path: Path
) -> None:
    rate = 1e-5  # less than bfloat16 can add to most weights
    whole = learning(model_folder, tmp_path / "a", rl(steps=2, learning_rate=rate), "grpo")
    half = learning(
        model_folder, tmp_path / "b", rl(steps=2, learning_rate=rate, precision="bf16"), "grpo"
    )
    start = {n: p.detach().clone() for n, p in half.reinforcer.policy.model.named_parameters()}
    first = half._step()
    for learner in (whole, half):
        for weight in learner.reinforcer.policy.parameters():
            assert weight.dtype == torch.float32
    now = dict(half.reinforcer.policy.model.named_parameters())
    moved = [(now[n] != value).float().mean() for n, value in start.items()]
    lost = [(now[n].bfloat16() == value.bfloat16()).float().mean() for n, value in start.items()]
    assert min(moved) > 0.5
    assert max(lost) > 0.9  # these updates would be nothing to half-precision weights
    # Rollout and update compute in the same arithmetic: neither is fp32 against bf16.
    assert abs(first["mismatch"]) < 2e-3
    assert abs(whole._step()["mismatch"]) < 1e-5


def test_a_critic_of_its_own(model_folder: Path, tmp_path: Path) -> None:
    learner = learning(model_folder, tmp_path, rl(critic="model", steps=2), "ppo")
    critic = learner.reinforcer.policy.critic
    assert critic is not None
    before = critic.trunk.state_dict()["layers.0.mlp.up_proj.weight"].clone()
    learner.saved.best = lambda: learner._state()  # type: ignore[method-assign]
    learner.run()
    assert not torch.equal(before, critic.trunk.state_dict()["layers.0.mlp.up_proj.weight"])


def test_what_cannot_be_is_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="samples: got 1, expected at least 2 with grpo"):
        learning(model_folder, tmp_path, rl(samples=1), "grpo")
    policy = learning(model_folder, tmp_path, rl(), "grpo")
    with pytest.raises(DataError, match="0 training and 1 dev"):
        Learning(policy.reinforcer, policy.practice, [], QUESTIONS[:1], tmp_path)


def test_a_step_never_asks_a_question_twice(model_folder: Path, tmp_path: Path) -> None:
    learner = learning(model_folder, tmp_path, rl(), "grpo")
    asked = [learner._questions(step) for step in range(7)]
    for questions in asked:
        assert len({q.key for q in questions}) == len(questions)
    assert {q.key for questions in asked for q in questions} == {q.key for q in QUESTIONS}


def test_what_drew_otherwise_is_weighed(model_folder: Path, tmp_path: Path) -> None:
    """The drawing model gave half the probability: a ratio of 2, and less where it is capped."""
    gradients = {}
    for cap in (0.0, 1.5, 10.0):
        config = rl(importance_cap=cap, old_logprobs="recomputed", mini_batch=0)
        learner = learning(model_folder, tmp_path, config, "reinforce++")
        trajectories, _ = learner._rollouts(0)
        samples = [learner.dialect.sample(trajectory) for trajectory in trajectories]
        halved = [
            replace(s, logprobs=tuple(number - math.log(2) for number in s.logprobs))
            for s in samples
        ]
        rewards = [float(n % 3) for n in range(len(samples))]
        figures = learner.reinforcer.update(halved, rewards)
        gradients[cap] = figures["gradient"]
        assert figures.get("importance", 1.0) == pytest.approx(min(cap, 2.0) or 1.0, abs=1e-4)
    for cap, factor in ((1.5, 1.5), (10.0, 2.0)):
        assert gradients[cap] == pytest.approx(factor * gradients[0.0], rel=1e-3)
