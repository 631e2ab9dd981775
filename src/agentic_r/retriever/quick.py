"""A query encoder for a service: the fastest engine of this machine, found by trying them.

What a processor lists says little: bf16 is four times as fast as fp32 on some that name it and
slower on others, and OpenVINO is worth more for short texts than for long ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from agentic_r.retriever.encoder import Encoder, Kind, Vectors, plan
from agentic_r.retriever.engine import Engine, engines
from agentic_r.retriever.precision import Precision

BATCH_TOKENS = 512
"""Tokens of one batch: queries are short, and larger batches of them are padding."""

CLOSE = 0.999
"""Least cosine of a vector with that of exact fp32."""

_LENGTHS = (12, 24, 48)
_ROUNDS = 3


class QuickEncoder(Encoder):
    """An encoder whose queries go through the engine that was fastest when it was made.

    Passages are encoded as ever. A query's vector may differ in its last bits with the batch that
    it shares, and stays within cosine 0.999 of exact fp32; a loop, which has to find the same
    again when it is resumed, takes `Encoder`.
    """

    def __init__(self, encoder: Encoder, engine: Engine | None = None) -> None:
        super().__init__(
            encoder.model, encoder.tokenizer, encoder.settings, batch_tokens=BATCH_TOKENS
        )
        self.engine = engine or fastest(self)

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
        for rows in plan([len(each) for each in ids], self.batch_tokens):
            out[rows] = self.engine.forward([ids[row] for row in rows])
        if len(unique) == len(texts):
            return out
        place = {text: row for row, text in enumerate(unique)}
        return out[[place[text] for text in texts]]


def fastest(encoder: Encoder, clock: Callable[[], float] = time.process_time) -> Engine:
    """Try every engine on batches of short texts and return the fastest that is close to fp32.

    What is compared is the processor's time, the best of three rounds, so that other programs on
    the machine do not decide.
    """
    words = min(int(encoder.model.config.vocab_size) - 1, 900)
    batches = [
        [[1 + (7 * row + 3 * at) % words for at in range(length)] for row in range(512 // length)]
        for length in (min(each, encoder.max_length) for each in _LENGTHS)
    ]
    exact: list[Vectors] = []
    best: tuple[float, Engine] | None = None
    for engine in engines(encoder):
        found = [engine.forward(batch) for batch in batches]
        exact = exact or found
        if not all(_close(*pair) for pair in zip(exact, found, strict=True)):
            continue
        seconds = min(_seconds(engine, batches, clock) for _ in range(_ROUNDS))
        if best is None or seconds < best[0]:
            best = seconds, engine
    assert best is not None  # the first engine is compared with itself
    return best[1]


def _close(exact: Vectors, found: Vectors) -> bool:
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
    return bool(((exact * found).sum(1) >= CLOSE * norms).all())


def _seconds(
    engine: Engine, batches: Sequence[Sequence[Sequence[int]]], clock: Callable[[], float]
) -> float:
    began = clock()
    for batch in batches:
        engine.forward(batch)
    return clock() - began
