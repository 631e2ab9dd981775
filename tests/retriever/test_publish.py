from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError, MismatchError, OutageError
from agentic_r.retriever.dense import DenseRetriever
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.publish import publish, roll_back, version_of
from agentic_r.retriever.stored import StoredRetriever
from agentic_r.retriever.stores import Store, Vectors
from agentic_r.retriever.stores.milvus import MilvusStore
from agentic_r.retriever.stores.qdrant import QdrantStore
from agentic_r.settings.retriever import IndexConfig
from agentic_r.types import Passage

from .conftest import make_checkpoint
from .test_imported import CORPUS

NAME = "wiki"


@pytest.fixture
def store() -> Iterator[QdrantStore]:
    found = QdrantStore(":memory:")
    yield found
    found.close()


@pytest.fixture(scope="module")
def local(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> DenseRetriever:
    folder = tmp_path_factory.mktemp("index")
    return DenseRetriever.build(encoder, CORPUS, folder, progress=False)


def other(tmp_path: Path, seed: int) -> DenseRetriever:
    checkpoint = make_checkpoint(tmp_path / f"other{seed}", seed=seed)
    encoder = Encoder.load(str(checkpoint), 32)
    return DenseRetriever.build(encoder, CORPUS, tmp_path / f"index{seed}", progress=False)


def put(store: Store, retriever: DenseRetriever) -> str:
    folder = retriever.index.folder
    return publish(store, NAME, folder, retriever.encoder, retriever.corpus).version


def test_what_is_published_finds_what_the_index_finds(
    any_store: Store, local: DenseRetriever
) -> None:
    ticks: list[int] = []
    folder = local.index.folder
    done = publish(any_store, NAME, folder, local.encoder, CORPUS, ticks.append)
    assert (done.passages, sum(ticks), done.previous) == (300, 300, "")
    assert done.agreement is not None
    assert done.agreement > 0.99
    stored = StoredRetriever(local.encoder, any_store, NAME, CORPUS)
    queries = [p.contents for p in CORPUS][:12]
    for here, there in zip(local.search(queries, 5), stored.search(queries * 2, 5), strict=False):
        assert [hit.score for hit in there] == pytest.approx([h.score for h in here], abs=1e-4)
        assert there[0].passage == here[0].passage
    assert len(stored.search(["kavron"], 1000)[0]) == 300
    with pytest.raises(ConfigError, match="k = 0"):
        stored.search(["x"], 0)


def test_publishing_again_does_nothing_and_a_new_one_keeps_the_old(
    any_store: Store, local: DenseRetriever, tmp_path: Path
) -> None:
    first = put(any_store, local)
    again = publish(any_store, NAME, local.index.folder, local.encoder, CORPUS)
    assert (again.version, again.agreement) == (first, None)
    second = put(any_store, other(tmp_path, 1))
    assert any_store.aliases() == {NAME: second, f"{NAME}__previous": first}
    third = put(any_store, other(tmp_path, 2))
    assert any_store.aliases() == {NAME: third, f"{NAME}__previous": second}
    assert any_store.versions() == sorted([second, third])


def test_roll_back_and_forward(any_store: Store, local: DenseRetriever, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no earlier version"):
        roll_back(any_store, NAME)
    first = put(any_store, local)
    newer = other(tmp_path, 1)
    second = put(any_store, newer)
    with pytest.raises(MismatchError, match="this run's encoder"):
        StoredRetriever(local.encoder, any_store, NAME, CORPUS)
    assert roll_back(any_store, NAME).version == first
    StoredRetriever(local.encoder, any_store, NAME, CORPUS)
    assert roll_back(any_store, NAME).version == second
    roll_back(any_store, NAME)
    assert put(any_store, newer) == second  # tried again and moved, not filled again
    assert any_store.aliases() == {NAME: second, f"{NAME}__previous": first}


class Faulty(QdrantStore):
    """Loses vectors, mixes them up, or dies when so many are in."""

    fault = ""

    def add(self, version: str, start: int, vectors: Vectors, ids: list[str]) -> None:  # type: ignore[override]
        if self.fault == "dies":
            raise OutageError("the store is gone")
        if self.fault == "loses":
            vectors, ids = vectors[:-1], ids[:-1]
        if self.fault == "mixes":
            vectors = np.random.default_rng(0).standard_normal(vectors.shape, np.float32) / 9
        super().add(version, start, vectors, ids)


@pytest.mark.parametrize(
    ("fault", "message"), [("loses", "299 vectors"), ("mixes", "of what exact search does")]
)
def test_a_version_that_is_not_good_is_dropped_and_the_alias_stays(
    local: DenseRetriever, tmp_path: Path, fault: str, message: str
) -> None:
    store = Faulty(":memory:")
    first = put(store, local)
    store.fault = fault
    with pytest.raises(DataError, match=message):
        put(store, other(tmp_path, 1))
    assert store.aliases() == {NAME: first}
    assert store.versions() == [first]


def test_an_interrupted_publication_is_begun_again(local: DenseRetriever) -> None:
    store = Faulty(":memory:")
    store.fault = "dies"
    with pytest.raises(OutageError):
        put(store, local)
    assert store.aliases() == {}
    store.fault = ""
    put(store, local)
    assert store.count(NAME) == 300


def test_aliases_move_in_one_request(store: QdrantStore, local: DenseRetriever) -> None:
    asked: list[Mapping[str, str]] = []
    point = store.point
    store.point = lambda aliases: (asked.append(aliases), point(aliases))[1]  # type: ignore[method-assign]
    put(store, local)
    assert asked == [{NAME: version_of(NAME, local.encoder.fingerprint, CORPUS.digest)}]


def test_versions_of_names_that_begin_alike_are_left_alone(
    store: QdrantStore, local: DenseRetriever, tmp_path: Path
) -> None:
    others = [f"{NAME}__mine", f"{NAME}_x__{'0' * 12}_{'0' * 12}", f"{NAME}__{'0' * 12}"]
    for name in others:
        store.create(name, 8)
    old = f"{NAME}__{'0' * 12}_{'0' * 12}"
    store.create(old, 8)
    version = put(store, local)
    assert store.versions() == sorted([*others, version])


def test_a_kill_between_two_moves_leaves_the_old_version_in_place(
    local: DenseRetriever, tmp_path: Path
) -> None:
    """Milvus moves one alias at a time: the one that is searched comes last."""
    pytest.importorskip("pymilvus")
    store = MilvusStore(str(tmp_path / "milvus.db"))
    first = put(store, local)
    newer = other(tmp_path, 1)
    point = store.point

    def killed(aliases: Mapping[str, str]) -> None:
        point(dict([next(iter(aliases.items()))]))
        raise KeyboardInterrupt

    store.point = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        put(store, newer)
    assert store.aliases() == {NAME: first, f"{NAME}__previous": first}
    store.point = point  # type: ignore[method-assign]
    second = put(store, newer)
    assert store.aliases() == {NAME: second, f"{NAME}__previous": first}
    store.point = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        roll_back(store, NAME)
    assert store.aliases()[NAME] == first
    store.close()


def test_what_cannot_be_published(
    store: QdrantStore, local: DenseRetriever, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="letters, digits and _"):
        publish(store, "a-b", local.index.folder, local.encoder, CORPUS)
    with pytest.raises(MismatchError, match="expected"):
        publish(store, NAME, local.index.folder, local.encoder, corpus)
    with pytest.raises(ConfigError, match="nothing is published"):
        StoredRetriever(local.encoder, store, NAME, CORPUS)
    many = Corpus([*CORPUS, *(_renamed(n) for n in range(800))])
    coded = DenseRetriever.build(
        local.encoder, many, tmp_path / "pq", IndexConfig(kind="sq8"), progress=False
    )
    with pytest.raises(ConfigError, match="no exact vectors"):
        publish(store, NAME, coded.index.folder, local.encoder, many)


def _renamed(number: int) -> Passage:
    passage = CORPUS[number % 300]
    return Passage(f"more{number}", passage.text, passage.title)
