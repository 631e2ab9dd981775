"""Watching a training on questions it does not learn from: hit@k over a small pool of passages."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from agentic_r.data.corpus import Corpus
from agentic_r.types import Example

Encode = Callable[[Sequence[str], Sequence[str]], tuple[torch.Tensor, torch.Tensor]]
"""Query strings and passage ids to their unit rows."""


@dataclass(frozen=True)
class Dev:
    """Queries, the passages each should find, and the pool they are found in."""

    queries: tuple[str, ...]
    wanted: tuple[frozenset[str], ...]
    pool: tuple[str, ...]


@dataclass(frozen=True, order=True)
class DevScore:
    """Share of queries with a wanted passage in the top k, and the mean reciprocal rank."""

    hit: float
    mrr: float


def make_dev(
    corpus: Corpus, dev: Sequence[Example], trained: Sequence[Example], limit: int, seed: int
) -> Dev | None:
    """Choose the pool: what dev queries want and name, then what training names, then others.

    Each of the last two only as far as the pool stays within `limit` passages; seeded. None
    without dev examples.
    """
    if not dev:
        return None
    draw = random.Random(f"{seed}:dev")
    pool = dict.fromkeys(id for x in dev for id in (*x.positives, *x.negatives))
    named = dict.fromkeys(id for x in trained for id in (*x.positives, *x.negatives))
    others = [id for id in named if id not in pool]
    draw.shuffle(others)
    pool.update(dict.fromkeys(others[: max(0, limit - len(pool))]))
    missing = min(limit, len(corpus)) - len(pool)
    if missing > 0:
        rows = draw.sample(range(len(corpus)), min(len(corpus), missing + len(pool)))
        fresh = [id for id in (corpus[row].id for row in rows) if id not in pool]
        pool.update(dict.fromkeys(fresh[:missing]))
    return Dev(tuple(x.query for x in dev), tuple(frozenset(x.positives) for x in dev), tuple(pool))


def measure(dev: Dev, encode: Encode, k: int) -> DevScore:
    """Search the pool for every dev query and score what comes back."""
    queries, passages = encode(dev.queries, dev.pool)
    place = {id: row for row, id in enumerate(dev.pool)}
    hits, reciprocal = 0, 0.0
    for query, wanted in zip(queries, dev.wanted, strict=True):
        scores = passages @ query
        best = max(float(scores[place[id]]) for id in wanted)
        rank = 1 + int((scores > best).sum())
        hits += rank <= k
        reciprocal += 1 / rank
    count = len(dev.queries)
    return DevScore(hits / count, reciprocal / count)


def hold_out(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Split examples into those to learn from and those of a held-out share of questions."""
    questions = sorted({(x.dataset, x.question_id) for x in examples})
    random.Random(f"{seed}:held out").shuffle(questions)
    held = set(questions[: round(share * len(questions))])
    kept = [x for x in examples if (x.dataset, x.question_id) not in held]
    return kept, [x for x in examples if (x.dataset, x.question_id) in held]
