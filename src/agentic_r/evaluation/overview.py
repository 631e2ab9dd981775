"""One page over several runs: tables, plots, significance, cost; self-contained like report.html.

Python computes every number and position, the template places them and escapes every text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentic_r.evaluation.measures import MEASURES
from agentic_r.evaluation.page import environment, forest
from agentic_r.evaluation.runs import Group, Named, Results
from agentic_r.evaluation.table import written
from agentic_r.evaluation.verdict import too_small


def render_overview(
    runs: Sequence[Results], rows: Sequence[Named], groups: Sequence[Group], metric: str
) -> str:
    """Render the page; `rows` and `groups` are those of `runs.named` and `runs.grouped`."""
    names = [n for n in MEASURES if any(getattr(row.held.row, n) is not None for row in rows)]
    return (
        environment()
        .get_template("overview.html.jinja")
        .render(
            runs=runs,
            groups=[_group(group, names, metric) for group in groups],
            heads=[MEASURES[name].head for name in names],
            terms=[(MEASURES[name].head, MEASURES[name].about) for name in names],
            metric=MEASURES[metric].head,
            points=MEASURES[metric].fraction,
            costs=[_cost(run) for run in runs],
            warnings=[said for group in groups if (said := too_small(group))],
        )
    )


def _group(group: Group, names: Sequence[str], metric: str) -> dict[str, Any]:
    return {
        "about": group.about,
        "over": group.over,
        "n": group.rows[0].held.row.n,
        "bars": _bars(group.rows, metric),
        "rows": [_row(row, names, group.over) for row in group.rows],
        "forest": forest(group.contests) if MEASURES[metric].fraction else None,
        "contests": group.contests,
    }


def _row(row: Named, names: Sequence[str], over: str) -> dict[str, Any]:
    found = row.held.row
    cells = []
    for name in names:
        ends = found.intervals.get(name)
        shown = "" if ends is None else "\N{EN DASH}".join(written(name, end) for end in ends)
        cells.append((written(name, getattr(found, name)), shown))
    return {"name": row.name, "cells": cells, "row": found, "over": row.name == over}


def _bars(rows: Sequence[Named], metric: str) -> list[dict[str, Any]]:
    """Place one bar a row with its interval, in percent of the widest."""
    values = [(row, getattr(row.held.row, metric)) for row in rows]
    ends = [row.held.row.intervals.get(metric) for row in rows]
    top = 1.0
    if not MEASURES[metric].fraction:
        top = max([v for _, v in values if v is not None] + [e[1] for e in ends if e] + [1e-9])
    bars = []
    for (row, value), found in zip(values, ends, strict=True):
        if value is None:
            continue
        low, high = found or (value, value)
        bars.append(
            {
                "name": row.name,
                "shown": written(metric, value),
                "width": round(100 * value / top, 2),
                "left": round(100 * low / top, 2),
                "span": round(100 * (high - low) / top, 2),
            }
        )
    return bars


def _cost(run: Results) -> dict[str, Any]:
    """Sum what a run took: seconds by work, questions, searches, tokens; labelling where known."""
    held = [m for m in run.rows if not m.average]
    tokens = [m.row.tokens for m in held]
    known = [count for count in tokens if count is not None]
    labelling = run.report.labelling if run.report else []
    return {
        "name": run.name,
        "seconds": run.seconds,
        "total": sum(run.seconds.values()),
        "questions": sum(m.row.n for m in held),
        "searches": sum(m.row.searches * m.row.n for m in held),
        "tokens": sum(t * m.row.n for t, m in zip(known, held, strict=True))
        if len(known) == len(tokens)
        else None,
        "spent": run.spent,
        "continuations": sum(cost.continuations for cost in labelling) if labelling else None,
        "exhaustive": sum(cost.exhaustive for cost in labelling) if labelling else None,
    }
