"""The report of a run: one value that holds everything, as report.json and as report.html.

`Report` is filled by the loop from its stages. report.json is the value itself; report.html
shows the same to a reader who saw nothing else (see `page`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Row
from agentic_r.evaluation.cases import Case
from agentic_r.evaluation.compare import Compared, Comparison
from agentic_r.evaluation.costs import Spent
from agentic_r.io import write_atomic


class Setup(msgspec.Struct, frozen=True):
    """What was put together in this run, in words that the first paragraph can use."""

    agent: str
    """The language model that searches, for instance "tiny (2.1 M parameters)"."""
    retriever: str
    """The encoder that was trained, for instance "all-MiniLM-L6-v2"."""
    judge: str
    """Who scored relevance: "offline" or a model name."""
    corpus: str
    """What the passages are, for instance "a generated world of invented people and places"."""
    passages: int
    """How many passages there are to search."""
    train: int
    """Training questions."""
    dev: int
    """Development questions, on which k and the input were chosen; 0 for none."""
    test: int
    """Held-out test questions: all the table's numbers are about these."""
    roots: int
    """Root entities behind the test questions; the test questions themselves where unknown."""
    k: int
    """Passages shown a search, as configured."""
    input: str
    """What the retriever is sent: "query" or "question+query"."""
    candidates: int = 20
    """Candidate passages labelled a search."""
    threshold: float = 60.0
    """Relevance, of 100, below which a passage cannot be a positive."""


class Gain(msgspec.Struct, frozen=True):
    """The headline: exact match of the last iteration minus that of the row to beat."""

    em: float
    """The difference, as a fraction."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of its 95 % interval."""
    name: str
    """The row of the last iteration."""
    over: str
    """The row to beat: the best untouched one."""


class Labelling(msgspec.Struct, frozen=True):
    """What the labels of one iteration cost."""

    searches: int
    """Searches of the agent that were labelled."""
    kept: int
    """Searches that became training examples."""
    continuations: int
    """Times the agent was run on from a candidate passage."""
    exhaustive: int
    """Times it would have been, had every candidate been tried: counted, not run."""
    judge_calls: int = 0
    """Calls of the judge's language model for relevance, second tries included."""
    subanswer_calls: int = 0
    """Calls of a language model for what a search ought to have found."""

    @property
    def calls(self) -> int:
        """Calls of a language model in all."""
        return self.judge_calls + self.subanswer_calls


class Point(msgspec.Struct, frozen=True):
    """One point of a training curve."""

    step: int
    """Optimiser steps so far."""
    loss: float
    """Contrastive loss of the step."""
    epoch: float = 0.0
    """Passes over the examples so far."""
    learning_rate: float = 0.0
    """Learning rate of the step."""
    seconds: float = 0.0
    """Seconds since training began."""
    accuracy: float | None = None
    """In-batch accuracy of the step: queries whose best passage of the batch is a positive."""


class DevMeasurement(msgspec.Struct, frozen=True):
    """One measurement of a training on queries that it does not learn from."""

    step: int
    """Optimiser steps so far; 0 is before training."""
    hit: float
    """Share of queries with a wanted passage among the first k."""
    mrr: float
    """Mean reciprocal rank of the first wanted passage."""


class Curve(msgspec.Struct, frozen=True):
    """How the training of one iteration went."""

    iteration: int
    """Which iteration, from 1."""
    examples: int
    """Training examples."""
    points: list[Point]
    """The curve, in order of steps."""
    dev: list[DevMeasurement] = []
    """Measurements on dev, in order of steps; empty where there was none."""
    dev_k: int = 0
    """k of `DevMeasurement.hit`; 0 where nothing was measured."""
    kept_step: int | None = None
    """The step whose weights were kept, 0 for the untouched ones; None where it is not known."""


class StageTime(msgspec.Struct, frozen=True):
    """Where time went: one stage of the run."""

    stage: str
    """The stage's name, such as "rollouts"."""
    seconds: float
    """Wall-clock seconds, over all restarts."""
    iteration: int | None = None
    """Which iteration, from 1; None for what is done once, before them."""


class Report(msgspec.Struct, frozen=True):
    """Everything the report shows; all rates are fractions 0-1."""

    name: str
    """The run's name."""
    seed: int
    """The seed that moved the world, the sampling and the training."""
    setup: Setup
    """What was put together."""
    rows: list[Row]
    """The benchmark table, in the order to be shown; names are unique."""
    gain: Gain
    """The last iteration against the row to beat."""
    comparisons: list[Compared]
    """Every other row against the row to beat, with intervals."""
    labelling: list[Labelling]
    """What labelling cost, one entry an iteration."""
    drops: list[dict[str, int]] = []
    """Searches that taught nothing, by reason, one entry an iteration."""
    failures: list[dict[str, int]] = []
    """Candidates that could not be judged or continued, by reason, one entry an iteration."""
    curves: list[Curve] = []
    """Training curves of the retriever, one an iteration."""
    rerankers: list[Curve] = []
    """Training curves of the re-ranker, one an iteration that trained one."""
    stages: list[StageTime] = []
    """Where time went, in the order of the run."""
    spent: list[Spent] = []
    """What was asked of servers, by who was asked; empty where every model ran in the process."""
    cases: list[Case] = []
    """A few questions side by side."""
    gap_closed: float | None = None
    """Share of the EM gap between the row to beat and the oracle that the last iteration closed."""
    settings: dict[str, str] = {}
    """Further settings for the last table, dotted key -> value, in the order to be shown."""
    machine: str = ""
    """What it ran on, for instance "2 CPU cores"."""
    limits: list[str] = []
    """Limits of this run beside those every report states, one sentence each."""


