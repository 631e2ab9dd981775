"""Decoder layers shared out over processes (FSDP2): weights, gradients and optimiser state.

A layer's weights are whole only while it computes, or while `gathered` lasts. The embeddings, the
output layer and heads stay whole in every process, and their gradients are summed by `Processes`.
What a process computes with a layer it computes together with the others: all of them have to make
the same number of passes forward and backward, outside of `gathered`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from agentic_r.errors import ConfigError
from agentic_r.training.processes import Processes


def shard(model: nn.Module, processes: Processes, device: torch.device) -> list[Any]:
    """Share the decoder layers of a transformers model out over all processes; returns them.

    Gradients are summed over the processes, not averaged. Raises ConfigError where the model does
    not say which of its modules are layers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    names = set(getattr(model, "_no_split_modules", None) or ())
    layers: list[Any] = [part for part in model.modules() if type(part).__name__ in names]
    if not layers:
        raise ConfigError(
            f"agent.train.rl.shard: {type(model).__name__} does not name its layers "
            "(_no_split_modules); set it to false"
        )
    mesh = init_device_mesh(device.type, (processes.size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        layer.set_gradient_divide_factor(1.0)
        layer.set_force_sum_reduction_for_comms(True)
    return layers


@contextlib.contextmanager
def gathered(layers: Iterable[Any]) -> Iterator[None]:
    """Keep sharded layers whole inside: each process may then read with them by itself."""
    held = list(layers)
    for layer in held:
        layer.set_reshard_after_forward(False)
        layer.unshard()
    try:
        yield
    finally:
        for layer in held:
            layer.reshard()
            layer.set_reshard_after_forward(True)


def is_sharded(tensor: Any) -> bool:
    """Say whether this process holds only a part of a tensor."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: Any) -> Any:
    """Return all of a tensor: a sharded one on the CPU, for which every process has to ask."""
    return tensor.detach().full_tensor().cpu() if is_sharded(tensor) else tensor


def part(value: Any, like: Any) -> Any:
    """Return this process's part of a whole tensor, where `like` is sharded; else the value."""
    if not is_sharded(like) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    moved = value.detach().to(like.device)
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


def clip(parameters: Sequence[Tensor], most: float) -> Tensor:
    """Cut the gradient's norm, over all parts of it, to `most`; returns the norm before.

    As `torch.nn.utils.clip_grad_norm_`, which does not take whole and sharded tensors together.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    parts: list[Any] = [g for g in gradients if is_sharded(g)]
    if not parts:
        return torch.nn.utils.clip_grad_norm_(parameters, most)
    shared = torch.stack([g.to_local().float().square().sum() for g in parts]).sum()
    dist.all_reduce(shared)
    rest = [g.float().square().sum() for g in gradients if not is_sharded(g)]
    norm = torch.stack([shared, *rest]).sum().sqrt()
    for gradient in gradients:
        gradient.mul_((most / (norm + 1e-6)).clamp(max=1.0))
    return norm
