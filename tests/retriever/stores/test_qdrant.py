from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agentic_r.errors import MissingExtraError, OutageError
from agentic_r.retriever.stores import Store
from agentic_r.retriever.stores.qdrant import QdrantStore

VECTORS = np.random.default_rng(0).standard_normal((40, 8), dtype=np.float32)
IDS = [f"p{n}" for n in range(40)]


@pytest.fixture
def store() -> Iterator[QdrantStore]:
    found = QdrantStore(":memory:")
    yield found
    found.close()


def filled(store: Store, version: str, vectors: np.ndarray = VECTORS) -> None:
    store.create(version, 8)
    for start in (0, 16):
        stop = 16 if start == 0 else 40
        store.add(version, start, vectors[start:stop], IDS[start:stop])
    store.finish(version)


def test_it_finds_what_a_plain_product_finds(store: QdrantStore) -> None:
    filled(store, "a")
    scores, rows = store.search("a", VECTORS[:5], 7)
    products = VECTORS[:5] @ VECTORS.T
    np.testing.assert_array_equal(rows, np.argsort(-products, axis=1)[:, :7])
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :7], rtol=1e-4)
    assert store.count("a") == 40


def test_more_than_there_is_ends_in_nothing(store: QdrantStore) -> None:
    filled(store, "a")
    scores, rows = store.search("a", VECTORS[:1], 50)
    assert (rows[0, :40] >= 0).all()
    assert (rows[0, 40:] == -1).all()
    assert np.isneginf(scores[0, 40:]).all()
    assert store.search("a", np.empty((0, 8), np.float32), 3)[1].shape == (0, 3)


def test_aliases_move_together(store: QdrantStore) -> None:
    filled(store, "a")
    filled(store, "b", -VECTORS)
    store.point({"now": "a"})
    store.point({"now": "b", "before": "a"})
    assert store.aliases() == {"now": "b", "before": "a"}
    assert store.search("now", VECTORS[:1], 1)[1] == store.search("b", VECTORS[:1], 1)[1]
    store.point({"now": "a", "before": "b"})
    assert store.aliases() == {"now": "a", "before": "b"}
    store.drop("b")
    assert store.versions() == ["a"]


def test_points_that_are_put_twice_are_there_once(store: QdrantStore) -> None:
    filled(store, "a")
    store.add("a", 3, VECTORS[3:5], IDS[3:5])
    assert store.count("a") == 40


def test_a_folder_keeps_it(tmp_path: Path) -> None:
    first = QdrantStore(str(tmp_path / "store"))
    filled(first, "a")
    first.point({"now": "a"})
    first.close()
    again = QdrantStore(str(tmp_path / "store"))
    assert again.aliases() == {"now": "a"}
    assert again.search("now", VECTORS[7:8], 1)[1] == np.argmax(VECTORS[7] @ VECTORS.T)
    again.close()


def test_failures_are_one_line_with_the_address(
    store: QdrantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutageError, match=r"Qdrant at :memory:.*gone"):
        store.count("gone")
    with pytest.raises(OutageError, match=r"Qdrant at http://127.0.0.1:9: ") as caught:
        QdrantStore("http://127.0.0.1:9", timeout=1).versions()
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(MissingExtraError, match="qdrant"):
        QdrantStore(":memory:")
