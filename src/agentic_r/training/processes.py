"""Training on several devices and machines: `torchrun` or `accelerate launch`, no code change.

Both say in environment variables who is who. A process encodes its share of a batch, everybody
gets all vectors, and the gradients of the weights are summed: what comes out is the training of
one process on the whole batch, whatever the number of processes.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

_PATIENCE = timedelta(days=14)
"""Workers wait while the first process rolls out and labels, which may take days."""

_BUCKET = 16_000_000
"""Numbers summed over the processes at once."""

_PARTING = 0.5
"""Seconds that threads of the group have to let go of their tensors."""


@dataclass(frozen=True)
class Processes:
    """The processes of one training, of which this is number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def shares(self, lengths: Sequence[int]) -> list[list[int]]:
        """Deal rows of these lengths in tokens out to the processes, the same way on all."""
        if self.size == 1:
            return [list(range(len(lengths)))]
        order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
        return [sorted(order[rank :: self.size]) for rank in range(self.size)]

    def gather(self, own: torch.Tensor, shares: Sequence[Sequence[int]]) -> torch.Tensor:
        """Put together the rows [n, d] of all processes; `own` are those of this one's share."""
        if self.size == 1:
            return own
        most = max(len(rows) for rows in shares)
        padded = own.new_zeros(most, own.shape[1])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(parts, padded)
        whole = own.new_empty(sum(len(rows) for rows in shares), own.shape[1])
        for part, rows in zip(parts, shares, strict=True):
            whole[list(rows)] = part[: len(rows)]
        return whole

    def own(self, items: Sequence[T]) -> list[T]:
        """Return every `size`-th item: what this process does of a list that all of them know."""
        return list(items[self.rank :: self.size])

    def collect(self, own: Sequence[T]) -> list[T]:
        """Put together what the processes made of their `own` items, in the order of the list."""
        if self.size == 1:
            return list(own)
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, list(own))
        rounds = range(max(len(part) for part in parts))
        return [part[at] for at in rounds for part in parts if at < len(part)]

    def add_up(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return the sums of numbers of the same names over the processes."""
        if self.size == 1:
            return dict(numbers)
        total = torch.tensor(list(numbers.values()), dtype=torch.float64)
        dist.all_reduce(total)
        return dict(zip(numbers, total.tolist(), strict=True))

    def sum_gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        """Add up the gradients of all processes; a weight that has none anywhere gets zeros."""
        if self.size == 1:
            return
        bucket: list[torch.Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(gradient.numel() for gradient in bucket) >= _BUCKET:
                _sum(bucket)
                bucket = []
        _sum(bucket)

    def tell(self, value: T) -> T:
        """Return the first process's value on every process."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        told: T = box[0]
        return told


ALONE = Processes()
"""The one process of a training that was started without a launcher."""


def join() -> Processes:
    """Join the processes that `torchrun` or `accelerate launch` started; alone without them."""
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
            return ALONE
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("cpu:gloo,cuda:nccl", timeout=_PATIENCE)
        else:
            dist.init_process_group("gloo", timeout=_PATIENCE)
        atexit.register(_leave)
    return Processes(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    # A thread of the group that drops its last tensor needs Python's lock. One that asks for it
    # when Python has begun to end takes the program down, after everything was done: "terminate
    # called without an active exception". A sharded model keeps the group, and with it those
    # threads, beyond its destruction; so they are given the lock for a moment before the end.
    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(_PARTING)


def _sum(gradients: Sequence[torch.Tensor]) -> None:
    if not gradients:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, part in zip(gradients, torch.split(flat, sizes), strict=True):
        gradient.copy_(part.view_as(gradient))
