"""A query encoder for a service: the fastest engine of this machine, found by trying them.

What a processor lists says little: bf16 is four times as fast as fp32 on some that name it and
slower on others, and OpenVINO is worth more for short texts than for long ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agentic_r.retriever.encoder import Encoder, Kind, Vectors
from agentic_r.retriever.engine import Engine, engines
from agentic_r.retriever.precision import Precision
from agentic_r.retriever.trial import remember, remembered

BATCH_TOKENS = 1024
"""Tokens of one batch at most: larger ones are no faster on a CPU."""

CLOSE = 0.999
"""Least cosine of a vector with that of exact fp32."""

_SHORT = 16
_LENGTHS = (_SHORT, 24, 48)
_ROUNDS = 3


class Tried(NamedTuple):
    """An engine that was tried: seconds for all batches, and what a call costs in tokens."""

    engine: Engine
    seconds: float
    call: float


class QuickEncoder(Encoder):
    """An encoder whose queries go through the engine that was fastest when it was made.

    Passages are encoded as ever. A query's vector may differ in its last bits with the batch that
    it shares, and stays within cosine 0.999 of exact fp32; a loop, which has to find the same
    again when it is resumed, takes `Encoder`. `kept` is a folder that keeps the outcome of the
    trial for the next time.
    """

    def __init__(self, encoder: Encoder, kept: Path | None = None) -> None:
        super().__init__(
            encoder.model, encoder.tokenizer, encoder.settings, batch_tokens=BATCH_TOKENS
        )
        known = None if kept is None else remembered(kept, self)
        if known is None:
            self.engine, _, self._call = fastest(self)
            if kept is not None:
                remember(kept, self, self.engine.choice, self._call)
        else:
            self.engine, self._call = known

    def encode(
        self,
        texts: Sequence[str],
        kind: Kind,
        progress: str | None = None,
        *,
        precision: Precision = "fp32",
    ) -> Vectors:
        """Encode `texts` into float32 unit rows [n, d]; queries through the engine."""
        if kind != "query":
            return super().encode(texts, kind, progress, precision=precision)
        unique = list(dict.fromkeys(texts))
        ids = self.tokens(unique, "query")
        out = np.empty((len(unique), self.dimension), np.float32)
        for rows in thrifty([len(each) for each in ids], self.batch_tokens, self._call):
            out[rows] = self.engine.forward([ids[row] for row in rows])
        if len(unique) == len(texts):
            return out
        place = {text: row for row, text in enumerate(unique)}
        return out[[place[text] for text in texts]]


def thrifty(lengths: Sequence[int], budget: int, call: float) -> list[list[int]]:
    """Group rows so that padded tokens, and `call` tokens more for each group, are fewest.

    Groups are runs of the rows in order of length; one of more than `budget` padded tokens is
    divided afterwards.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    same = [list(rows) for _, rows in groupby(order, key=lambda row: lengths[row])]
    # best[i]: the fewest tokens for the first i lengths, and where their last group begins.
    best: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, len(same) + 1):
        rows, found = 0, (float("inf"), 0)
        for start in range(stop - 1, -1, -1):
            rows += len(same[start])
            widest = max(lengths[same[start][0]], _SHORT)
            found = min(found, (best[start][0] + rows * widest + call, start))
        best.append(found)
    groups: list[list[int]] = []
    stop = len(same)
    while stop:
        start = best[stop][1]
        whole = [row for each in same[start:stop] for row in each]
        size = max(1, budget // lengths[whole[0]])
        groups += [whole[at : at + size] for at in range(0, len(whole), size)]
        stop = start
    return groups


def fastest(encoder: Encoder, clock: Callable[[], float] | None = None) -> Tried:
    """Try every engine on batches of short texts and return the fastest that is close to fp32.

    On a CPU the processor's time is compared, the best of three rounds, so that other programs on
    the machine do not decide.
    """
    if clock is None:
        clock = time.process_time if encoder.device.type == "cpu" else time.perf_counter
    words = min(int(encoder.model.config.vocab_size) - 1, 900)
    batches = [
        [[1 + (7 * row + 3 * at) % words for at in range(length)] for row in range(512 // length)]
        for length in (min(each, encoder.max_length) for each in _LENGTHS)
    ]
    exact: list[Vectors] = []
    tried: list[Tried] = []
    for engine in engines(encoder):
        found = [engine.forward(batch) for batch in batches]
        exact = exact or found
        if all(_close(*pair) for pair in zip(exact, found, strict=True)):
            tried.append(_tried(engine, batches, clock))
    return min(tried, key=lambda each: each.seconds)


def _tried(
    engine: Engine, batches: Sequence[Sequence[Sequence[int]]], clock: Callable[[], float]
) -> Tried:
    """Time all batches, and one row of the first alone: what it costs beyond its tokens."""

    def seconds(batch: Sequence[Sequence[int]]) -> float:
        best = float("inf")
        for _ in range(_ROUNDS):
            began = clock()
            engine.forward(batch)
            best = min(best, clock() - began)
        return best

    each = [seconds(batch) for batch in batches]
    rows, row = len(batches[0]), batches[0][:1]
    engine.forward(row)
    token = each[0] / (rows * len(row[0]))
    call = seconds(row) / token - len(row[0]) if token > 0 else 0.0
    return Tried(engine, sum(each), max(0.0, call))


def _close(exact: Vectors, found: Vectors) -> bool:
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
    return bool(((exact * found).sum(1) >= CLOSE * norms).all())
