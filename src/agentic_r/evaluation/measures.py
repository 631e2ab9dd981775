"""What the columns of a table are: each a ratio of two sums over questions.

A measure says of one record what it adds above and below the line, or None where the record does
not hold it; so means, pooled rows, intervals and tests all read the same definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from agentic_r.errors import DataError

if TYPE_CHECKING:
    from agentic_r.evaluation.benchmark import Record

Part = tuple[float, float] | None


class Measure(NamedTuple):
    """One column: its name in files, its head in a table, what it says, its two parts."""

    name: str
    head: str
    about: str
    of: Callable[[Record], Part]
    fraction: bool = True


def _one(field: str) -> Callable[[Record], Part]:
    def of(record: Record) -> Part:
        value = getattr(record, field)
        return None if value is None else (float(value), 1.0)

    return of


def _ratio(above: str, below: str) -> Callable[[Record], Part]:
    def of(record: Record) -> Part:
        top, bottom = getattr(record, above), getattr(record, below)
        return None if top is None or bottom is None else (float(top), float(bottom))

    return of


def _thousand(record: Record) -> Part:
    return None if record.cost is None else (1000 * record.cost, 1.0)


def _unfinished(record: Record) -> Part:
    return None if record.stop is None else (float(record.stop != "answered"), 1.0)


def _invalid(record: Record) -> Part:
    return None if record.invalid_turns is None else (float(record.invalid_turns > 0), 1.0)


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "em", "EM", "the answer is, after normalisation, one of the accepted ones", _one("em")
        ),
        Measure(
            "f1",
            "F1",
            "how far the words of the answer and of the best accepted one overlap",
            _one("f1"),
        ),
        Measure(
            "acc", "acc", "an accepted answer is a piece of the answer (cover match)", _one("acc")
        ),
        Measure(
            "precision",
            "prec",
            "share of the answer's words that an accepted answer has",
            _one("precision"),
        ),
        Measure(
            "recall",
            "rec",
            "share of an accepted answer's words that the answer has",
            _one("recall"),
        ),
        Measure(
            "hit_at_3",
            "hit@3",
            "searches asking an annotated hop whose passage is among the first 3",
            _ratio("hits", "asked"),
        ),
        Measure(
            "answer_recall",
            "ans@k",
            "searches that showed a passage holding an accepted answer",
            _ratio("answer_hits", "answer_searches"),
        ),
        Measure(
            "gold_recall",
            "gold@k",
            "passages known to be relevant that some search of the question showed",
            _ratio("found", "gold"),
        ),
        Measure("searches", "searches", "searches a question", _one("searches"), fraction=False),
        Measure(
            "tokens",
            "tokens",
            "tokens that the model wrote for a question",
            _one("tokens"),
            fraction=False,
        ),
        Measure(
            "prompt_tokens",
            "read",
            "tokens that the model was given for a question, in all its calls together",
            _one("prompt_tokens"),
            fraction=False,
        ),
        Measure(
            "cost",
            "cost/1k",
            "price of the tokens of 1,000 questions, in the unit of agent.price; every call counts "
            "in full, whatever a server remembers or was asked before",
            _thousand,
            fraction=False,
        ),
        Measure("unfinished", "unfin.", "questions that ended without an answer", _unfinished),
        Measure("invalid", "invalid", "questions with a turn that could not be read", _invalid),
    )
}
"""Every measure by name, in the order of the table."""


def measure(name: str) -> Measure:
    """Return the measure of a name. Raises DataError, with the names there are, for another."""
    if name not in MEASURES:
        raise DataError(f"got metric {name!r}, expected one of {', '.join(MEASURES)}")
    return MEASURES[name]


def mean(name: str, records: Iterable[Record]) -> float | None:
    """Return a measure over records that hold it; None where none does."""
    parts = [part for record in records if (part := MEASURES[name].of(record)) is not None]
    below = sum(part[1] for part in parts)
    return sum(part[0] for part in parts) / below if below else None


def measured(records: Sequence[Record]) -> list[str]:
    """Name the measures that at least one record holds with some weight."""
    return [name for name in MEASURES if mean(name, records) is not None]
