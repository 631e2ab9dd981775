"""Training batches: which passages meet which queries, and who may be whose negative."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import torch

from agentic_r.data.copies import content_key
from agentic_r.data.corpus import Corpus
from agentic_r.errors import DataError
from agentic_r.types import Example


@dataclass(frozen=True)
class Batch:
    """Some examples with all their passages, each passage once.

    `queries` [q] are the strings sent, `passages` [p] are ids; `positive` and `allowed` are bool
    [q, p]: what a query should find, and what may be its negative; `targets` [q, p] are graded
    utilities, NaN where there is none; `listed` are the rows of a query's own passages, positives
    first, in the example's order.
    """

    queries: tuple[str, ...]
    passages: tuple[str, ...]
    positive: torch.Tensor
    allowed: torch.Tensor
    targets: torch.Tensor
    listed: tuple[tuple[int, ...], ...]


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
        mined: Sequence[tuple[str, ...]] = (),
    ) -> None:
        if not examples:
            raise DataError(
                "got no training examples, expected at least one; the labelling report says why "
                "searches were dropped"
            )
        self.examples = tuple(examples)
        self.mined = tuple(mined)
        self._size = size
        self._seed = seed
        self._negatives = negatives
        self._by_query: dict[str, set[str]] = {}
        self._by_question: dict[tuple[str, str], set[str]] = {}
        for example in self.examples:
            check(example)
            self._by_query.setdefault(example.query, set()).update(example.positives)
            key = (example.dataset, example.question_id)
            self._by_question.setdefault(key, set()).update(example.positives)

    def __len__(self) -> int:
        """Steps of one epoch; the last batch may be smaller."""
        return math.ceil(len(self.examples) / self._size)

    def with_mined(self, mined: Sequence[tuple[str, ...]]) -> Batches:
        """Return the same batches, each example drawing from these negatives too."""
        return Batches(
            self.examples, self._size, self._seed, negatives=self._negatives, mined=mined
        )

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch `start` on."""
        order = list(range(len(self.examples)))
        random.Random(f"{self._seed}:epoch:{number}").shuffle(order)
        for at in range(start * self._size, len(order), self._size):
            yield self._batch(number, order[at : at + self._size])

    def useful(self, example: Example) -> set[str]:
        """Return what is a positive of the same query text or of the same question."""
        return (
            self._by_query[example.query]
            | self._by_question[(example.dataset, example.question_id)]
        )

    def _batch(self, number: int, rows: Sequence[int]) -> Batch:
        examples = [self.examples[row] for row in rows]
        named = [
            tuple(dict.fromkeys((*self.examples[row].positives, *self._drawn(number, row))))
            for row in rows
        ]
        passages = tuple(dict.fromkeys(id for ids in named for id in ids))
        place = {id: at for at, id in enumerate(passages)}
        positive = torch.zeros(len(examples), len(passages), dtype=torch.bool)
        allowed = torch.ones(len(examples), len(passages), dtype=torch.bool)
        for at, example in enumerate(examples):
            positive[at, [place[id] for id in example.positives]] = True
            allowed[at, [place[id] for id in self._forbidden(example) if id in place]] = False
        return Batch(
            tuple(example.query for example in examples),
            passages,
            positive,
            allowed,
            _targets(examples, place),
            tuple(tuple(place[id] for id in ids) for ids in named),
        )

    def _drawn(self, number: int, row: int) -> Sequence[str]:
        negatives = self.examples[row].negatives
        if self.mined:
            negatives = (*negatives, *self.mined[row])
        if self._negatives is None or len(negatives) <= self._negatives:
            return negatives
        draw = random.Random(f"{self._seed}:epoch:{number}:negatives:{row}")
        return draw.sample(negatives, self._negatives)

    def _forbidden(self, example: Example) -> set[str]:
        return (self.useful(example) - set(example.negatives)) | self._by_query[example.query]


def one_positive_each(examples: Iterable[Example]) -> list[Example]:
    """Turn each example into upstream's rows: one positive and all negatives (contracts B6)."""
    rows = []
    for example in examples:
        grades = graded(example)
        for positive in example.positives:
            ids = (positive, *example.negatives)
            targets = tuple(grades[id] for id in ids) if grades else None
            rows.append(msgspec.structs.replace(example, positives=ids[:1], targets=targets))
    return rows


def same_passages_once(corpus: Corpus, examples: Iterable[Example]) -> list[Example]:
    """Name passages of equal content by one id, so that no copy of a positive is a negative.

    Equal are texts that differ in case and white space at most. What is a copy of a positive of
    its own example leaves the negatives. Raises DataError for an id that the corpus lacks.
    """
    first: dict[bytes, str] = {}
    names: dict[str, str] = {}
    found = []
    for example in examples:
        check(example)
        for id in (*example.positives, *example.negatives):
            if id not in names:
                names[id] = first.setdefault(content_key(corpus.get(id).contents), id)
        found.append(_renamed(example, names))
    return found


def graded(example: Example) -> dict[str, float]:
    """Return the graded utility of each passage of an example, none where it has no targets."""
    if example.targets is None:
        return {}
    return dict(zip((*example.positives, *example.negatives), example.targets, strict=True))


def check(example: Example) -> None:
    """Raise DataError for an example without positives or with another number of targets."""
    where = f"question {example.question_id!r}"
    if not example.positives:
        raise DataError(f"{where}: got an example without positives, expected at least one")
    passages = len(example.positives) + len(example.negatives)
    if example.targets is not None and len(example.targets) != passages:
        raise DataError(
            f"{where}: got {len(example.targets)} targets for {passages} passages, expected one "
            "for each positive and then one for each negative"
        )


def _renamed(example: Example, names: Mapping[str, str]) -> Example:
    grades = {names[id]: value for id, value in reversed(graded(example).items())}
    positives = tuple(dict.fromkeys(names[id] for id in example.positives))
    negatives = tuple(
        dict.fromkeys(names[id] for id in example.negatives if names[id] not in positives)
    )
    targets = tuple(grades[id] for id in (*positives, *negatives)) if grades else None
    return msgspec.structs.replace(
        example, positives=positives, negatives=negatives, targets=targets
    )


def _targets(examples: Sequence[Example], place: Mapping[str, int]) -> torch.Tensor:
    targets = torch.full((len(examples), len(place)), torch.nan)
    for row, example in enumerate(examples):
        for id, value in graded(example).items():
            if id in place:
                targets[row, place[id]] = value
    return targets
