from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_r.data import Corpus, corpus, table
from agentic_r.errors import DataError
from agentic_r.io import json_lines
from agentic_r.types import Passage


@pytest.fixture(params=["memory", "table"], autouse=True)
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs on a corpus in memory and on one that stays on the disk."""
    monkeypatch.setattr(corpus, "SMALL", 1 << 30 if request.param == "memory" else -1)
    return str(request.param)


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
        (
            ['{"id": "1", "contents": "a"}', '{"id": 1, "contents": "b"}'],
            ":2: .*'1', which .*:1 has",
        ),
        (['{"contents": "a"}'], r':1: got a line with \[\'contents\'\], expected "id"'),
        (['{"id": "1"}'], ':1: .*expected "id" .* and "contents"'),
        (['{"_id": "1"}'], r":1: .*\['_id'\]"),
        (["{}"], ":1: .*none of the fields"),
        (['{"id": "1", "contents": " "}'], ":1: got an empty passage"),
        (['{"id": "1", "contents": 3}'], ":1: got .*expected `str`"),
        (["[]"], ":1: got"),
        (['{"id": "1", "contents": "a"}', "", "{"], ":3: got"),
        (['{"id": "a", "text": "x"}', "", '{"_id": "a", "text": "y"}'], r":3: .*'a', which .*:1"),
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


LINES = (
    '{"id": "9", "contents": "\\"Paris\\"\\nA city."}',
    "",
    '  {"_id": 0, "title": "Rome", "text": "A city.\\u2028Old.", "metadata": {}}',
    '{"id": "\\ud83d\\ude00 /..", "contents": "No title."}',
)
PASSAGES = [
    Passage("9", "A city.", "Paris"),
    Passage("0", "A city.\u2028Old.", "Rome"),
    Passage("\U0001f600 /..", "No title."),
]


def parquet(path: Path) -> Path:
    columns = {
        "id": [p.id for p in PASSAGES],
        "contents": [f'"{p.title}"\n{p.text}' if p.title else p.text for p in PASSAGES],
        "more": [1, 2, 3],
    }
    target = path.with_suffix(".parquet")
    pq.write_table(pa.table(columns), target)
    return target


def gz(path: Path) -> Path:
    target = path.with_name("corpus.jsonl.gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


def zst(path: Path) -> Path:
    """Two frames one after the other, as parallel packers write them."""
    raw = path.read_bytes()
    target = path.with_name("corpus.jsonl.zst")
    target.write_bytes(b"".join(zstandard.compress(part) for part in (raw[:70], raw[70:])))
    return target


@pytest.mark.parametrize("pack", [lambda path: path, gz, zst, parquet])
def test_every_form_holds_the_same_passages(
    tmp_path: Path, pack: Callable[[Path], Path], where: str
) -> None:
    path = pack(corpus_file(tmp_path, *LINES))
    for _ in range(2):  # the second opening finds the table that the first made
        found = Corpus.load(path)
        assert list(found) == PASSAGES
        assert [found[row] for row in (2, 0, -2)] == [PASSAGES[row] for row in (2, 0, -2)]
        assert list(found.passages(1, 9)) == PASSAGES[1:]
        assert [found.row(p.id) for p in PASSAGES] == [0, 1, 2]
        assert "1" not in found and "9" in found  # an id is never a row
        assert found.get("0") == PASSAGES[1]
        assert found.digest == Corpus(PASSAGES).digest
        with pytest.raises(IndexError):
            found[3]
    assert path.with_name(path.name + ".table").exists() == (where == "table")


@pytest.mark.parametrize("pack", [gz, zst])
def test_a_cut_packed_file_is_refused_by_name(tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    path = pack(corpus_file(tmp_path, *LINES))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=f"{path.name}: cannot be read"):
        Corpus.load(path)


def test_bad_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    path.write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"c\.parquet: cannot be read"):
        Corpus.load(path)
    pq.write_table(pa.table({"id": ["a", "a"], "contents": ["x", "y"]}), path)
    with pytest.raises(DataError, match=r"row 1: got id 'a', which .*row 0 has"):
        Corpus.load(path)
    pq.write_table(pa.table({"id": ["a", "b"], "contents": [1, 2]}), path)
    with pytest.raises(DataError, match="row 0: Expected `str"):
        Corpus.load(path)


def test_a_changed_file_gets_a_new_table_and_a_touched_one_does_not(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = corpus_file(tmp_path, *LINES)
    digest = Corpus.load(path).digest
    os.utime(path, (1, 1))
    if where == "table":
        with monkeypatch.context() as inside:
            inside.setattr(table, "_make", lambda *_: pytest.fail("made again"))
            assert Corpus.load(path).digest == digest
    path.write_text(path.read_text().replace("Old", "New"))  # the size stays
    assert "New" in Corpus.load(path).get("0").text
    path.write_text(path.read_text() + '{"id": "x", "text": "y"}')
    assert len(Corpus.load(path)) == 4


def test_a_damaged_table_is_made_again(tmp_path: Path, where: str) -> None:
    if where == "memory":
        return
    path = corpus_file(tmp_path, *LINES)
    Corpus.load(path)
    made = path.with_name("corpus.jsonl.table")
    whole = made.read_bytes()
    for damaged in (b"", whole[:50], whole[:-1], b"x" * len(whole)):
        made.write_bytes(damaged)
        assert list(Corpus.load(path)) == PASSAGES
        assert made.read_bytes() == whole
    open_one = Corpus.load(path)
    path.write_text("\n" * path.stat().st_size)
    with pytest.raises(DataError, match="row 1: the file was changed"):
        open_one[1]


def test_a_folder_that_cannot_be_written_uses_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "memory":
        return
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(table.os, "access", lambda *_: False)
    folder = tmp_path / "corpora"
    folder.mkdir()
    path = gz(corpus_file(folder, *LINES))
    assert list(Corpus.load(path)) == list(Corpus.load(path)) == PASSAGES
    assert sorted(p.name for p in folder.iterdir()) == ["corpus.jsonl", "corpus.jsonl.gz"]
    assert len(list((tmp_path / "cache").rglob("*.table"))) == 1


ids = st.lists(st.text(min_size=1), min_size=1, max_size=30, unique=True)


@given(ids)
@settings(max_examples=40, deadline=None)
def test_any_id_is_found_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str]
) -> None:
    path = tmp_path_factory.mktemp("ids") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": i, "contents": f"<{i}>"}) + "\n" for i in ids))
    found = table.Table(path)
    assert [found.row(i) for i in ids] == list(range(len(ids)))
    assert [found.passage(row).id for row in range(len(ids))] == ids
    for other in ("0", "1", "a", ids[0] + "x"):
        assert (found.row(other) is not None) == (other in ids)


def test_equal_hashes_of_two_ids_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_hash", lambda id: len(id))
    path = corpus_file(tmp_path, *(f'{{"id": "{i}", "contents": "x"}}' for i in "cabd"))
    found = table.Table(path)
    assert [found.row(i) for i in "abcde"] == [1, 2, 0, 3, None]
    with pytest.raises(DataError, match=r":3: got id 'a', which .*:2 has"):
        table.Table(corpus_file(tmp_path, *(f'{{"id": "{i}", "contents": "x"}}' for i in "caa")))


OPEN = """
import resource, sys
from pathlib import Path
from agentic_r.data.table import Table
found = Table(Path(sys.argv[1]))
print(found.passage(len(found) - 1).id, found.row("7"))
print([l for l in open("/proc/self/status") if l.startswith("RssAnon")][0].split()[1])
"""


def test_two_processes_make_one_table(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(f'{{"id": {i}, "contents": "text {i}"}}\n' for i in range(20_000)))
    started = [
        subprocess.Popen([sys.executable, "-c", OPEN, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in started:
        said, _ = process.communicate(timeout=60)
        assert said.splitlines()[0] == "19999 7"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus.jsonl", "corpus.jsonl.table"]


def test_zst_lines_are_read_whole(tmp_path: Path) -> None:
    text = "".join(f"line {i}\n" for i in range(50_000))
    (tmp_path / "a.zst").write_bytes(zstandard.compress(text.encode()))
    assert [line.decode() for _, line in json_lines(tmp_path / "a.zst")] == text.split("\n")[:-1]
