from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError, MismatchError
from agentic_r.retriever import blocks
from agentic_r.retriever import index as module
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.index import INDEX_FILE, MANIFEST_FILE, Index, verify
from agentic_r.settings.retriever import IndexConfig
from agentic_r.types import Passage

from .conftest import NAMES, make_checkpoint


def test_search_is_exact_sorted_and_the_same_in_any_batch(
    encoder: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    Index.build(encoder, corpus, tmp_path)
    index = Index.open(tmp_path, encoder, corpus)
    queries = encoder.encode([f"where was {name} born" for name in NAMES] * 200, "query")
    scores, rows = index.search(queries, 5)
    cosines = queries @ encoder.encode([p.contents for p in corpus], "passage").T
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :5], atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()
    for at in (0, 7, 1000):
        alone = index.search(queries[at : at + 1], 5)
        np.testing.assert_array_equal(alone[0][0], scores[at])
        np.testing.assert_array_equal(alone[1][0], rows[at])


@pytest.mark.parametrize("kind", ["exact", "sq8"])
def test_batches_that_are_shared_find_the_same(
    encoder: Encoder, corpus: Corpus, tmp_path: Path, kind: str
) -> None:
    if kind != "exact":  # the least that an approximate index is built for
        corpus = Corpus([Passage(str(at), f"{NAMES[at % 3]} {at}") for at in range(1000)])
    index = Index.build(encoder, corpus, tmp_path, IndexConfig(kind=kind))
    queries = encoder.encode([f"where was {name} born" for name in NAMES], "query")
    scores, _ = index.search(queries, 5)
    index.share_batches()
    index.share_batches()
    again, rows = index.search(queries, 5)
    np.testing.assert_allclose(again, scores, atol=1e-6)
    assert (np.diff(again, axis=1) <= 0).all()
    assert all(len(set(each)) == 5 for each in rows.tolist())


def test_k_beyond_the_corpus_and_ties(encoder: Encoder) -> None:
    index = Index.build(encoder, Corpus([Passage(str(i), "kavron") for i in range(4)]))
    scores, rows = index.search(encoder.encode(["telmi", "oskar"], "query"), 9)
    assert rows.tolist() == [[0, 1, 2, 3]] * 2
    assert scores.shape == (2, 4)
    assert index.search(np.empty((0, 32), np.float32), 2)[1].shape == (0, 2)


def test_bad_searches_are_refused(encoder: Encoder, corpus: Corpus) -> None:
    index = Index.build(encoder, corpus)
    with pytest.raises(ConfigError, match="k = 0"):
        index.search(encoder.encode(["x"], "query"), 0)
    with pytest.raises(MismatchError, match="32"):
        index.search(np.zeros((1, 8), np.float32), 1)


def test_another_encoder_is_refused_with_both_fingerprints(
    encoder: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    Index.build(encoder, corpus, tmp_path / "index")
    other = Encoder.load(str(make_checkpoint(tmp_path / "other", seed=1)), 32)
    with pytest.raises(MismatchError, match="agentic-r index") as caught:
        Index.open(tmp_path / "index", other, corpus)
    assert encoder.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)


def test_another_corpus_is_refused(encoder: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    Index.build(encoder, corpus, tmp_path)
    changed = Corpus([*list(corpus)[:-1], Passage("z", "other")])
    with pytest.raises(MismatchError, match="corpus"):
        Index.open(tmp_path, encoder, changed)


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_truncated_file_is_refused_by_name(
    encoder: Encoder, corpus: Corpus, tmp_path: Path, keep: int
) -> None:
    Index.build(encoder, corpus, tmp_path)
    file = tmp_path / INDEX_FILE
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"{INDEX_FILE}: damaged.*agentic-r index"):
        Index.open(tmp_path, encoder, corpus)


