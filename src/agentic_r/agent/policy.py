"""What is trained: the agent's live weights, its critic, and the reference that it is kept near."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from agentic_r.agent.batch import Packed, Written, refuse_attention, score, states
from agentic_r.agent.descent import arithmetic
from agentic_r.agent.local import LocalLLM
from agentic_r.errors import MissingExtraError
from agentic_r.settings import RLConfig
from agentic_r.training.processes import ALONE, Processes
from agentic_r.training.sharding import gathered, part, shard, whole


class Critic(nn.Module):
    """Says what a state is worth: a head on hidden states, with `trunk` a model of its own.

    Without a trunk it reads the agent's states, detached, so that the value loss never moves the
    agent. The head begins at 0: the first advantages are the returns.
    """

    def __init__(self, width: int, trunk: Any = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, packed: Packed, hidden: Tensor) -> Tensor:
        """Return the value before each written token, [n]."""
        read = hidden.detach() if self.trunk is None else states(self.trunk, packed)
        values: Tensor = self.head(self.norm(read.float()))[:, 0]
        return values


class Policy:
    """A local model's live weights, under training; rollouts use the very same ones.

    With `config.lora_rank` the weights are adapted and the reference is the model without its
    adapters; otherwise a copy is kept where a reference is needed (`reference`). With
    `config.shard` the layers of all three are shared out over the `processes`.
    """

    def __init__(
        self,
        llm: LocalLLM,
        config: RLConfig,
        *,
        reference: bool,
        critic: bool,
        processes: Processes = ALONE,
    ) -> None:
        refuse_attention(llm.model)
        self.llm = llm
        self.config = config
        self._copy: Any = None
        torch.manual_seed(0)  # adapters and critic begin alike, in every process and every start
        if config.lora_rank:
            self.model = _adapted(llm.model, config)
        else:
            self._copy = copy.deepcopy(llm.model).requires_grad_(False) if reference else None
            self.model = llm.model.requires_grad_(True)
        if config.gradient_checkpointing:
            _recompute(llm.model)
        width = llm.model.config.get_text_config().hidden_size
        trunk = None
        if critic and config.critic == "model":
            trunk = copy.deepcopy(llm.model.base_model).requires_grad_(True)
        self.critic = Critic(width, trunk).to(llm.device) if critic else None
        self._layers: list[Any] = []
        if config.shard:
            device = torch.device(llm.device)
            self._layers = shard(self.model, processes, device)
            for other in (self._copy, trunk):
                if other is not None:
                    shard(other, processes, device)

    def parameters(self) -> list[Tensor]:
        """Return what is trained of the agent."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def score(self, packed: Packed) -> Written:
        """Return the written tokens' log-probabilities, entropy and states."""
        with self.arithmetic():
            return score(self.model, packed, temperature=self.config.temperature)

    @torch.no_grad()
    def reference(self, packed: Packed) -> Tensor:
        """Return the log-probabilities of the model that training began with, [n]."""
        with self.arithmetic():
            if self._copy is not None:
                found = score(self._copy, packed, temperature=self.config.temperature)
            else:
                with self.model.disable_adapter():
                    found = score(self.model, packed, temperature=self.config.temperature)
        return found.logprobs

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Hold the whole weights inside, so that each process draws by itself."""
        with gathered(self._layers), self.arithmetic():
            yield

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Recompute activations inside; dropout stays off, so that ratios begin at 1."""
        if self.config.gradient_checkpointing:
            self.model.train()
            for part in self.model.modules():
                if isinstance(part, nn.Dropout):
                    part.eval()
        try:
            yield
        finally:
            self.model.eval()
            self.llm.forget()

    def state(self) -> dict[str, Any]:
        """Return what training changes; sharded weights are put together, by all processes."""
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        kept = {k: whole(v) for k, v in self.model.state_dict().items() if k in trained}
        return {"agent": kept, "critic": _whole(self.critic) if self.critic else None}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.model.load_state_dict(_parts(state["agent"], self.model), strict=False)
        if self.critic is not None:
            self.critic.load_state_dict(_parts(state["critic"], self.critic))
        self.llm.forget()

    def whole(self) -> tuple[Any, dict[str, Tensor]]:
        """Return the model as it is to be saved, and its weights; all processes have to ask.

        Adapters are merged into a copy.
        """
        if not self.config.lora_rank:
            return self.model, _whole(self.model)
        merged = copy.deepcopy(self.model).merge_and_unload()
        return merged, merged.state_dict()

    def arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the model computes, when it updates and when it draws."""
        return arithmetic(self.config.precision, self.llm.device)


def _whole(module: nn.Module) -> dict[str, Tensor]:
    return {name: whole(tensor) for name, tensor in module.state_dict().items()}


def _parts(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    own = module.state_dict()
    return {name: part(tensor, own.get(name)) for name, tensor in state.items()}


def _adapted(model: Any, config: RLConfig) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError("peft", "rl") from error
    lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear")
    return get_peft_model(model, lora).eval()


def _recompute(model: Any) -> None:
    """Let transformers recompute activations; the call has another name from 5.20 on."""
    enable = getattr(model, "activation_checkpointing_enable", None)
    enable = enable or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
