from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError, MismatchError
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.index import INDEX_FILE, MANIFEST_FILE, FlatIndex
from agentic_r.types import Passage

from .conftest import NAMES, make_checkpoint


def test_search_is_exact_sorted_and_the_same_in_any_batch(
    encoder: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    FlatIndex.build(encoder, corpus, tmp_path)
    index = FlatIndex.open(tmp_path, encoder, corpus)
    queries = encoder.encode([f"where was {name} born" for name in NAMES] * 200, "query")
    scores, rows = index.search(queries, 5)
    cosines = queries @ encoder.encode([p.contents for p in corpus], "passage").T
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :5], atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()
    for at in (0, 7, 1000):
        alone = index.search(queries[at : at + 1], 5)
        np.testing.assert_array_equal(alone[0][0], scores[at])
        np.testing.assert_array_equal(alone[1][0], rows[at])


def test_k_beyond_the_corpus_and_ties(encoder: Encoder) -> None:
    index = FlatIndex.build(encoder, Corpus([Passage(str(i), "kavron") for i in range(4)]))
    scores, rows = index.search(encoder.encode(["telmi", "oskar"], "query"), 9)
    assert rows.tolist() == [[0, 1, 2, 3]] * 2
    assert scores.shape == (2, 4)
    assert index.search(np.empty((0, 32), np.float32), 2)[1].shape == (0, 2)


def test_bad_searches_are_refused(encoder: Encoder, corpus: Corpus) -> None:
    index = FlatIndex.build(encoder, corpus)
    with pytest.raises(ConfigError, match="k = 0"):
        index.search(encoder.encode(["x"], "query"), 0)
    with pytest.raises(MismatchError, match="32"):
        index.search(np.zeros((1, 8), np.float32), 1)


def test_another_encoder_is_refused_with_both_fingerprints(
    encoder: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    FlatIndex.build(encoder, corpus, tmp_path / "index")
    other = Encoder.load(str(make_checkpoint(tmp_path / "other", seed=1)), 32)
    with pytest.raises(MismatchError, match="agentic-r index") as caught:
        FlatIndex.open(tmp_path / "index", other, corpus)
    assert encoder.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)


def test_another_corpus_is_refused(encoder: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    FlatIndex.build(encoder, corpus, tmp_path)
    changed = Corpus([*list(corpus)[:-1], Passage("z", "other")])
    with pytest.raises(MismatchError, match="corpus"):
        FlatIndex.open(tmp_path, encoder, changed)


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_truncated_file_is_refused_by_name(
    encoder: Encoder, corpus: Corpus, tmp_path: Path, keep: int
) -> None:
    FlatIndex.build(encoder, corpus, tmp_path)
    file = tmp_path / INDEX_FILE
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"{INDEX_FILE}: damaged.*agentic-r index"):
        FlatIndex.open(tmp_path, encoder, corpus)


def test_missing_and_malformed_files_are_refused_by_name(
    encoder: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=MANIFEST_FILE):
        FlatIndex.open(tmp_path, encoder, corpus)
    FlatIndex.build(encoder, corpus, tmp_path)
    (tmp_path / MANIFEST_FILE).write_text('{"kind": 1}')
    with pytest.raises(DataError, match=MANIFEST_FILE):
        FlatIndex.open(tmp_path, encoder, corpus)
    (tmp_path / INDEX_FILE).unlink()
    with pytest.raises(DataError, match=INDEX_FILE):
        FlatIndex.open(tmp_path, encoder, corpus)
