"""The step that every training of an agent takes: clip the gradient, AdamW, the learning rate.

Weights are float32 whatever the arithmetic is: with bf16 the matrix products are computed in
half precision (`arithmetic`) and their gradients come back in full, so that an update too small
for half precision is not lost.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from agentic_r.training.processes import ALONE, Processes
from agentic_r.training.sharding import clip, is_sharded, part, whole

Scale = Callable[[int], float]
"""The factor of the learning rate at a step, from 0."""


class Descent:
    """AdamW on some weights, with a learning rate that changes and a gradient that is cut."""

    def __init__(
        self,
        parameters: Iterable[torch.Tensor],
        rate: float,
        scale: Scale,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        max_norm: float = 1.0,
        processes: Processes = ALONE,
    ) -> None:
        self.parameters = list(parameters)
        split = [p for p in self.parameters if is_sharded(p)]
        one = [p for p in self.parameters if not is_sharded(p)]
        # Kernels over many tensors do not take parts and whole ones together.
        groups = [{"params": group} for group in (one, split) if group]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=betas, weight_decay=0.01)
        self._order = [*one, *split]
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, scale)
        self._max_norm = max_norm
        self._processes = processes

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self) -> float:
        """Go down the gradients that are there and drop them; returns their norm before the cut.

        The gradients of all processes are added up first. The learning rate stays as it is until
        `advance`: an update may take several steps.
        """
        # Those of sharded weights were summed on the way back.
        self._processes.sum_gradients(p for p in self.parameters if not is_sharded(p))
        norm = clip(self.parameters, self._max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def advance(self) -> None:
        """Move on to the next learning rate."""
        self.schedule.step()

    def slow_down(self, factor: float) -> None:
        """Multiply the learning rates from now on."""
        self.schedule.base_lrs = [rate * factor for rate in self.schedule.base_lrs]
        for group in self.optimizer.param_groups:
            group["lr"] *= factor

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs to go on as if nothing had happened.

        Sharded tensors are put together: every process has to ask.
        """
        state = self.optimizer.state_dict()
        kept = {
            number: {name: whole(value) for name, value in own.items()}
            for number, own in state["state"].items()
        }
        return {"optimizer": state | {"state": kept}, "schedule": self.schedule.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        own = {
            number: {name: part(value, self._order[number]) for name, value in kept.items()}
            for number, kept in state["optimizer"]["state"].items()
        }
        self.optimizer.load_state_dict(state["optimizer"] | {"state": own})
        self.schedule.load_state_dict(state["schedule"])


def rising(steps: float) -> Scale:
    """Return a factor that rises to 1 in `steps` steps and stays there."""
    return lambda step: min(1.0, (step + 1) / steps) if steps >= 1 else 1.0


def rising_then_falling(steps: int, warmup: int, decay_from: float = 0.0) -> Scale:
    """Return a factor that rises for `warmup` steps and falls to a tenth along a cosine.

    The fall begins at the share `decay_from` of the steps.
    """

    def scale(step: int) -> float:
        done = max(0.0, step / max(1, steps) - decay_from) / (1 - decay_from)
        return min(1.0, (step + 1) / warmup) * (0.55 + 0.45 * math.cos(math.pi * min(1, done)))

    return scale


def arithmetic(precision: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a model computes: bf16 products, or all of it in fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
