from __future__ import annotations

import re

import msgspec
import pytest

from agentic_r.evaluation.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    dev_hit,
    loss,
    panels,
    plots,
    ticks,
)
from agentic_r.evaluation.page import render
from agentic_r.evaluation.report import Curve, DevMeasurement, Point, Report
from tests.evaluation.test_page import Page


def places(line: str) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in line.split()]
    return [(float(left), float(down)) for left, down in pairs]


def test_a_long_curve_is_thinned_and_stays_in_its_frame() -> None:
    (drawn,) = plots([Curve(1, 10, [Point(n, 1.0 / (n + 1)) for n in range(9000)])], loss)
    assert len(places(drawn["line"])) <= 302 and drawn["dots"] == []
    for left, down in places(drawn["line"]):
        assert LEFT <= left <= WIDTH - RIGHT and TOP <= down <= HEIGHT - BOTTOM
    assert [step for _, step in drawn["x"]] == [0, 5000]
    assert (drawn["first"], drawn["last"]) == (1.0, 1.0 / 9000)


def test_what_is_not_finite_is_left_out() -> None:
    odd = Curve(1, 10, [Point(1, float("nan")), Point(2, 0.0), Point(3, 0.0)])
    (drawn,) = plots([odd, msgspec.structs.replace(odd, points=[])], loss)
    assert len(places(drawn["line"])) == 2


def test_a_share_has_the_whole_scale_and_a_dot_for_every_measurement() -> None:
    dev = [DevMeasurement(0, 0.0, 0.1), DevMeasurement(40, 0.5, 0.4), DevMeasurement(80, 1.0, 0.9)]
    (drawn,) = plots([Curve(1, 10, [], dev, 5)], dev_hit, share=True)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    middle = (LEFT + right) / 2, (TOP + bottom) / 2
    assert places(drawn["line"]) == drawn["dots"] == [(LEFT, bottom), middle, (right, TOP)]
    assert [label for _, label in drawn["y"]] == ["0", "20", "40", "60", "80", "100"]


def test_iterations_share_one_scale() -> None:
    found = plots([Curve(n, 10, [Point(1, 4.0 / n), Point(2, 1.0)]) for n in (1, 2)], loss)
    first, second = (places(drawn["line"]) for drawn in found)
    assert first[0][1] < second[0][1] and first[1] == second[1]


def test_only_what_was_measured_is_drawn(report: Report) -> None:
    assert [len(found) for found in panels(report).values()] == [2, 2, 2, 1]
    points = [msgspec.structs.replace(p, accuracy=None) for p in report.curves[0].points]
    bare = msgspec.structs.replace(report.curves[0], points=points, dev=[], dev_k=0)
    assert [len(found) for found in panels(with_curves(report, bare)).values()] == [1, 0, 0, 0]
    html = render(with_curves(report, bare))
    text = Page(html).text
    assert html.count("<polyline") == 1 and "Loss from" in text
    assert "in the batch" not in text and "Dev hit" not in text and "re-ranker" not in text
    assert "Training curves" not in Page(render(with_curves(report))).text


def with_curves(report: Report, *curves: Curve) -> Report:
    return msgspec.structs.replace(report, curves=list(curves), rerankers=[])


def test_the_page_names_every_curve_and_its_axes(report: Report) -> None:
    html = render(report)
    text = Page(html).text
    for shown in ("Accuracy in the batch", "Dev hit@3", "from 33.8% to 53.8%", "re-ranker"):
        assert shown in text
    assert "Iteration 2 : 1 040 examples, 8 steps in 15 s. Loss of the re-ranker from" in text
    for drawing in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        words = re.findall(r">([^<>]+)</text>", drawing)
        assert words[0] in ("loss", "right, %", "hit, %") and words[-1] == "step"
    assert html.count('aria-label="Dev hit@3 of iteration 1: from 33.8% to 53.8%"') == 1


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (0.0, 120.0, [0.0, 50.0, 100.0]),
        (-0.03, 0.03, [-0.02, 0.0, 0.02]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, found: list[float]) -> None:
    assert ticks(low, high, 4 if high >= 1 else 3) == found


def test_the_step_that_was_kept_is_said_where_it_is_not_the_last(report: Report) -> None:
    curve = msgspec.structs.replace(report.curves[0], dev=[DevMeasurement(0, 0.9, 0.8)], dev_k=3)
    for step, said in (
        (0, "step 0, the best on dev: the untouched ones."),
        (1, "step 1, the best on"),
    ):
        kept = msgspec.structs.replace(curve, kept_step=step)
        assert said in Page(render(msgspec.structs.replace(report, curves=[kept]))).text
    last = msgspec.structs.replace(curve, kept_step=curve.points[-1].step)
    for other in (last, curve):
        text = Page(render(msgspec.structs.replace(report, curves=[other]))).text
        assert "Kept were the weights" not in text
