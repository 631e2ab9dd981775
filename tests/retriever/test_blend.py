"""Mixing a re-ranker's scores with the retriever's, and the weight that dev queries choose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.errors import ConfigError
from agentic_r.retriever.blend import WEIGHTS, Judged, best, blended, order, scaled, weigh
from agentic_r.retriever.cross import ABOUT_FILE, CrossEncoder, own_weight

SCORES = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12)


@given(SCORES, st.sampled_from(WEIGHTS), st.floats(0.125, 8), st.floats(-9, 9))
def test_the_ends_are_the_two_orders_and_no_scale_matters(
    own: list[float], weight: float, by: float, add: float
) -> None:
    again = own[::-1]
    assert blended(own, again, 1.0) == again
    assert blended(own, again, 0.0) == scaled(own)
    mixed = blended(own, again, weight)
    assert len(mixed) == len(own) and (weight == 1.0 or all(0 <= x <= 1 for x in mixed))
    if weight < 1:
        other = blended(own, [by * x + add for x in again], weight)
        assert other == pytest.approx(mixed, abs=1e-3)


def test_equal_scores_decide_nothing_and_keep_the_order() -> None:
    assert scaled([3.0, 3.0]) == [0.0, 0.0] and scaled([]) == []
    assert order(blended([0.9, 0.8, 0.7], [2.0, 2.0, 2.0], 0.9)) == [0, 1, 2]


def test_the_weight_is_the_best_on_dev_and_the_smallest_of_equals() -> None:
    helped = Judged((0.9, 0.8, 0.1), (-5.0, 5.0, -5.0), (False, True, False))
    hurt = Judged((0.9, 0.8, 0.1), (-5.0, 0.0, 5.0), (True, False, False))
    lost = Judged((0.9, 0.8), (1.0, 2.0), (False, False))
    assert best(weigh([helped, helped, lost], 1)).weight == 0.2
    assert best(weigh([helped, helped, lost], 1)).hit == pytest.approx(2 / 3)
    assert best(weigh([hurt, lost], 1)).weight == 0.0
    # What it lifts from third to second place, where one passage is shown, is not worth its cost.
    lifted = Judged((0.9, 0.8, 0.7), (5.0, -5.0, 4.0), (False, False, True))
    assert best(weigh([lifted], 1)).weight == 0.0 and best(weigh([lifted], 2)).weight > 0.0
    assert weigh([Judged((), (), ())], 1)[0].hit == 0.0
    assert weigh([], 1) == []


def test_a_reranker_brings_its_weight(checkpoint: Path, tmp_path: Path) -> None:
    reranker = CrossEncoder.load(str(checkpoint), 40)
    reranker.save(tmp_path, weight=0.3)
    assert own_weight(tmp_path) == 0.3
    (tmp_path / ABOUT_FILE).unlink()
    assert own_weight(tmp_path) == 1.0
    for damaged in ("{", '{"max_length": 40, "base": "x", "weight": 3}'):
        (tmp_path / ABOUT_FILE).write_text(damaged)
        with pytest.raises(ConfigError, match="expected what training a re-ranker wrote"):
            own_weight(tmp_path)
