from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agentic_r.errors import MissingExtraError, OutageError
from agentic_r.retriever.stores import qdrant
from agentic_r.retriever.stores.qdrant import QdrantStore


@pytest.fixture
def store() -> Iterator[QdrantStore]:
    found = QdrantStore(":memory:")
    yield found
    found.close()


def test_failures_are_one_line_with_the_address(
    store: QdrantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutageError, match=r"Qdrant at http://127.0.0.1:9: ") as caught:
        QdrantStore("http://127.0.0.1:9", timeout=1).versions()
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(MissingExtraError, match="qdrant"):
        QdrantStore(":memory:")


def states(store: QdrantStore, monkeypatch: pytest.MonkeyPatch, *found: Any) -> None:
    """Let the engine say one state after the other, the last for ever."""
    rest = list(found)
    monkeypatch.setattr(qdrant, "_LOOK", 0.01)
    monkeypatch.setattr(
        store._client, "get_collection", lambda _: rest.pop(0) if rest[1:] else rest[0]
    )


def state(colour: str, indexed: int, optimiser: Any = "ok") -> Any:
    from qdrant_client.models import CollectionStatus

    return SimpleNamespace(
        status=CollectionStatus(colour),
        indexed_vectors_count=indexed,
        points_count=1000,
        optimizer_status=optimiser,
    )


def test_a_graph_is_waited_for(store: QdrantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create("a", 8)
    store.add("a", 0, np.ones((3, 8), np.float32), ["x", "y", "z"])
    states(store, monkeypatch, state("yellow", 0), state("yellow", 500), state("green", 1000))
    store.finish("a")


def test_a_graph_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    store = QdrantStore(":memory:", build_timeout=0.05)
    store.create("a", 8)
    states(store, monkeypatch, state("yellow", 500))
    with pytest.raises(
        OutageError, match=r"a is yellow after 0.05 s with 500 of 1,000 vectors.*build_timeout"
    ):
        store.finish("a")
    failed = SimpleNamespace(error="no space left on device")
    states(store, monkeypatch, state("yellow", 1), state("red", 1, failed))
    with pytest.raises(OutageError, match=r"failed with 1 of 1,000.*no space left on device"):
        store.finish("a")
    store.close()
