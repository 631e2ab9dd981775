"""The settings of the agent's reinforcement learning."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

ADDRESS = r"^(https?://.+)?$"
"""What names servers that draw; empty for none."""


class RewardConfig(msgspec.Struct, frozen=True):
    """What a trajectory earns: the sum of these weights times what each part gives."""

    em: Annotated[float, Meta(description="Weight of exact match of the answer written.")] = 1.0
    f1: Annotated[float, Meta(description="Weight of token F1 of the answer written.")] = 0.0
    format: Annotated[
        float, Meta(description="Weight of keeping to the protocol in every turn.")
    ] = 0.0
    found: Annotated[
        float, Meta(description="Weight of the share of gold passages that were found.")
    ] = 0.0
    search: Annotated[float, Meta(ge=0, description="Cost of each search, taken off.")] = 0.0
    function: Annotated[
        str, Meta(description="A function of one trajectory, as package.module:name.")
    ] = ""
    function_weight: Annotated[float, Meta(description="Weight of that function.")] = 1.0


class GuardConfig(msgspec.Struct, frozen=True):
    """When training is taken to have collapsed: means over the last `patience` steps."""

    on_collapse: Annotated[
        Literal["stop", "roll-back", "ignore"],
        Meta(description="End with the best weights, go back to them at half the rate, or go on."),
    ] = "stop"
    patience: Annotated[int, Meta(ge=1, description="Steps that are looked at together.")] = 5
    entropy: Annotated[float, Meta(ge=0, description="Least entropy in nats per token.")] = 0.0
    kl: Annotated[float, Meta(gt=0, description="Most KL to the reference in nats per token.")] = (
        1.0
    )
    length: Annotated[
        float, Meta(gt=1, description="Most written tokens, as a multiple of the first steps.")
    ] = 4.0
    invalid: Annotated[
        float,
        Meta(ge=0, le=1, description="Most invalid turns, as a share, above the first steps'."),
    ] = 0.3
    repeated: Annotated[
        float, Meta(ge=0, le=1, description="Most repeated 8-grams inside a turn, as a share.")
    ] = 0.3


class RLConfig(msgspec.Struct, frozen=True):
    """Reinforcement learning of the agent (method ppo, grpo, rloo or reinforce++)."""

    steps: Annotated[int, Meta(ge=1, description="Steps; each rolls out and updates.")] = 100
    start: Annotated[
        Literal["base", "previous"], Meta(description="Weights that each iteration starts from.")
    ] = "previous"
    files: Annotated[
        tuple[str, ...],
        Meta(description="Question files to train on (.jsonl, .parquet); none: the run's own."),
    ] = ()
    questions: Annotated[int, Meta(ge=1, description="Questions per step.")] = 64
    samples: Annotated[
        int, Meta(ge=1, description="Trajectories per question; grpo and rloo need 2 or more.")
    ] = 1
    temperature: Annotated[float, Meta(gt=0, description="Temperature of the rollouts.")] = 1.0
    top_p: Annotated[float, Meta(gt=0, le=1, description="Nucleus of the rollouts.")] = 1.0
    rollouts: Annotated[
        str,
        Meta(
            pattern=ADDRESS,
            description="Address of a vLLM server that draws the trajectories (several with "
            "commas); empty: this process draws.",
        ),
    ] = ""
    weights: Annotated[
        str,
        Meta(description="Folder in which those servers read the weights; empty: the stage's own."),
    ] = ""
    mini_batch: Annotated[
        int, Meta(ge=0, description="Trajectories per optimiser step; 0 takes all of a step.")
    ] = 0
    micro_tokens: Annotated[
        int, Meta(ge=1, description="Tokens per forward pass, packed side by side.")
    ] = 8192
    epochs: Annotated[int, Meta(ge=1, description="Passes over the trajectories of a step.")] = 1
    learning_rate: Annotated[float, Meta(gt=0, description="Learning rate of the agent.")] = 1e-6
    warmup: Annotated[float, Meta(ge=0, le=1, description="Share of steps with a rising rate.")] = (
        0.0
    )
    critic: Annotated[
        Literal["head", "model"],
        Meta(description="A head on the agent's own hidden states, or a model of its own (ppo)."),
    ] = "head"
    critic_learning_rate: Annotated[
        float, Meta(gt=0, description="Learning rate of the critic.")
    ] = 1e-5
    critic_warmup: Annotated[
        float, Meta(ge=0, le=1, description="Share of steps with a rising critic rate.")
    ] = 0.0
    gamma: Annotated[float, Meta(ge=0, le=1, description="Discount per written token.")] = 1.0
    lam: Annotated[float, Meta(ge=0, le=1, description="Lambda of GAE.")] = 1.0
    scale: Annotated[
        bool, Meta(description="Divide a group's advantages by its standard deviation (grpo).")
    ] = True
    clip_low: Annotated[float, Meta(gt=0, lt=1, description="Lower clip of the ratio.")] = 0.2
    clip_high: Annotated[float, Meta(gt=0, description="Upper clip of the ratio.")] = 0.2
    dual_clip: Annotated[
        float, Meta(ge=0, description="Bound for bad tokens, above 1; 0 leaves it out.")
    ] = 0.0
    clip_value: Annotated[
        float, Meta(ge=0, description="Clip of the value loss; 0 leaves it out.")
    ] = 0.5
    averaging: Annotated[
        Literal["token", "sequence"], Meta(description="What weighs the same in the loss.")
    ] = "token"
    kl: Annotated[
        Literal["none", "reward", "loss"], Meta(description="Where the KL penalty goes.")
    ] = "none"
    kl_kind: Annotated[
        Literal["k1", "k2", "k3"], Meta(description="Estimator of the KL divergence.")
    ] = "k1"
    kl_coefficient: Annotated[float, Meta(ge=0, description="Weight of the KL penalty.")] = 1e-3
    entropy: Annotated[float, Meta(ge=0, description="Weight of the entropy bonus.")] = 0.0
    max_grad_norm: Annotated[float, Meta(gt=0, description="Gradient norm that is cut to.")] = 1.0
    old_logprobs: Annotated[
        Literal["sampled", "recomputed"],
        Meta(description="Log-probabilities before the update: as sampled, or computed once."),
    ] = "sampled"
    importance_cap: Annotated[
        float,
        Meta(
            ge=0,
            description="Cap of the ratio of the trained to the drawing model, which weighs each "
            "token's loss (with old_logprobs recomputed); 0 leaves it out.",
        ),
    ] = 0.0
    precision: Annotated[
        Literal["fp32", "bf16"], Meta(description="Arithmetic of the update; weights are fp32.")
    ] = "fp32"
    gradient_checkpointing: Annotated[
        bool, Meta(description="Compute activations again instead of keeping them.")
    ] = False
    shard: Annotated[
        bool,
        Meta(
            description="Share the layers' weights, gradients and optimiser out over the processes "
            "of a torchrun (FSDP2), instead of holding them in each."
        ),
    ] = False
    lora_rank: Annotated[int, Meta(ge=0, description="Rank of LoRA; 0 trains all weights.")] = 0
    lora_alpha: Annotated[int, Meta(ge=1, description="Scale of LoRA.")] = 32
    validate_every: Annotated[int, Meta(ge=1, description="Steps between validations.")] = 10
    validate_questions: Annotated[
        int, Meta(ge=1, description="Dev questions answered greedily at each validation.")
    ] = 128
    save_every: Annotated[int, Meta(ge=1, description="Steps between checkpoints.")] = 10
    keep: Annotated[int, Meta(ge=1, description="Checkpoints kept, the best one apart.")] = 2
    reward: RewardConfig = RewardConfig()
    guard: GuardConfig = GuardConfig()


class VerlConfig(msgspec.Struct, frozen=True):
    """verl's engine (train agent --engine verl); what is learned stands in agent.train.rl."""

    retriever: Annotated[
        str, Meta(description="Address of the search service that every node reaches.")
    ] = "http://127.0.0.1:8000"
    nodes: Annotated[int, Meta(ge=1, description="Machines.")] = 1
    gpus: Annotated[int, Meta(ge=1, description="GPUs of each machine.")] = 8
    tensor_parallel: Annotated[
        int, Meta(ge=1, description="GPUs that one copy of the model generates on.")
    ] = 1
    gpu_memory: Annotated[
        float, Meta(gt=0, lt=1, description="Share of a GPU's memory for generation.")
    ] = 0.6
    offload: Annotated[
        bool, Meta(description="Keep weights and optimiser in main memory while not in use.")
    ] = True
    prompt_length: Annotated[int, Meta(ge=16, description="Longest prompt in tokens.")] = 1024
    response_length: Annotated[
        int,
        Meta(
            ge=0,
            description="Longest response in tokens, evidence included; 0: every turn's "
            "max_tokens and as much evidence.",
        ),
    ] = 0
    python: Annotated[
        str,
        Meta(description="Python of verl's environment, to launch; empty: write the folder alone."),
    ] = ""
    overrides: Annotated[
        tuple[str, ...], Meta(description="Further settings of verl, as key=value.")
    ] = ()
