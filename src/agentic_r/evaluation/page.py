"""report.html: the report for a reader who saw nothing else, in one file with nothing outside.

Python computes every number and position, the templates place them and escape every text:
passages and answers are data, and none of them can become markup. There is no script in the
page, and its content policy would refuse one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2
import msgspec

from agentic_r.evaluation.benchmark import Row
from agentic_r.evaluation.cases import Case
from agentic_r.evaluation.compare import Compared
from agentic_r.evaluation.curves import panels, ticks
from agentic_r.evaluation.report import Report, StageTime
from agentic_r.evaluation.significance import Contest

CLIP = 700
"""Characters of a passage that are shown."""

BETWEEN = {
    "question+reasoning+query": ", what the agent thought before it searched,",
    "question+history+query": ", what the agent had searched for before,",
}
"""What the retriever is sent between question and query, in words."""

REASONS = 5
"""Reasons of failures that are shown an iteration: a server may word each of thousands anew."""


def environment() -> jinja2.Environment:
    """Return what renders the pages: every text escaped, every name known."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("agentic_r.evaluation", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters.update(
        percent=percent, points=points, duration=duration, clip=clip, number=number
    )
    return found


def render(report: Report) -> str:
    """Render the whole page; the report is taken as checked (`report.check`)."""
    rows = {row.name: row for row in report.rows}
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            setup=report.setup,
            before=rows[report.gain.over],
            after=rows[report.gain.name],
            oracle=_oracle(report.rows),
            bm25=any(row.name.startswith("BM25") for row in report.rows),
            verdict=verdict(report),
            rows=[(row, kind(row, report)) for row in report.rows],
            hops=_hops(report),
            forest=forest(report.comparisons),
            curves=panels(report),
            between=BETWEEN.get(report.setup.input, ""),
            times=times(report.stages),
            iterations=sorted({s.iteration for s in report.stages if s.iteration is not None}),
            seconds=sum(stage.seconds for stage in report.stages),
            labelling=_labelling(report),
            tokens=any(row.tokens is not None for row in report.rows),
            priced=any(row.cost is not None for row in report.rows),
            cases=[_case(case) for case in report.cases],
        )
    )


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction as a percentage; "not measured" as a dash."""
    if value is None:
        return "\N{EN DASH}"
    return f"{100 * value:.{digits}f}%".replace("-", "\N{MINUS SIGN}")


def points(value: float, digits: int = 1) -> str:
    """Write a difference of two fractions as signed percentage points."""
    shown = f"{100 * value:+.{digits}f}"
    return shown.replace("-", "\N{MINUS SIGN}")


def number(value: float) -> str:
    """Write a count with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float) -> str:
    """Write seconds as a reader says them, such as "0.4 s", "2 min 05 s", "3 h 10 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 3600:
        return f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clip(text: str, length: int = CLIP) -> str:
    """Shorten a passage for the page."""
    return text if len(text) <= length else text[:length].rstrip() + " …"


def verdict(report: Report) -> str:
    """Say what the interval of the gain allows: "better", "worse" or "unclear"."""
    if report.gain.low > 0:
        return "better"
    return "worse" if report.gain.high < 0 else "unclear"


def kind(row: Row, report: Report) -> str:
    """Name the part a row plays: "trained", "beat", "oracle" or nothing."""
    if row.name == report.gain.name:
        return "trained"
    if row.name == report.gain.over:
        return "beat"
    return "oracle" if row.name.startswith("oracle") else ""


def _oracle(rows: Sequence[Row]) -> Row | None:
    """Find the ceiling, if there is one."""
    return next((row for row in rows if row.name.startswith("oracle")), None)


def _hops(report: Report) -> dict[str, Any] | None:
    """EM by number of hops and by phrasing, for the rows that tell something new."""
    counts = sorted(
        {hop for row in report.rows for hop in row.em_by_hops}, key=lambda h: (len(h), h)
    )
    split = any(row.em_seen is not None or row.em_unseen is not None for row in report.rows)
    if not counts and not split:
        return None
    shown = [
        (row, kind(row, report))
        for row in report.rows
        if kind(row, report) or not row.name.startswith("untouched")
    ]
    return {"counts": counts, "split": split, "rows": shown, "first": shown[0][0]}


def forest(comparisons: Sequence[Compared | Contest]) -> dict[str, Any] | None:
    """Place differences and intervals on one axis: positions in percent of its width."""
    if not comparisons:
        return None
    low = min(0.0, *(c.low for c in comparisons))
    high = max(0.0, *(c.high for c in comparisons))
    pad = 0.06 * (high - low) or 0.01
    low, high = low - pad, high + pad

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    lines = [
        {
            "c": c,
            "left": at(c.low),
            "width": round(at(c.high) - at(c.low), 2),
            "dot": at(c.difference),
        }
        for c in comparisons
    ]
    marks = [(at(tick), points(tick, 0) if tick else "0") for tick in ticks(low, high, 8)]
    return {"lines": lines, "zero": at(0.0), "ticks": marks}


def times(stages: Sequence[StageTime]) -> list[dict[str, Any]]:
    """Add up the seconds by stage, in order of first appearance, with one part an iteration."""
    total = sum(stage.seconds for stage in stages)
    by_stage: dict[str, list[StageTime]] = {}
    for stage in stages:
        by_stage.setdefault(stage.stage, []).append(stage)
    sums = {name: sum(part.seconds for part in parts) for name, parts in by_stage.items()}
    widest = max(sums.values(), default=0.0) or 1.0
    return [
        {
            "name": name,
            "seconds": sums[name],
            "share": sums[name] / total if total else 0.0,
            "parts": [
                (part.iteration or 0, round(100 * part.seconds / widest, 2), part.seconds)
                for part in parts
            ],
        }
        for name, parts in by_stage.items()
    ]


def _labelling(report: Report) -> list[dict[str, Any]]:
    """What labelling cost, one entry an iteration, with what was saved, dropped and failed."""
    found = []
    for index, cost in enumerate(report.labelling):
        drops = _by_count(report.drops, index)
        failures = _by_count(report.failures, index)
        found.append(
            {
                "iteration": index + 1,
                "cost": cost,
                "saved": cost.exhaustive - cost.continuations,
                "share": cost.continuations / cost.exhaustive if cost.exhaustive else 0.0,
                "calls": cost.calls,
                "each": cost.calls / cost.kept if cost.kept else None,
                "drops": drops,
                "failures": failures[:REASONS],
                "others": sum(count for _, count in failures[REASONS:]),
            }
        )
    return found


def _by_count(found: Sequence[dict[str, int]], index: int) -> list[tuple[str, int]]:
    """Order the reasons of one iteration by how often they came up."""
    reasons = found[index] if index < len(found) else {}
    return sorted(reasons.items(), key=lambda item: (-item[1], item[0]))


def _case(case: Case) -> dict[str, Any]:
    """Lay out one case; the labels stay closed until the reader opens them."""
    return {
        **msgspec.structs.asdict(case),
        "sides": [("Before", case.before), ("After", case.after)],
    }
