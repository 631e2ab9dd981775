"""The shards of a corpus encoded by Ray Data, on the machines of a cluster or on this one.

Every machine needs the program, and the corpus file under the same path (a corpus in memory
travels). The encoder travels through Ray. What comes back are the codes of a shard, which this
process writes: no disk is shared for them, and two machines never write into one page of a file.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import agentic_r
from agentic_r.data.corpus import Corpus
from agentic_r.errors import MissingExtraError, RunError
from agentic_r.retriever.build import Shards
from agentic_r.retriever.workers import Job, open_job

_PATIENCE = 10.0
"""Seconds within which a cluster has to accept a connection."""


class ShardEncoder:
    """What an actor of Ray holds: the encoder and the corpus, opened once."""

    def __init__(self, job: Job, held: Sequence[Any]) -> None:
        import ray

        files, passages = ray.get(list(held))
        with tempfile.TemporaryDirectory() as folder:
            for name, raw in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(raw)
            job = msgspec.structs.replace(job, encoder=folder)
            self._shards = open_job(job, Corpus(passages) if passages else None)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Encode the shards of a batch; returns their numbers and codes."""
        numbers = [int(number) for number in batch["shard"]]
        return {"shard": numbers, "codes": [self._encoded(number) for number in numbers]}

    def _encoded(self, number: int) -> bytes:
        shards = self._shards
        size = shards.file.code_size
        rows = np.empty((shards.size(number), size), np.uint8)
        shards.encode(number, rows)
        return rows.tobytes()


def run_cluster(
    shards: Shards, rest: Sequence[int], workers: int, tick: Callable[[int], None]
) -> None:
    """Encode the shards `rest` with `workers` actors; `tick` hears of finished passages.

    Raises MissingExtraError without Ray, and RunError, with what was said last, where no cluster
    can be reached or an actor fails; what is done stays done.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "ray") from None
    with _connected(ray), _told(ray):
        cuda = shards.encoder.device.type == "cuda"
        have = ray.cluster_resources()
        most = workers or int(have.get("GPU", 0) if cuda else have.get("CPU", 1)) or 1
        held = [ray.put(_files(shards)), ray.put(_passages(shards.corpus))]
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        found = ray.data.from_items(
            [{"shard": number} for number in rest], override_num_blocks=len(rest)
        ).map_batches(
            ShardEncoder,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(most, len(rest))),
            fn_constructor_args=(_job(shards, cuda), held),
            **({"num_gpus": 1} if cuda else {"num_cpus": 1}),
        )
        for row in found.iter_rows():
            number = int(row["shard"])
            shards.put(number, row["codes"])
            tick(shards.size(number))
    missing = set(rest) - set(shards.done())
    if missing:
        raise RunError(f"Ray ended without shards {sorted(missing)[:5]}")


def _job(shards: Shards, cuda: bool) -> Job:
    return Job(
        encoder="",
        corpus=str(shards.corpus.source or ""),
        path=str(shards.file.path),
        precision=shards.precision,
        plan=shards.plan,
        device="cuda" if cuda else "cpu",
        threads=1,
    )


def _files(shards: Shards) -> dict[str, bytes]:
    """Return the files of the encoder by their names."""
    with tempfile.TemporaryDirectory() as folder:
        shards.encoder.save(Path(folder))
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _passages(corpus: Corpus) -> list[Any]:
    """Return the passages that no file has."""
    return list(corpus) if corpus.source is None else []


@contextlib.contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """Connect to the cluster, unless the caller has; a cluster that was started here ends here."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    source = str(Path(agentic_r.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    address = os.environ.get("RAY_ADDRESS", "")
    _knock(address)
    here = {} if address else {"include_dashboard": False}
    with _told(ray):
        ray.init(
            logging_level="ERROR",
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
            **here,
        )
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise RunError where nothing listens at HOST:PORT: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"RAY_ADDRESS: nothing answers at {address} ({error}); start a cluster with: "
            "ray start --head, or unset it to use this machine alone"
        ) from None


@contextlib.contextmanager
def _told(ray: Any) -> Iterator[None]:
    """Turn what Ray raises into one line: the last of what an actor said."""
    try:
        yield
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[-1] if lines else type(error).__name__
        if "InvalidAuthToken" in f"{error} {error.__cause__}":
            said += "; it wants its token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        raise RunError(
            f"Ray: {said[:300]}; the same command goes on from the finished shards"
        ) from error