def test_missing_and_malformed_files_are_refused_by_name(
    encoder: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=MANIFEST_FILE):
        Index.open(tmp_path, encoder, corpus)
    Index.build(encoder, corpus, tmp_path)
    (tmp_path / MANIFEST_FILE).write_text('{"kind": 1}')
    with pytest.raises(DataError, match=MANIFEST_FILE):
        Index.open(tmp_path, encoder, corpus)
    Index.build(encoder, corpus, tmp_path)
    (tmp_path / INDEX_FILE).unlink()
    with pytest.raises(DataError, match=INDEX_FILE):
        Index.open(tmp_path, encoder, corpus)


def test_a_flipped_bit_is_refused_by_name_wherever_it_is(
    encoder: Encoder, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 256)
    many = Corpus([Passage(str(i), f"{NAMES[i % 8]} " * (1 + i % 9)) for i in range(1200)])
    Index.build(encoder, many, tmp_path, IndexConfig("pq"))
    names = ["codes.faiss", "rescore.faiss"]
    rng = np.random.default_rng(0)
    for turn in range(40):
        path = tmp_path / names[turn % 2]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        place = int(rng.integers(0, 64 if turn < 10 else len(whole)))
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        block = rf"{path.name}: damaged in the block at byte {place // 256 * 256}:.*agentic-r index"
        with pytest.raises(DataError, match=block):
            Index.open(tmp_path, encoder, many)
        with pytest.raises(DataError, match=block):
            verify(tmp_path)
        path.write_bytes(whole)
    assert verify(tmp_path).count == 1200
    Index.open(tmp_path, encoder, many)


def test_a_large_file_is_checked_in_the_background(
    encoder: Encoder, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Index.build(encoder, corpus, tmp_path)
    path = tmp_path / INDEX_FILE
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    monkeypatch.setattr(blocks, "AT_ONCE", 0)
    index = Index.open(tmp_path, encoder, corpus)
    with pytest.raises(DataError, match=f"{INDEX_FILE}: damaged"):
        index.check.wait()
    assert index.check.finished
    with pytest.raises(DataError, match=f"{INDEX_FILE}: damaged"):
        index.search(encoder.encode(["kavron"], "query"), 1)
    raw[-1] ^= 1
    path.write_bytes(raw)
    index = Index.open(tmp_path, encoder, corpus)
    index.check.wait()
    assert len(index.search(encoder.encode(["kavron"], "query"), 1)[1]) == 1


def test_only_a_query_side_of_these_passages_is_taken(
    encoder: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    Index.build(encoder, corpus, tmp_path / "index")
    other = make_checkpoint(tmp_path / "other", seed=1)
    side = Encoder.load(str(other), 32, changes={"trained_for": encoder.fingerprint})
    assert len(Index.open(tmp_path / "index", side, corpus)) == len(corpus)
    wrong = Encoder.load(str(other), 32, changes={"trained_for": "0" * 16})
    with pytest.raises(MismatchError, match=f"{encoder.fingerprint}, got encoder {'0' * 16}"):
        Index.open(tmp_path / "index", wrong, corpus)
    side.save(tmp_path / "saved")
    assert Encoder.load(str(tmp_path / "saved")).passage_side == encoder.fingerprint


def test_a_large_exact_index_multiplies_matrices(
    encoder: Encoder, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = faiss.cvar.distance_compute_blas_threshold
    try:
        small = Index.build(encoder, corpus)
        queries = encoder.encode(NAMES, "query")
        expected = small.search(queries, 3)
        monkeypatch.setattr(module, "_SMALL", 1)
        large = Index.build(encoder, corpus)
        assert faiss.cvar.distance_compute_blas_threshold == 2 * 32
        np.testing.assert_allclose(large.search(queries, 3)[0], expected[0], atol=1e-6)
        monkeypatch.undo()
        # The threshold is the library's, for all indexes; a small one still scans query by query.
        np.testing.assert_array_equal(small.search(queries, 3)[0], expected[0])
    finally:
        faiss.cvar.distance_compute_blas_threshold = before
