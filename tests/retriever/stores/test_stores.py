"""What every vector engine has to do, the same tests for all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from agentic_r.errors import OutageError
from agentic_r.retriever.stores import Store

VECTORS = np.random.default_rng(0).standard_normal((40, 8), dtype=np.float32)
IDS = [f"p{n} ../é" for n in range(40)]


def filled(store: Store, version: str, vectors: np.ndarray = VECTORS) -> None:
    store.create(version, 8)
    for start in (0, 16):
        stop = 16 if start == 0 else 40
        store.add(version, start, vectors[start:stop], IDS[start:stop])
    store.finish(version)


def test_it_finds_what_a_plain_product_finds(any_store: Store) -> None:
    filled(any_store, "a")
    scores, rows = any_store.search("a", VECTORS[:5], 7)
    products = VECTORS[:5] @ VECTORS.T
    np.testing.assert_array_equal(rows, np.argsort(-products, axis=1)[:, :7])
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :7], rtol=1e-4)
    assert any_store.count("a") == 40


def test_more_than_there_is_ends_in_nothing(any_store: Store) -> None:
    filled(any_store, "a")
    scores, rows = any_store.search("a", VECTORS[:1], 50)
    assert sorted(rows[0, :40]) == list(range(40))
    assert (rows[0, 40:] == -1).all()
    assert np.isneginf(scores[0, 40:]).all()
    assert any_store.search("a", np.empty((0, 8), np.float32), 3)[1].shape == (0, 3)


def test_aliases_move(any_store: Store) -> None:
    filled(any_store, "a")
    filled(any_store, "b", -VECTORS)
    assert any_store.aliases() == {}
    any_store.point({"now": "a"})
    any_store.point({"now": "b", "before": "a"})
    assert any_store.aliases() == {"now": "b", "before": "a"}
    assert any_store.search("now", VECTORS[:1], 1)[1] == any_store.search("b", VECTORS[:1], 1)[1]
    any_store.point({"now": "a", "before": "b"})
    assert any_store.aliases() == {"now": "a", "before": "b"}
    assert any_store.search("now", VECTORS[:1], 1)[1] == any_store.search("a", VECTORS[:1], 1)[1]
    any_store.point({"before": "a"})
    any_store.drop("b")
    assert any_store.versions() == ["a"]


def test_points_that_are_put_twice_are_there_once(any_store: Store) -> None:
    any_store.create("a", 8)
    any_store.add("a", 0, VECTORS, IDS)
    any_store.add("a", 3, VECTORS[3:5], IDS[3:5])
    any_store.finish("a")
    assert any_store.count("a") == 40


def test_it_is_kept(open_any: Callable[[], Store]) -> None:
    first = open_any()
    filled(first, "a")
    first.point({"now": "a"})
    first.close()
    again = open_any()
    assert again.aliases() == {"now": "a"}
    assert again.search("now", VECTORS[7:8], 1)[1] == np.argmax(VECTORS[7] @ VECTORS.T)


def test_what_is_not_there_is_one_line(any_store: Store) -> None:
    for act in (
        lambda: any_store.count("gone"),
        lambda: any_store.search("gone", VECTORS[:1], 1),
        lambda: any_store.add("gone", 0, VECTORS[:1], IDS[:1]),
        lambda: any_store.finish("gone"),
        lambda: any_store.point({"now": "gone"}),
    ):
        with pytest.raises(OutageError, match=r"^(Qdrant|Milvus) at .*: ") as caught:
            act()
        assert "\n" not in str(caught.value)
