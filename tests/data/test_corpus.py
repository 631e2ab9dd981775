from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from agentic_r.data import Corpus
from agentic_r.errors import DataError
from agentic_r.types import Passage


def corpus_file(folder: Path, *lines: str) -> Path:
    path = folder / "corpus.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_load_reads_both_forms(tmp_path: Path) -> None:
    path = corpus_file(
        tmp_path,
        r'{"id": "p1", "contents": "\"Paris\"\nA city.\nIn France."}',
        r'{"id": 2, "title": "Rome", "text": "A city.", "url": "x"}',
        r'{"id": "p3", "contents": "No title here."}',
        r'{"id": "p4", "contents": "Bare title\nText."}',
        r'{"id": "p5", "contents": "\"\"Heroes\" (album)\"\nText."}',
    )
    corpus = Corpus.load(path)
    assert list(corpus) == [
        Passage("p1", "A city.\nIn France.", "Paris"),
        Passage("2", "A city.", "Rome"),
        Passage("p3", "No title here."),
        Passage("p4", "Text.", "Bare title"),
        Passage("p5", "Text.", '"Heroes" (album)'),
    ]
    assert len(corpus) == 5
    assert corpus[1] == corpus.get("2")
    assert corpus.row("p3") == 2
    assert "p4" in corpus and "p9" not in corpus and Passage("p3", "other") not in corpus


def test_load_unpacks_gz_and_the_digest_depends_on_content_alone(tmp_path: Path) -> None:
    path = corpus_file(tmp_path, r'{"id": "1", "contents": "\"T\"\nx"}')
    packed = tmp_path / "corpus.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    digest = Corpus.load(path).digest
    assert Corpus.load(packed).digest == digest
    assert Corpus([Passage("1", "x", "T")]).digest == digest
    assert Corpus([Passage("1", "T", "x")]).digest != digest


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "without passages"),
        (['{"id": "1", "contents": "a"}', '{"id": 1, "contents": "b"}'], ":2: .*'1', which line 1"),
        (['{"contents": "a"}'], r':1: got a line with \[\'contents\'\], expected "id"'),
        (['{"id": "1"}'], ':1: .*expected "id" and "contents"'),
        (['{"_id": "1"}'], ":1: .*none of the fields"),
        (['{"id": "1", "contents": " "}'], ":1: got an empty passage"),
        (['{"id": "1", "contents": 3}'], ":1: got .*expected `str`"),
        (["[]"], ":1: got"),
    ],
)
def test_load_refuses(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        Corpus.load(corpus_file(tmp_path, *lines))
    assert "corpus.jsonl" in str(raised.value)


def test_constructor_refuses_duplicates_and_nothing() -> None:
    with pytest.raises(DataError, match="rows 0 and 2"):
        Corpus([Passage("a", "x"), Passage("b", "x"), Passage("a", "y")])
    with pytest.raises(DataError, match="without passages"):
        Corpus([])


def test_an_unknown_id_is_named() -> None:
    with pytest.raises(DataError, match="has no passage 'z'"):
        Corpus([Passage("a", "x")]).get("z")
