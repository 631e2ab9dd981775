"""What of an iteration goes into the report; the whole summary is tested with the loop."""

from __future__ import annotations

from agentic_r.evaluation.report import Labelling
from agentic_r.loop import Iteration
from agentic_r.steps import Nothing, Retrieval
from agentic_r.summary import _labelling
from agentic_r.utility.labelled import Costs, Labels


def made(labels: Labels) -> Iteration:
    """An iteration of which nothing but the labels matters."""
    return Iteration(1, [], labels, [], Retrieval(Nothing(), ""), 0)


def test_calls_of_the_judge_are_among_the_costs_of_labelling() -> None:
    counts = {"searches": 9, "kept": 4, "continuations": 12, "exhaustive": 180}
    costs = Costs(**counts, judge_calls=10, subanswer_calls=5)
    found = _labelling(made(Labels((), (), {}, costs)))
    assert found == Labelling(9, 4, 12, 180, judge_calls=10, subanswer_calls=5)
    assert found.calls == 15
