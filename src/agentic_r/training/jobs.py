"""The first process of a `torchrun` does the work of the program, the others only train.

Data, labels, files and locks are the first process's affair. The others wait here for a training,
take part in it, and wait for the next.
"""

from __future__ import annotations

from typing import Protocol

from agentic_r.training.processes import join


class Job(Protocol):
    """What a waiting process needs to know to take part in a training; it travels by pickle."""

    def take_part(self) -> None:
        """Do this process's share of the training, to its end."""


def hand_out(job: Job) -> None:
    """Let every waiting process take part; called by the first one, which then does so itself."""
    join().tell(job)


def work() -> int:
    """Take part in every training of the first process until it dismisses this one."""
    while (job := join().tell(_nothing())) is not None:
        job.take_part()
    return 0


def dismiss() -> None:
    """End the waiting processes: the first one has no more training for them."""
    join().tell(None)


def _nothing() -> Job | None:
    return None
