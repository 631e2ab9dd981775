from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.data.chunk import Counts, Cut, chunk_file, chunks, documents
from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError, MissingExtraError
from agentic_r.types import Passage

TEXT = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6),
    max_size=40,
)


def cut(text: str, how: Cut) -> list[list[str]]:
    found = chunks(iter([Passage("d", text, "A title")]), how, Counts())
    return [passage.text.split() for passage in found]


@given(TEXT, st.integers(1, 9), st.integers(0, 8))
def test_words_are_cut_as_the_plain_rule_says(words: list[str], size: int, overlap: int) -> None:
    overlap = min(overlap, size - 1)
    expected, start = [], 0
    while start < len(words):
        expected.append(words[start : start + size])
        if start + size >= len(words):
            break
        start += size - overlap
    assert cut("  \n ".join(words), Cut("words", size, overlap)) == expected


@given(st.lists(st.sampled_from(["a", "bb", "ccc.", "d!", "e?\n"]), max_size=60), st.integers(1, 9))
def test_sentences_lose_nothing_and_keep_the_size(words: list[str], size: int) -> None:
    text = " ".join(words)
    found = cut(text, Cut("sentences", size))
    assert [word for passage in found for word in passage] == text.split()
    assert all(0 < len(passage) <= size for passage in found)


def test_sentences_are_kept_whole_and_overlap() -> None:
    text = "".join(f"Sentence number {n} is here. " for n in range(6))
    found = cut(text, Cut("sentences", 10, 6))  # the library counts a blank as a word here
    assert all(passage[0] == "Sentence" and passage[-1] == "here." for passage in found)
    assert [passage[2] for passage in found] == ["0", "1", "2", "3", "4"]


def test_a_folder_becomes_a_corpus_that_opens(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    (texts / "deep").mkdir(parents=True)
    (texts / "one.txt").write_text("a b c d e")
    (texts / "deep" / "two.md").write_text("f g")
    (texts / "no.pdf").write_text("not read")
    counts = chunk_file(texts, tmp_path / "out.jsonl", Cut("words", 2))
    corpus = Corpus.load(tmp_path / "out.jsonl")
    assert (counts.documents, counts.passages) == (2, 4)
    assert [p.id for p in corpus] == ["deep/two.md-0", "one.txt-0", "one.txt-1", "one.txt-2"]
    assert corpus.get("one.txt-1") == Passage("one.txt-1", "c d", "one")


def test_many_documents_give_the_same_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentic_r.data.chunk._RENEWED", 3)
    given = [Passage(str(n), f"w{n} x{n} y{n}") for n in range(10)]
    found = list(chunks(iter(given), Cut("words", 2), Counts()))
    assert [p.text for p in found if p.id.endswith("-0")] == [f"w{n} x{n}" for n in range(10)]


def test_what_cannot_be_cut_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="overlap 5"):
        Cut("words", 5, 5)
    with pytest.raises(ConfigError, match=r"\.jsonl"):
        chunk_file(tmp_path, tmp_path / "out.txt", Cut())
    with pytest.raises(DataError, match="no document"):
        chunk_file(tmp_path, tmp_path / "out.jsonl", Cut())
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(DataError, match="no such file"):
        list(documents(tmp_path / "gone.jsonl"))
    monkeypatch.setitem(sys.modules, "chonkie", None)
    with pytest.raises(MissingExtraError, match="chunk"):
        list(chunks(iter([Passage("a", "b")]), Cut(), Counts()))
