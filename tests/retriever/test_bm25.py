from __future__ import annotations

import pytest

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError
from agentic_r.retriever.bm25 import BM25Retriever
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