def gain(comparison: Comparison | Compared, name: str, over: str) -> Gain:
    """Turn the comparison of two rows by exact match into the headline."""
    return Gain(comparison.difference, comparison.low, comparison.high, name, over)


def write_report(folder: Path, report: Report) -> tuple[Path, Path]:
    """Write report.json and the self-contained report.html; returns both paths.

    Each file is replaced in one step. Raises DataError for rows with equal names, for a gain or
    a comparison about a row that is not there, and for a rate that is not a fraction.
    """
    from agentic_r.evaluation.page import render

    check(report)
    html = render(report)
    data = msgspec.json.format(msgspec.json.encode(report), indent=2)
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / "report.json", folder / "report.html")
    write_atomic(paths[0], data + b"\n")
    write_atomic(paths[1], html)
    return paths


def read_report(path: Path) -> Report:
    """Read report.json back; raises DataError where it is missing or not a report."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such report; run `agentic-r loop CONFIG` first") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: got {error}, expected the report of a run") from error


def check(report: Report) -> None:
    """Refuse a report that contradicts itself, with a DataError that says where."""
    names = [row.name for row in report.rows]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise DataError(f"report: got two rows named {double[0]!r}, expected unique names")
    wanted = [report.gain.name, report.gain.over]
    wanted += [name for c in report.comparisons for name in (c.name, c.over)]
    for name in wanted:
        if name not in names:
            raise DataError(f"report: got a comparison about row {name!r}, expected one of {names}")
    for row in report.rows:
        rates = {"em": row.em, "f1": row.f1, "hit_at_3": row.hit_at_3}
        for key, value in (rates | {"em_seen": row.em_seen, "em_unseen": row.em_unseen}).items():
            if value is not None and not 0.0 <= value <= 1.0:
                raise DataError(
                    f"report: row {row.name!r} has {key} {value}, expected a fraction 0-1"
                )
    ends = (report.gain.low, report.gain.em, report.gain.high)
    if not all(math.isfinite(end) for end in ends):
        raise DataError(f"report: got the gain {ends}, expected finite numbers")


_COLUMNS = ("name", "k", "EM", "F1", "hit@3", "searches", "seconds", "n")


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out as plain text for a terminal, one line a row, rates as fractions 0-1.

    Columns of exact match on seen and unseen phrasings, of tokens and of their price appear where
    some row has them; "-" is "not measured". Raises nothing; no rows give the header alone.
    """
    more = [name for name in _MORE if any(getattr(row, name) is not None for row in rows)]
    cells = [[*_COLUMNS, *(_MORE[name][0] for name in more)]]
    for row in rows:
        line = [
            " ".join(row.name.split()),
            str(row.k),
            _rate(row.em),
            _rate(row.f1),
            _rate(row.hit_at_3),
            f"{row.searches:.2f}",
            f"{row.seconds:.1f}",
            str(row.n),
        ]
        cells.append([*line, *(_MORE[name][1](getattr(row, name)) for name in more)])
    widths = [max(len(line[at]) for line in cells) for at in range(len(cells[0]))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """Say in one line each what a table's dashes and missing rows mean, and what failed."""
    said = []
    if rows and all(row.hit_at_3 is None for row in rows):
        said.append(
            "hit@3 was not measured and there is no row for oracle retrieval: both need "
            "questions that name the passage of each hop (metadata.hops)."
            if not any(row.name.startswith("oracle") for row in rows)
            else "hit@3 was not measured: no search asked an annotated hop (metadata.hops)."
        )
    said += [
        f"{row.name}: the language model failed on {row.failed} of {row.n} questions, which "
        "count as wrong."
        for row in rows
        if row.failed
    ]
    plain = {row.name: row for row in rows}
    for row in rows:
        other = plain.get(row.name.removeprefix("re-ranked "))
        if other is not None and row.em < other.em:
            said.append(
                f"{row.name}: EM {100 * (other.em - row.em):.1f} points below {other.name}, which "
                "it re-ranks: train the re-ranker longer (retriever.rerank.epochs) or leave it out."
            )
    return said


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


_MORE: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "em_seen": ("EM seen", _rate),
    "em_unseen": ("EM unseen", _rate),
    "prompt_tokens": ("read", _count),
    "tokens": ("written", _count),
    "cost": ("cost/1k", lambda value: "-" if value is None else f"{value:.4g}"),
}
"""Further columns of the table: their heads and how they are written."""
