"""The corpus encoded into one file of vectors, shard by shard: bounded memory, resumed when killed.

    passages.faiss     the vectors, written in place
    shards/plan.json   what is being encoded, with what
    shards/N.json      shard N is whole: the sha256 of its rows

A shard's passages are read, sorted by length, batched by a budget of tokens, encoded and written.
Several processes take shards in turn, each on a GPU of its own where there are several, or the
machines of a Ray cluster do; the bytes are the same whoever encodes them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from tqdm import tqdm

from agentic_r.data.corpus import Corpus
from agentic_r.errors import DataError
from agentic_r.io import write_atomic
from agentic_r.retriever.codes import CodesFile, Format, empty
from agentic_r.retriever.encoder import Encoder, plan
from agentic_r.retriever.engine import Engine, EnginePrecision, open_engine

SHARD = 16_384
"""Passages of a shard: what a kill can lose, and what is held in memory at once."""

_TOKENISED = 2_048


class Plan(msgspec.Struct, frozen=True):
    """All that the bytes of the vectors depend on."""

    encoder: str
    corpus: str
    count: int
    dimension: int
    vectors: Format
    engine: str
    batch_tokens: int
    shard: int


class Shards:
    """The shards of one file of vectors: which are done, and how one is made."""

    def __init__(
        self,
        path: Path,
        encoder: Encoder,
        corpus: Corpus,
        vectors: Format,
        precision: EnginePrecision,
        shard: int = SHARD,
    ) -> None:
        self.encoder = encoder
        self.corpus = corpus
        self.precision = precision
        self.engine: Engine = open_engine(encoder, precision, len(corpus))
        self.folder = path.parent / "shards"
        self.file = CodesFile(path, empty(encoder.dimension, vectors), len(corpus))
        self.plan = Plan(
            encoder.fingerprint,
            corpus.digest,
            len(corpus),
            encoder.dimension,
            vectors,
            self.engine.name,
            encoder.batch_tokens,
            shard,
        )

    def __len__(self) -> int:
        return -(-self.plan.count // self.plan.shard)

    def size(self, number: int) -> int:
        """How many passages a shard has."""
        return min(self.plan.shard, self.plan.count - number * self.plan.shard)

    def begin(self) -> list[int]:
        """Make the file, or go on with one that was begun with this very plan; returns the rest.

        A shard counts as done where its rows still have the digest that it was left with.
        """
        plan_file = self.folder / "plan.json"
        raw = msgspec.json.encode(self.plan)
        if not plan_file.is_file() or plan_file.read_bytes() != raw:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.file.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(plan_file, raw)
        self.file.create()
        return [number for number in range(len(self)) if not self._whole(number)]

    def done(self) -> list[int]:
        """List the shards that say they are done."""
        return sorted(int(p.stem) for p in self.folder.glob("*.json") if p.stem.isdecimal())

    def write(self, number: int, tick: Callable[[int], None] = lambda _: None) -> None:
        """Encode one shard and write its rows, then say that it is done.

        Raises DataError where a passage gives a vector that is no number.
        """
        rows = self._rows(number)
        self.encode(number, rows, tick)
        self._close(number, rows)

    def put(self, number: int, codes: bytes) -> None:
        """Write the rows of a shard that was encoded elsewhere, then say that it is done."""
        rows = self._rows(number)
        rows[:] = np.frombuffer(codes, np.uint8).reshape(rows.shape)
        self._close(number, rows)

    def encode(self, number: int, rows: Any, tick: Callable[[int], None] = lambda _: None) -> None:
        """Encode one shard into `rows`, bytes [n, code size]. Raises as `write` does."""
        start = number * self.plan.shard
        ids = self._tokens(start, start + self.size(number))
        for group in plan([len(x) for x in ids], self.plan.batch_tokens):
            vectors = self.engine.forward([ids[row] for row in group])
            bad = ~np.isfinite(vectors).all(1)
            if bad.any():
                id = self.corpus[start + group[int(bad.argmax())]].id
                raise DataError(
                    f"passage {id!r} has a vector that is no number ({self.engine.name}); "
                    "check the encoder, or set retriever.index.precision to fp32"
                )
            rows[group] = self.file.encode(vectors)
            tick(len(group))

    def _rows(self, number: int) -> Any:
        start = number * self.plan.shard
        return self.file.rows(start, start + self.size(number), "r+")

    def _close(self, number: int, rows: Any) -> None:
        rows.flush()
        digest = hashlib.sha256(rows).hexdigest()
        write_atomic(self.folder / f"{number:06}.json", msgspec.json.encode(digest))

    def clear(self) -> None:
        """Remove the journal, once a manifest vouches for the file."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _whole(self, number: int) -> bool:
        try:
            digest = msgspec.json.decode((self.folder / f"{number:06}.json").read_bytes(), type=str)
        except (OSError, msgspec.DecodeError):
            return False
        start = number * self.plan.shard
        rows = self.file.rows(start, start + self.size(number))
        whole = hashlib.sha256(rows).hexdigest() == digest
        if not whole:
            (self.folder / f"{number:06}.json").unlink()
        return whole

    def _tokens(self, start: int, stop: int) -> list[array[int]]:
        ids: list[array[int]] = []
        for at in range(start, stop, _TOKENISED):
            part = self.corpus.passages(at, min(at + _TOKENISED, stop))
            texts = [passage.contents for passage in part]
            ids.extend(array("i", row) for row in self.encoder.tokens(texts, "passage"))
        return ids


def encode_corpus(
    shards: Shards,
    workers: int = 0,
    progress: str | None = None,
    scale: Literal["local", "ray"] = "local",
) -> None:
    """Encode every shard that is not done yet, with `workers` processes; 0 is one a GPU.

    With `scale` "ray" they are those of a Ray cluster. `progress` names a progress bar; None shows
    none. Raises as `Shards.write` does, and RunError where a worker process fails.
    """
    rest = shards.begin()
    done = shards.plan.count - sum(map(shards.size, rest))
    total = shards.plan.count
    with tqdm(
        total=total, initial=done, desc=progress, unit=" passage", disable=progress is None
    ) as bar:
        if progress is not None:
            bar.set_postfix_str(shards.engine.name)

        def tick(count: int) -> None:
            bar.update(count)

        if scale == "ray" and rest:
            from agentic_r.retriever.cluster import run_cluster

            run_cluster(shards, rest, workers, tick)
            return
        workers = workers or max(1, torch.cuda.device_count())
        if workers == 1 or len(rest) < 2 or shards.corpus.source is None:
            for number in rest:
                shards.write(number, tick)
            return
        from agentic_r.retriever.workers import run_workers

        run_workers(shards, rest, workers, tick)


def parent_lives(parent: int) -> bool:
    """Say whether the process that started this one is still there."""
    return os.getppid() == parent or sys.platform == "win32"
