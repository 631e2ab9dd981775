"""What of an iteration goes into the report; the whole summary is tested with the loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agentic_r.errors import DataError
from agentic_r.evaluation.report import Labelling
from agentic_r.io import write_jsonl
from agentic_r.learning import CURVE_FILE, CurvePoint
from agentic_r.loop import Iteration
from agentic_r.steps import Nothing, Retrieval
from agentic_r.summary import _labelling, _points, _reranker
from agentic_r.utility.labelled import Costs, Labels


def made(costs: Costs) -> Iteration:
    """An iteration of which nothing but the costs of its labels matters."""
    return Iteration(2, [], Labels((), (), {}, costs), [], Retrieval(Nothing(), ""), 12)


def test_calls_of_the_judge_are_among_the_costs_of_labelling() -> None:
    counts = {"searches": 9, "kept": 4, "continuations": 12, "exhaustive": 180}
    costs = Costs(**counts, judge_calls=10, subanswer_calls=5)
    found = _labelling(made(costs))
    assert found == Labelling(9, 4, 12, 180, judge_calls=10, subanswer_calls=5)
    assert found.calls == 15


def test_the_curve_of_a_reranker_is_read_from_its_stage(tmp_path: Path) -> None:
    steps = [CurvePoint(step, 0, 2.0 / step, 1e-5, step * 1.5, 0.25, 40) for step in (1, 2)]
    write_jsonl(tmp_path / CURVE_FILE, steps)
    iteration = replace(made(Costs()), reranker=tmp_path / "model")
    curve = _reranker(iteration)
    assert (curve.iteration, curve.examples, curve.dev, curve.dev_k) == (2, 12, [], 0)
    assert [(point.step, point.loss, point.accuracy) for point in curve.points] == [
        (1, 2.0, 0.25),
        (2, 1.0, 0.25),
    ]
    (tmp_path / CURVE_FILE).unlink()
    with pytest.raises(DataError, match=CURVE_FILE):
        _reranker(iteration)


def test_an_accuracy_that_was_not_kept_is_not_measured() -> None:
    (old,) = _points([CurvePoint(1, 0, 2.0, 1e-5, 1.0)])
    assert old.accuracy is None
