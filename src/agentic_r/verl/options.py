"""The config's reinforcement learning in verl's words (0.9): one nested mapping, to be YAML.

Each line is one of ours. What verl has no word for is refused by name, never dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentic_r.errors import ConfigError
from agentic_r.settings import AgentTrainConfig, Config, RLConfig

ESTIMATORS = {
    "ppo": "gae",
    "grpo": "grpo",
    "rloo": "rloo",
    "reinforce++": "reinforce_plus_plus",
}
KL = {"k1": "kl", "k2": "mse", "k3": "low_var_kl"}
AVERAGING = {"token": "token-mean", "sequence": "seq-mean-token-mean"}
NEVER = 1e6
"""A bound that nothing reaches, where verl always has one and ours is off."""


def options(config: Config, model: str, folder: Path) -> dict[str, Any]:
    """Return verl's settings beside its own defaults. Raises ConfigError, see `refuse_unsaid`."""
    train, rl, verl = config.agent.train, config.agent.train.rl, config.agent.train.verl
    refuse_unsaid(config)
    found: dict[str, Any] = {
        "data": {
            "train_files": str(folder / "train.parquet"),
            "val_files": str(folder / "dev.parquet"),
            "train_batch_size": rl.questions,
            "max_prompt_length": verl.prompt_length,
            "max_response_length": response_length(config),
            # A base model has no chat template to measure a prompt with; preflight measures it.
            "filter_overlong_prompts": False,
            "return_raw_chat": True,
            "seed": config.seed,
        },
        "actor_rollout_ref": {
            "model": {
                "path": model,
                "enable_gradient_checkpointing": rl.gradient_checkpointing,
                "lora_rank": rl.lora_rank,
                "lora_alpha": rl.lora_alpha,
            },
            "actor": _actor(rl, config),
            "ref": {"fsdp_config": {"param_offload": verl.offload}},
            "rollout": _rollout(config, folder),
        },
        "algorithm": {
            "adv_estimator": ESTIMATORS[train.method],
            "gamma": rl.gamma,
            "lam": rl.lam,
            "norm_adv_by_std_in_grpo": rl.scale,
            "use_kl_in_reward": rl.kl == "reward",
            "kl_penalty": KL[rl.kl_kind],
            "kl_ctrl": {"kl_coef": rl.kl_coefficient},
            "rollout_correction": {"bypass_mode": rl.old_logprobs == "sampled"},
        },
        "reward": {"custom_reward_function": {"path": str(folder / "reward.py")}},
        "trainer": _trainer(config, train, folder),
    }
    if train.method == "ppo":
        found["critic"] = _critic(config, model)
    return found


def response_length(config: Config) -> int:
    """Return how many tokens a response may have, all turns and their evidence."""
    set_ = config.agent.train.verl.response_length
    return set_ or 2 * max(1, config.agent.turns) * config.agent.max_tokens


def refuse_unsaid(config: Config) -> None:
    """Raise ConfigError for what verl cannot be told, or would take for something else."""
    train = config.agent.train
    rl = train.rl
    per_gpu = train.verl.nodes * train.verl.gpus
    unsaid = {
        "agent.train.method": train.method == "supervised" and "supervised",
        "agent.train.rl.critic": train.method == "ppo" and rl.critic == "head" and "head",
        "agent.train.rl.precision": rl.precision == "fp32" and "fp32",
        "agent.train.rl.importance_cap": rl.importance_cap and str(rl.importance_cap),
        "agent.train.rl.rollouts": rl.rollouts,
        "agent.turns": not config.agent.turns and "0",
    }
    wanted = {
        "agent.train.method": "ppo, grpo, rloo or reinforce++",
        "agent.train.rl.critic": "model (verl's critic is a model of its own)",
        "agent.train.rl.precision": "bf16",
        "agent.train.rl.importance_cap": "0",
        "agent.train.rl.rollouts": "nothing (verl starts the servers that draw)",
        "agent.turns": "a number of model calls, which the length of a response follows from",
    }
    for key, got in unsaid.items():
        if got:
            raise ConfigError(f"{key}: got {got}, expected {wanted[key]} with --engine verl")
    if rl.questions * rl.samples % per_gpu:
        raise ConfigError(
            f"agent.train.rl.questions: got {rl.questions} x {rl.samples} samples, expected a "
            f"multiple of the {per_gpu} GPUs (nodes x gpus) with --engine verl"
        )
    if rl.mini_batch % rl.samples:
        raise ConfigError(
            f"agent.train.rl.mini_batch: got {rl.mini_batch}, expected a multiple of samples "
            f"({rl.samples}): verl keeps the trajectories of a question together"
        )


