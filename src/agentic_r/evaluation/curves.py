"""The training curves of a report, placed: every number a position in a small drawing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from agentic_r.evaluation.report import Curve, Report

WIDTH, HEIGHT = 360, 216
"""Size of a curve in its own units; the page scales it."""

LEFT, RIGHT, TOP, BOTTOM = 44, 18, 24, 42
"""Room around a curve for its axes and their names, in the same units."""

POINTS = 300
"""Points of a curve that are drawn."""

DOTS = 30
"""Points up to which each has a dot: a few measurements are no continuous line."""

Values = Callable[[Curve], list[tuple[int, float | None]]]
"""What is drawn of a curve: by step a value, None for "not measured"."""


def panels(report: Report) -> dict[str, list[dict[str, Any]]]:
    """Place all curves of a report by what they show; a list is empty where nothing was measured.

    Curves of one list share their scale, so that iterations can be compared.
    """
    return {
        "loss": plots(report.curves, loss),
        "accuracy": plots(report.curves, accuracy, share=True),
        "dev": plots(report.curves, dev_hit, share=True),
        "reranker": plots(report.rerankers, loss),
    }


def loss(curve: Curve) -> list[tuple[int, float | None]]:
    """Return the loss of every step."""
    return [(point.step, point.loss) for point in curve.points]


def accuracy(curve: Curve) -> list[tuple[int, float | None]]:
    """Return the in-batch accuracy of every step, a fraction 0-1."""
    return [(point.step, point.accuracy) for point in curve.points]


def dev_hit(curve: Curve) -> list[tuple[int, float | None]]:
    """Return every measurement of dev hit@k, a fraction 0-1; step 0 is before training."""
    return [(point.step, point.hit) for point in curve.dev]


def plots(curves: Sequence[Curve], values: Values, *, share: bool = False) -> list[dict[str, Any]]:
    """Place one plot a curve, all on one scale; a curve without a finite value has none.

    The scale of a share is 0-100 %, that of anything else ends a little above the largest value.
    """
    kept = [
        (curve, [(s, v) for s, v in values(curve) if v is not None and math.isfinite(v)])
        for curve in curves
    ]
    largest = max((value for _, row in kept for _, value in row), default=0.0)
    top = 1.0 if share else largest * 1.05 or 1.0
    return [_plot(curve, row, top, share) for curve, row in kept if row]


def _plot(
    curve: Curve, kept: Sequence[tuple[int, float]], top: float, share: bool
) -> dict[str, Any]:
    last = max(step for step, _ in kept) or 1
    stride = max(1, math.ceil(len(kept) / POINTS))
    drawn = [*kept[:-1:stride], kept[-1]]

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / last, 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top, 1)

    places = [(x(step), y(value)) for step, value in drawn]
    return {
        "curve": curve,
        "frame": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT},
        "line": " ".join(f"{left},{down}" for left, down in places),
        "dots": places if len(kept) <= DOTS else [],
        "x": [(x(tick), tick) for tick in ticks(0, last, 4, least=1)],
        "y": [(y(tick), f"{100 * tick if share else tick:g}") for tick in ticks(0, top, 5)],
        "first": kept[0][1],
        "last": kept[-1][1],
    }


def ticks(low: float, high: float, wanted: int, least: float = 0.0) -> list[float]:
    """Choose about `wanted` round numbers (1, 2 or 5 times a power of ten) within [low, high]."""
    raw = max(least, (high - low) / wanted)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step)
    return [round(index * step, 10) for index in range(first, math.floor(high / step) + 1)]
