"""How a program of several processes ends."""

from __future__ import annotations

from pathlib import Path

from tests.training.launching import launch

PROGRAM = """
import sys
import torch
import torch.distributed as dist
from agentic_r.training.processes import join

# A thread of the group that asks for Python's lock gets it when this one waits, not before, and
# is still asking when the program ends: most such processes ended in an abort.
sys.setswitchinterval(1000)
join()
held = dist.group.WORLD  # as a sharded model holds it
sent = [torch.ones(4) for _ in range(dist.get_world_size())]
dist.all_gather(sent, torch.ones(4), async_op=True)
del sent
"""


def test_a_thread_at_its_last_tensor_does_not_abort_the_program(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    for done in launch([str(program)], 4):
        assert done.returncode == 0, done.stderr
