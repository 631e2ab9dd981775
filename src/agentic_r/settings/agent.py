"""The settings of the agent and of its training."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from agentic_r.settings.rl import RLConfig, VerlConfig

DialectName = Literal[
    "search-r1",
    "search-r1-rl",
    "r1-searcher",
    "simple-deep-searcher",
    "autorefine",
    "o2-searcher",
    "rearag",
    "corag",
    "react",
    "tool-calling",
    "direct",
    "rag",
    "ircot",
    "self-ask",
    "iter-retgen",
    "flare",
]
"""The packaged agent protocols; `agent/dialects` has one file for each."""


class AgentTrainConfig(msgspec.Struct, frozen=True):
    """How the agent is trained: on its own correct trajectories, or by reinforcement."""

    method: Annotated[
        Literal["supervised", "ppo", "grpo", "rloo", "reinforce++"],
        Meta(description="Imitate correct trajectories, or learn from rewards ([agent.train.rl])."),
    ] = "supervised"
    epochs: Annotated[
        int, Meta(ge=0, description="Passes over the correct trajectories; 0 leaves the agent.")
    ] = 0
    learning_rate: Annotated[float, Meta(gt=0, description="Peak learning rate of AdamW.")] = 1e-4
    batch: Annotated[int, Meta(ge=1, description="Trajectories per step.")] = 16
    tracker: Annotated[
        Literal["none", "tensorboard", "trackio", "wandb"],
        Meta(description="Where curves are shown live, if installed."),
    ] = "none"
    rl: RLConfig = RLConfig()
    verl: VerlConfig = VerlConfig()

    @property
    def wanted(self) -> bool:
        """Whether the loop trains the agent at all."""
        return self.method != "supervised" or self.epochs > 0


class AgentConfig(msgspec.Struct, frozen=True):
    """The search agent."""

    model: Annotated[
        str,
        Meta(
            min_length=1,
            description="tiny (in the package), a folder, a hub name, either behind vllm: (run "
            "by vLLM here), http://... (several with commas or as a list) or oracle-reader.",
        ),
    ] = "tiny"
    name: Annotated[
        str, Meta(description="Model name on the server; empty takes the server's first.")
    ] = ""
    dialect: Annotated[
        DialectName, Meta(description="Protocol that the agent speaks, see docs/dialects.md.")
    ] = "search-r1"
    prompt_file: Annotated[
        str, Meta(description="Prompt with {question} in it; empty takes the dialect's own.")
    ] = ""
    invalid_file: Annotated[
        str,
        Meta(
            description="What the model is told of an unreadable turn; empty takes the dialect's."
        ),
    ] = ""
    chat: Annotated[
        bool,
        Meta(description="Put a text dialect's prompt into the model's chat template."),
    ] = False
    turns: Annotated[
        int,
        Meta(ge=0, description="Model calls per question at most; 0 takes the dialect's own."),
    ] = 0
    max_tokens: Annotated[int, Meta(ge=1, description="New tokens per model call at most.")] = 160
    batch: Annotated[int, Meta(ge=1, description="Prompts that a local model decodes at once.")] = (
        64
    )
    precision: Annotated[
        Literal["fp32", "bf16"], Meta(description="Number format of a local model.")
    ] = "fp32"
    concurrency: Annotated[int, Meta(ge=1, description="Requests to each server at once.")] = 32
    retries: Annotated[
        int, Meta(ge=0, description="Further tries of a request, with growing pauses.")
    ] = 8
    price: Annotated[
        tuple[float, float], Meta(description="Price per million tokens, read and written.")
    ] = (0.0, 0.0)
    api_key_env: Annotated[
        str, Meta(description="Name of the environment variable that holds the server's key.")
    ] = ""
    timeout: Annotated[float, Meta(gt=0, description="Seconds to wait for one completion.")] = 120.0
    train: AgentTrainConfig = AgentTrainConfig()
