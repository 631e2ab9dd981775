from __future__ import annotations

import json
import tempfile
from pathlib import Path

import bm25s
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.data import corpus as corpora
from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError
from agentic_r.retriever import bm25
from agentic_r.retriever.bm25 import BM25Retriever, _best
from agentic_r.types import Passage

CORPUS = Corpus(
    [
        Passage("a", "A dog sleeps.", "Kavron"),
        Passage("b", "He runs through a city.", "Telmi"),
        Passage("c", "She was sleeping.", "Oskar"),
        Passage("d", "Nothing of note.", "Sepia"),
    ]
)


def test_queries_and_passages_are_both_stemmed() -> None:
    hits = BM25Retriever(CORPUS).search(["running cities"], 1)[0]
    assert hits[0].passage.id == "b"
    assert hits[0].score > 0


def test_titles_count_and_the_separator_does_not() -> None:
    found = BM25Retriever(CORPUS).search(["who is Kavron [SEP] Kavron", "sep", "[SEP]"], 4)
    assert found[0][0].passage.id == "a"
    plain = BM25Retriever(CORPUS).search(["who is Kavron Kavron"], 4)[0]
    assert found[0] == plain


def test_ties_keep_corpus_order_and_k_is_bounded() -> None:
    found = BM25Retriever(CORPUS).search(["sleep", "", "the", "zzz"], 9)
    assert [[hit.passage.id for hit in hits] for hits in found[1:]] == [["a", "b", "c", "d"]] * 3
    assert {hit.passage.id for hit in found[0][:2]} == {"a", "c"}
    assert [hit.score for hit in found[0][2:]] == [0.0, 0.0]
    assert BM25Retriever(CORPUS).search([], 2) == []
    with pytest.raises(ConfigError, match="k = 0"):
        BM25Retriever(CORPUS).search(["x"], 0)


def test_a_corpus_without_words_is_searched() -> None:
    hits = BM25Retriever(Corpus([Passage("a", "!?"), Passage("b", "the")])).search(["dog"], 2)[0]
    assert [hit.passage.id for hit in hits] == ["a", "b"]


def large(folder: Path, monkeypatch: pytest.MonkeyPatch, passages: Corpus = CORPUS) -> Corpus:
    """The passages as a corpus that stays on the disk."""
    monkeypatch.setattr(corpora, "SMALL", 0)
    path = folder / "corpus.jsonl"
    rows = [{"id": p.id, "title": p.title, "text": p.text} for p in passages]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Corpus.load(path)


QUERIES = ["running cities", "sleep", "", "zzz", "who is Kavron [SEP] dog"]


def test_a_large_corpus_is_mapped_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = BM25Retriever(CORPUS).search(QUERIES, 3)
    corpus = large(tmp_path, monkeypatch)
    assert BM25Retriever(corpus).search(QUERIES, 3) == expected
    monkeypatch.setattr(bm25s.BM25, "index", None)  # it is not made again
    again = BM25Retriever(Corpus.load(tmp_path / "corpus.jsonl"))
    assert isinstance(again._index.scores["data"], np.memmap)
    assert again.search(QUERIES, 3) == expected
    assert not list(tmp_path.glob(".*tmp"))


WORDS = ["dog", "cat", "whale", "sings", "runs", "the", "of", "city", "a1", "7"]


@given(
    st.lists(
        st.lists(st.sampled_from(WORDS), max_size=9),
        min_size=1,
        max_size=25,
    ),
    st.integers(1, 9),
)
def test_the_matrix_is_the_librarys_to_the_last_bit(texts: list[list[str]], size: int) -> None:
    passages = [Passage(f"p{n}", " ".join(each) or "-") for n, each in enumerate(texts)]
    made = BM25Retriever(Corpus(passages))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bm25, "_SLICE", size)
        found = made._streamed(Path(folder))
        if made._index is None:
            assert found is None
            return
        assert list(found.vocab_dict.items()) == list(made._index.vocab_dict.items())
        assert found.scores["num_docs"] == len(passages)
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(found.scores[name], made._index.scores[name])
            assert found.scores[name].dtype == made._index.scores[name].dtype


def test_another_corpus_of_that_name_is_indexed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BM25Retriever(large(tmp_path, monkeypatch))
    other = Corpus([Passage("z", "A whale sings.", "")])
    found = BM25Retriever(large(tmp_path, monkeypatch, other)).search(["whales"], 1)
    assert found[0][0].passage.id == "z"
    assert found[0][0].score > 0


def test_damage_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = large(tmp_path, monkeypatch)
    BM25Retriever(corpus)
    path = tmp_path / "corpus.jsonl.bm25" / "data.csc.index.npy"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"data\.csc.*delete .*bm25"):
        BM25Retriever(corpus)


def test_a_large_corpus_without_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Corpus([Passage("a", "!?"), Passage("b", "the")])
    for _ in range(2):
        found = BM25Retriever(large(tmp_path, monkeypatch, silent)).search(["dog"], 2)[0]
        assert [hit.passage.id for hit in found] == ["a", "b"]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=30), st.data())
def test_the_best_are_those_of_a_stable_sort(scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    expected = np.argsort(-np.array(scores), kind="stable")[:k]
    assert _best(np.array(scores), k) == expected.tolist()
