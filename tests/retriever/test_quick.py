from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.retriever import quick
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.engine import Engine
from agentic_r.retriever.quick import CLOSE, QuickEncoder, fastest, thrifty

TEXTS = [
    "who directed the film that won in 1994?",
    "Ulm",
    "",
    "capital of the country in which the Danube ends",
    "Ulm",
] * 3


def test_queries_stay_close_to_fp32_and_in_their_places(minilm: Encoder) -> None:
    encoder = QuickEncoder(minilm)
    exact = minilm.encode(TEXTS, "query")
    found = encoder.encode(TEXTS, "query")
    assert found.dtype == np.float32
    assert (found * exact).sum(1).min() >= CLOSE
    assert encoder.fingerprint == minilm.fingerprint
    np.testing.assert_array_equal(
        encoder.encode(TEXTS, "passage"), minilm.encode(TEXTS, "passage")
    )  # fmt: skip
    assert encoder.encode([], "query").shape == (0, minilm.dimension)


def padded(lengths: Sequence[int], groups: Sequence[Sequence[int]], call: float) -> float:
    """Tokens that groups cost, written out."""
    return sum(len(rows) * max(16, *(lengths[row] for row in rows)) + call for rows in groups)


def every_way(lengths: Sequence[int], call: float) -> float:
    """The fewest tokens over all divisions of the sorted rows into runs."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    costs = []
    for count in range(len(order)):
        for cuts in combinations(range(1, len(order)), count):
            edges = [0, *cuts, len(order)]
            runs = [order[a:b] for a, b in pairwise(edges)]
            costs.append(padded(lengths, runs, call))
    return min(costs, default=0.0)


@given(st.lists(st.integers(2, 90), max_size=8), st.floats(0, 60))
def test_groups_waste_as_little_as_can_be(lengths: list[int], call: float) -> None:
    groups = thrifty(lengths, 10**6, call)
    assert sorted(row for rows in groups for row in rows) == list(range(len(lengths)))
    assert padded(lengths, groups, call) == pytest.approx(every_way(lengths, call))


@given(st.lists(st.integers(2, 300), max_size=60), st.integers(1, 400))
def test_groups_keep_to_the_budget(lengths: list[int], budget: int) -> None:
    groups = thrifty(lengths, budget, 6.0)
    assert sorted(row for rows in groups for row in rows) == list(range(len(lengths)))
    for rows in groups:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget


def test_the_fastest_that_is_close_enough_is_taken(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def engine(name: str, seconds: float, turned: float) -> Engine:
        def forward(ids: Sequence[Sequence[int]]) -> np.ndarray:
            now[0] += seconds
            row = np.array([np.cos(turned), np.sin(turned)], np.float32)
            return np.tile(row, (len(ids), 1))

        return Engine(name, forward)

    def machine(_: Encoder) -> Iterator[Engine]:
        yield engine("exact", 3.0, 0.0)
        yield engine("close and quick", 1.0, 0.04)  # cosine .9992
        yield engine("too far", 0.1, 0.05)  # cosine .9988
        yield engine("close and slow", 2.0, 0.0)

    monkeypatch.setattr(quick, "engines", machine)
    found = fastest(encoder, lambda: now[0])
    assert (found.engine.name, found.seconds) == ("close and quick", 3.0)
    # A row of 16 tokens takes as long as 32 of them: a call costs 31 rows of tokens.
    assert found.call == pytest.approx(31 * 16)
