"""Several processes that encode shards of one corpus, each on its own GPU where it has one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch

import agentic_r
from agentic_r.data.corpus import Corpus
from agentic_r.errors import RunError
from agentic_r.retriever.build import Plan, Shards, parent_lives
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.engine import EnginePrecision

_TICK = 0.2
"""Seconds between two looks at the shards that are done."""


class Job(msgspec.Struct, frozen=True):
    """All that a worker is told."""

    encoder: str
    corpus: str
    path: str
    precision: EnginePrecision
    plan: Plan
    device: str
    threads: int
    parent: int = 0
    shards: list[int] = []


def run_workers(
    shards: Shards, rest: Sequence[int], workers: int, tick: Callable[[int], None]
) -> None:
    """Encode the shards `rest` with `workers` processes; `tick` hears of finished passages.

    A worker ends when this process does. Raises RunError, with what the worker said last, where
    one fails; what is done stays done.
    """
    with tempfile.TemporaryDirectory() as folder:
        shards.encoder.save(Path(folder) / "encoder")
        jobs = [_job(shards, rest[n::workers], n, workers, folder) for n in range(workers)]
        processes = []
        for number, job in enumerate(jobs):
            said = Path(folder) / f"{number}.log"
            with said.open("wb") as log:
                processes.append((_start(job, log.fileno()), said))
        try:
            _watch(shards, set(rest), processes, tick)
        finally:
            for process, _ in processes:
                process.terminate()
                process.wait()


def _job(shards: Shards, mine: Sequence[int], number: int, workers: int, folder: str) -> Job:
    cuda = shards.encoder.device.type == "cuda"
    device = f"cuda:{number % torch.cuda.device_count()}" if cuda else "cpu"
    return Job(
        encoder=f"{folder}/encoder",
        corpus=str(shards.corpus.source),
        path=str(shards.file.path),
        precision=shards.precision,
        plan=shards.plan,
        device=device,
        threads=max(1, torch.get_num_threads() // workers),
        parent=os.getpid(),
        shards=list(mine),
    )


def _start(job: Job, log: int) -> subprocess.Popen[bytes]:
    source = str(Path(agentic_r.__file__).parents[1])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "agentic_r.retriever.workers"],
        stdin=subprocess.PIPE,
        stderr=log,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(job))
    process.stdin.close()
    return process


def _watch(
    shards: Shards,
    rest: set[int],
    processes: Sequence[tuple[subprocess.Popen[bytes], Path]],
    tick: Callable[[int], None],
) -> None:
    waiting = set(rest)
    while waiting:
        running = [process for process, _ in processes if process.poll() is None]
        for number in waiting & set(shards.done()):
            waiting.discard(number)
            tick(shards.size(number))
        for number, (process, said) in enumerate(processes):
            if process.poll():
                lines = said.read_text(errors="replace").strip().splitlines()
                raise RunError(
                    f"worker {number} of {len(processes)} failed with exit code "
                    f"{process.returncode}: {lines[-1] if lines else 'it said nothing'}; the same "
                    "command goes on from the finished shards"
                )
        if waiting and not running and not waiting & set(shards.done()):
            raise RunError(f"the workers ended without shards {sorted(waiting)[:5]}")
        time.sleep(_TICK)


def open_job(job: Job, corpus: Corpus | None = None) -> Shards:
    """Open the shards of a job, of the corpus that it names if none is given.

    Raises RunError where this process would compute otherwise than the first.
    """
    torch.set_num_threads(job.threads)
    plan = job.plan
    encoder = Encoder.load(job.encoder, batch_tokens=plan.batch_tokens, device=job.device)
    corpus = corpus or Corpus.load(job.corpus)
    shards = Shards(Path(job.path), encoder, corpus, plan.vectors, job.precision, plan.shard)
    for name in Plan.__struct_fields__:
        found, wanted = (str(getattr(each, name)) for each in (shards.plan, plan))
        if found.partition(" on ")[0] != wanted.partition(" on ")[0]:
            raise RunError(f"{name}: got {found}, expected {wanted}, as the first process has")
    return shards


def work(job: Job) -> None:
    """Encode the shards of a job. Raises as `open_job` does."""
    shards = open_job(job)
    for number in job.shards:
        if not parent_lives(job.parent):
            return
        shards.write(number)


if __name__ == "__main__":
    work(msgspec.json.decode(sys.stdin.buffer.read(), type=Job))
