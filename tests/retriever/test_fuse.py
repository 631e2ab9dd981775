from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.errors import ConfigError
from agentic_r.retriever.fuse import FusedRetriever
from agentic_r.types import Hit, Passage


class Fixed:
    """Always finds these ids."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def search(self, queries: list[str], k: int) -> list[list[Hit]]:
        hits = [Hit(Passage(str(i), "text"), 1.0 / (1 + n)) for n, i in enumerate(self.ids)]
        return [hits[:k] for _ in queries]


ranks = st.lists(st.integers(0, 30), unique=True, max_size=20)


@given(st.lists(ranks, min_size=1, max_size=4), st.integers(1, 12))
def test_it_is_the_sum_of_reciprocal_ranks(lists: list[list[int]], k: int) -> None:
    found = FusedRetriever([Fixed(ids) for ids in lists]).search(["q", "r"], k)
    assert found[0] == found[1]
    wanted = {
        i: sum(1 / (60 + ids.index(i) + 1) for ids in lists if i in ids)
        for i in {i for ids in lists for i in ids}
    }
    assert [hit.score for hit in found[0]] == pytest.approx(
        sorted(wanted.values(), reverse=True)[:k]
    )
    for hit in found[0]:
        assert hit.score == pytest.approx(wanted[int(hit.passage.id)])


def test_weights_and_ties() -> None:
    one, two = Fixed([1, 2]), Fixed([3, 1])
    ids = [hit.passage.id for hit in FusedRetriever([one, two]).search(["q"], 3)[0]]
    assert ids == ["1", "3", "2"]
    ids = [h.passage.id for h in FusedRetriever([one, two], [0, 1]).search(["q"], 3)[0]]
    assert ids == ["3", "1", "2"]
    with pytest.raises(ConfigError, match="0 retrievers"):
        FusedRetriever([])
    with pytest.raises(ConfigError, match="1 weights"):
        FusedRetriever([one, two], [1])
    with pytest.raises(ConfigError, match="k = 0"):
        FusedRetriever([one]).search(["q"], 0)
