"""Training batches: which passages meet which queries, and who may be whose negative."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from agentic_r.errors import DataError
from agentic_r.types import Example


@dataclass(frozen=True)
class Batch:
    """Some examples with all their passages, each passage once.

    `queries` [q] are the strings sent, `passages` [p] are ids, `positive` and `allowed` are bool
    [q, p]: what a query should find, and what may be its negative.
    """

    queries: tuple[str, ...]
    passages: tuple[str, ...]
    positive: torch.Tensor
    allowed: torch.Tensor


class Batches:
    """The same examples as batches, in another seeded order each epoch.

    A passage is no negative of a query where it is a positive of the same query text in any
    example, or, unless the example names it as a negative itself, a positive of another search
    of the same question. Any other passage of the batch is. With `negatives`, each example brings
    that many of its own, another draw each epoch: training costs as much as it forwards
    passages. Raises DataError where there are no examples or one has no positive.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        size: int,
        seed: int,
        *,
        negatives: int | None = None,
    ) -> None:
        if not examples:
            raise DataError(
                "got no training examples, expected at least one; the labelling report says why "
                "searches were dropped"
            )
        self._examples = tuple(examples)
        self._size = size
        self._seed = seed
        self._negatives = negatives
        self._by_query: dict[str, set[str]] = {}
        self._by_question: dict[tuple[str, str], set[str]] = {}
        for example in self._examples:
            if not example.positives:
                raise DataError(
                    f"question {example.question_id!r}: got an example without positives, "
                    "expected at least one"
                )
            self._by_query.setdefault(example.query, set()).update(example.positives)
            key = (example.dataset, example.question_id)
            self._by_question.setdefault(key, set()).update(example.positives)

    def __len__(self) -> int:
        """Steps of one epoch; the last batch may be smaller."""
        return math.ceil(len(self._examples) / self._size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch `start` on."""
        order = list(range(len(self._examples)))
        random.Random(f"{self._seed}:epoch:{number}").shuffle(order)
        for at in range(start * self._size, len(order), self._size):
            yield self._batch(number, order[at : at + self._size])

    def _batch(self, number: int, rows: Sequence[int]) -> Batch:
        examples = [self._examples[row] for row in rows]
        named = [[*self._examples[row].positives, *self._drawn(number, row)] for row in rows]
        passages = tuple(dict.fromkeys(id for ids in named for id in ids))
        positive = [[id in example.positives for id in passages] for example in examples]
        allowed = [[self._allowed(example, id) for id in passages] for example in examples]
        return Batch(
            tuple(example.query for example in examples),
            passages,
            torch.tensor(positive),
            torch.tensor(allowed),
        )

    def _drawn(self, number: int, row: int) -> Sequence[str]:
        negatives = self._examples[row].negatives
        if self._negatives is None or len(negatives) <= self._negatives:
            return negatives
        draw = random.Random(f"{self._seed}:epoch:{number}:negatives:{row}")
        return draw.sample(negatives, self._negatives)

    def _allowed(self, example: Example, id: str) -> bool:
        if id in self._by_query[example.query]:
            return False
        if id in example.negatives:
            return True
        return id not in self._by_question[(example.dataset, example.question_id)]