def _actor(rl: RLConfig, config: Config) -> dict[str, Any]:
    offload = config.agent.train.verl.offload
    return {
        "strategy": "fsdp2",
        "ppo_mini_batch_size": (rl.mini_batch // rl.samples) or rl.questions,
        "use_dynamic_bsz": True,
        "ppo_max_token_len_per_gpu": _tokens(config),
        "ppo_epochs": rl.epochs,
        "grad_clip": rl.max_grad_norm,
        "clip_ratio": rl.clip_low,
        "clip_ratio_low": rl.clip_low,
        "clip_ratio_high": rl.clip_high,
        "clip_ratio_c": rl.dual_clip or NEVER,
        "loss_agg_mode": AVERAGING[rl.averaging],
        "entropy_coeff": rl.entropy,
        "use_kl_loss": rl.kl == "loss",
        "kl_loss_coef": rl.kl_coefficient,
        "kl_loss_type": KL[rl.kl_kind],
        "optim": {"lr": rl.learning_rate, "lr_warmup_steps_ratio": rl.warmup, "weight_decay": 0.01},
        "fsdp_config": {"param_offload": offload, "optimizer_offload": offload},
    }


def _rollout(config: Config, folder: Path) -> dict[str, Any]:
    rl, verl = config.agent.train.rl, config.agent.train.verl
    return {
        "name": "vllm",  # the one engine whose servers stop at strings
        "n": rl.samples,
        "temperature": rl.temperature,
        "top_p": rl.top_p,
        "tensor_model_parallel_size": verl.tensor_parallel,
        "gpu_memory_utilization": verl.gpu_memory,
        "max_model_len": verl.prompt_length + response_length(config),
        "calculate_log_probs": True,
        "log_prob_use_dynamic_bsz": True,
        "log_prob_max_token_len_per_gpu": _tokens(config),
        "val_kwargs": {"temperature": 0, "do_sample": False, "n": 1},
        "agent": {
            "agent_loop_config_path": str(folder / "agent_loops.yaml"),
            "default_agent_loop": "agentic_r_search",
        },
    }


def _critic(config: Config, model: str) -> dict[str, Any]:
    rl, offload = config.agent.train.rl, config.agent.train.verl.offload
    return {
        "strategy": "fsdp2",
        "model": {
            "path": model,
            "enable_gradient_checkpointing": rl.gradient_checkpointing,
        },
        "fsdp": {"param_offload": offload, "optimizer_offload": offload},
        "ppo_mini_batch_size": (rl.mini_batch // rl.samples) or rl.questions,
        "use_dynamic_bsz": True,
        "ppo_max_token_len_per_gpu": _tokens(config),
        "ppo_epochs": rl.epochs,
        "grad_clip": rl.max_grad_norm,
        "cliprange_value": rl.clip_value or NEVER,
        "optim": {
            "lr": rl.critic_learning_rate,
            "lr_warmup_steps_ratio": rl.critic_warmup,
            "weight_decay": 0.01,
        },
    }


def _trainer(config: Config, train: AgentTrainConfig, folder: Path) -> dict[str, Any]:
    trackers = [] if train.tracker == "none" else [train.tracker]
    return {
        "project_name": "agentic-r",
        "experiment_name": config.name,
        "logger": ["console", *trackers],
        "nnodes": train.verl.nodes,
        "n_gpus_per_node": train.verl.gpus,
        "total_epochs": NEVER_ENDING,
        "total_training_steps": train.rl.steps,
        "val_before_train": True,
        "test_freq": train.rl.validate_every,
        "save_freq": train.rl.save_every,
        "max_actor_ckpt_to_keep": train.rl.keep,
        "default_local_dir": str(folder / "checkpoints"),
        "resume_mode": "auto",
    }


NEVER_ENDING = 1_000_000
"""Passes over the questions: the steps say when it is over."""


def _tokens(config: Config) -> int:
    """Tokens of one forward pass on a GPU: at least one trajectory of full length."""
    longest = config.agent.train.verl.prompt_length + response_length(config)
    return max(config.agent.train.rl.micro_tokens, longest)


def to_yaml(values: Mapping[str, Any], indent: int = 0) -> str:
    """Write nested mappings of plain values as YAML, which reads scalars and lists in JSON."""
    lines = []
    for key, value in values.items():
        start = f"{' ' * indent}{key}:"
        if isinstance(value, Mapping):
            lines.append(f"{start}\n{to_yaml(value, indent + 2)}")
        else:
            lines.append(f"{start} {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    # YAML 1.1 reads 1e-06 as text, 0.000001 as a number.
    return f"{value:.12f}".rstrip("0") + "0" if isinstance(value, float) else json.dumps(value)
