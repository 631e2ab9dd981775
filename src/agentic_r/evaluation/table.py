"""The table of a grid: averages over data sets, intervals of every figure, the print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agentic_r.evaluation.benchmark import Record, Row
from agentic_r.evaluation.bootstrap import Sums, draws, interval
from agentic_r.evaluation.measures import MEASURES, measured
from agentic_r.evaluation.plan import AVERAGE, row_name


class Measured(NamedTuple):
    """One row with what it was made of; `folder` holds its files, None for an average."""

    row: Row
    records: list[Record]
    folder: Path | None = None

    @property
    def average(self) -> bool:
        """Whether it averages over data sets, each counting alike."""
        return self.folder is None


def with_intervals(row: Row, records: Sequence[Record], samples: int, seed: int) -> Row:
    """Add the interval of every measure that the records hold."""
    names = measured(records)
    drawn = draws(records, names, samples, seed)
    return _with(row, names, drawn, len({record.root for record in records}))


def averages(done: Sequence[Measured], samples: int, seed: int) -> list[Measured]:
    """Average over data sets for every pair of agent and retriever that has several.

    Every data set counts alike, as in the paper's table; a measure that one of them lacks is not
    measured. Data sets are drawn by themselves, so an interval is about these data sets and not
    about data sets in general.
    """
    found = []
    for agent, retriever in dict.fromkeys((held.row.agent, held.row.retriever) for held in done):
        held = [m for m in done if (m.row.agent, m.row.retriever) == (agent, retriever)]
        if len(held) < 2:
            continue
        parts = [measured(m.records) for m in held]
        names = [name for name in MEASURES if all(name in part for part in parts)]
        drawn = np.mean([draws(m.records, names, samples, seed) for m in held], axis=0)
        clusters = sum(len({record.root for record in m.records}) for m in held)
        row = _average([m.row for m in held], row_name(agent, retriever, AVERAGE))
        records = [record for m in held for record in m.records]
        found.append(Measured(_with(row, names, drawn, clusters), records))
    return found


def _average(rows: Sequence[Row], name: str) -> Row:
    """Average the measures of rows; questions and seconds are summed."""
    figures: dict[str, Any] = {}
    for measure in MEASURES:
        values = [getattr(row, measure) for row in rows]
        figures[measure] = None if None in values else float(np.mean(values))
    return Row(
        name=name,
        k=rows[0].k,
        seconds=sum(row.seconds for row in rows),
        n=sum(row.n for row in rows),
        failed=sum(row.failed for row in rows),
        agent=rows[0].agent,
        retriever=rows[0].retriever,
        **figures,
    )


def _with(row: Row, names: Sequence[str], drawn: Sums, clusters: int) -> Row:
    ends = {
        name: interval(drawn[:, at], clusters, fraction=MEASURES[name].fraction)
        for at, name in enumerate(names)
    }
    return msgspec.structs.replace(row, intervals={k: v for k, v in ends.items() if v is not None})


def grid_table(rows: Sequence[Row]) -> str:
    """Lay a grid out for a terminal: a block a data set, under each figure its 95 % interval.

    Only measures that some row has are shown; "-" is "not measured". Fractions are in percent.
    """
    names = [name for name in MEASURES if any(getattr(row, name) is not None for row in rows)]
    head = ["", *(MEASURES[name].head for name in names), "seconds", "n"]
    lines: list[list[str] | str] = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        lines += ["", f"{dataset or 'average over data sets'}", head]
        for row in (row for row in rows if row.dataset == dataset):
            label = f"{row.agent} + {row.retriever}"
            figures = [_figure(row, name) for name in names]
            lines.append([label, *figures, f"{row.seconds:.1f}", str(row.n)])
            lines.append(["", *(_ends(row, name) for name in names), "", ""])
    cells = [line for line in lines if not isinstance(line, str)]
    widths = [max(len(cell[at]) for cell in cells) for at in range(len(head))]
    shown = [line if isinstance(line, str) else _laid(line, widths) for line in lines]
    return "\n".join(shown).lstrip("\n")


def _laid(cells: Sequence[str], widths: Sequence[int]) -> str:
    placed = [
        cell.ljust(width) if at == 0 else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(placed).rstrip()


def _figure(row: Row, name: str) -> str:
    return written(name, getattr(row, name))


def _ends(row: Row, name: str) -> str:
    ends = row.intervals.get(name)
    return "" if ends is None else f"{written(name, ends[0])}\N{EN DASH}{written(name, ends[1])}"


def written(name: str, value: float | None) -> str:
    """Write a measure: fractions in percent, counts as they are, "-" for not measured."""
    if value is None:
        return "-"
    if MEASURES[name].fraction:
        return f"{100 * value:.1f}"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"
