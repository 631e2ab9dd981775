from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentic_r.errors import DataError
from agentic_r.retriever.cache import CachedRetriever
from agentic_r.types import Hit, Passage


class Counting:
    """Finds the query itself and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def search(self, queries: list[str], k: int) -> list[list[Hit]]:
        self.asked += queries
        if "bad" in queries:
            raise DataError("down")
        return [
            [Hit(Passage(q.encode("utf-8", "replace").decode(), f"text {k}", "T"), 0.25)] * k
            for q in queries
        ]


def test_a_query_is_searched_once_and_the_answer_is_the_same(tmp_path: Path) -> None:
    inner = Counting()
    cached = CachedRetriever(inner, tmp_path / "deep" / "cache.db", "one")
    first = cached.search(["a", "b", "a", "\ud800"], 2)
    assert first == Counting().search(["a", "b", "a", "\ud800"], 2)
    assert CachedRetriever(inner, tmp_path / "deep" / "cache.db", "one").search(["b"], 2) == [
        first[1]
    ]
    assert inner.asked == ["a", "b", "\ud800"]
    cached.search(["a"], 3)  # another k and another key are other answers
    CachedRetriever(inner, tmp_path / "deep" / "cache.db", "two").search(["a"], 2)
    assert inner.asked == ["a", "b", "\ud800", "a", "a"]


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    inner = Counting()
    cached = CachedRetriever(inner, tmp_path / "cache.db", "one")
    for _ in range(2):
        with pytest.raises(DataError, match="down"):
            cached.search(["bad"], 1)
    assert inner.asked == ["bad", "bad"]


def test_threads_share_it(tmp_path: Path) -> None:
    inner = Counting()
    cached = CachedRetriever(inner, tmp_path / "cache.db", "one")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: cached.search([str(n % 9)], 1)[0][0], range(90)))
    assert [hit.passage.id for hit in found] == [str(n % 9) for n in range(90)]


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    path.write_text("no database" * 100)
    with pytest.raises(DataError, match=r"cache\.db: the retrieval cache cannot be used"):
        CachedRetriever(Counting(), path, "one")
