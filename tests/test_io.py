from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_r import io
from agentic_r.errors import DataError, RunError
from agentic_r.io import (
    Rows,
    digest_file,
    digest_model,
    fingerprint,
    read_json_list,
    read_jsonl,
    write_atomic,
    write_jsonl,
)


class Row(msgspec.Struct, frozen=True):
    id: int
    text: str


rows_strategy = st.lists(st.builds(Row, id=st.integers(0, 9), text=st.text(max_size=8)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(rows=rows_strategy, at=st.integers(0, 8), cut=st.floats(0, 1))
def test_rows_lose_only_the_torn_line_and_carry_on(rows: list[Row], at: int, cut: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with Rows(path, Row) as file:
            file.extend(rows[:at])
            file.extend(rows[at:])
        whole = path.read_bytes() if path.exists() else b""
        torn = whole[: int(cut * len(whole))]
        path.write_bytes(torn)
        with Rows(path, Row) as file:
            kept = len(file.rows)
            assert file.rows == rows[:kept]
            assert kept == torn.count(b"\n")
            file.extend(rows[kept:])
            assert file.rows == rows
        assert path.read_bytes() == whole
        assert read_jsonl(path, Row, allow_empty=True) == rows


def test_rows_close_in_canonical_order(tmp_path: Path) -> None:
    file = Rows(tmp_path / "rows.jsonl", Row)
    file.extend([Row(2, "b"), Row(1, "a"), Row(2, "a")])
    file.close(order=lambda row: row.id)
    assert read_jsonl(tmp_path / "rows.jsonl", Row) == [Row(1, "a"), Row(2, "b"), Row(2, "a")]


def test_rows_close_makes_the_file_even_without_rows(tmp_path: Path) -> None:
    Rows(tmp_path / "rows.jsonl", Row).close(order=lambda row: row.id)
    assert (tmp_path / "rows.jsonl").read_bytes() == b""


def test_rows_cut_a_tail_longer_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id":1,"text":"a"}\n' + b"\0" * 200_000)
    assert Rows(path, Row).rows == [Row(1, "a")]
    assert path.stat().st_size == 20


def test_rows_refuse_a_malformed_line_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id":1,"text":"a"}\n{"id":1\n{"id":2,"text":"b"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: got"):
        Rows(path, Row)


def test_rows_survive_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    file = Rows(path, Row)
    file.extend([Row(1, "a")])
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left"):
            file.extend([Row(2, "b")])
    assert path.read_bytes() == before
    assert file.rows == [Row(1, "a")]
    file.extend([Row(3, "c")])
    file.close()
    assert read_jsonl(path, Row) == [Row(1, "a"), Row(3, "c")]


def test_write_atomic_keeps_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "file.txt"
    write_atomic(path, "old")
    assert path.stat().st_mode & 0o777 == 0o644

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(io.os, "fsync", full)
    with pytest.raises(RunError, match=r"file\.txt: cannot be written: No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": 1, "text"', "one JSON object a line"),
        ('{"id": "x", "text": "a"}', r"`int`, got `str` - at `\$\.id`"),
        ("[1, 2]", "one JSON object a line; write each element"),
        ("[", "one JSON object a line; write each element"),
        ('{"id": 1}', "missing required field `text`"),
    ],
)
def test_read_jsonl_names_file_line_and_what_was_expected(
    tmp_path: Path, line: str, expected: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1, "text": "a"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=rf"rows\.jsonl:3: got .* expected .*{expected}") as raised:
        read_jsonl(path, Row)
    assert "\n" not in str(raised.value)


def test_read_jsonl_refuses_what_is_missing_empty_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_jsonl(tmp_path / "none.jsonl", Row)
    with pytest.raises(DataError, match="folder"):
        read_jsonl(tmp_path, Row)
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(DataError, match="empty file"):
        read_jsonl(empty, Row)
    assert read_jsonl(empty, Row, allow_empty=True) == []
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"id": 1, "text": "é"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.jsonl:1: got .* not UTF-8; save it as UTF-8"):
        read_jsonl(latin, Row)
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(b'{"id": 1, "text": "a"}\n')[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_jsonl(broken, Row)


def test_read_json_list_refuses_in_one_line_what_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text('\ufeff[{"id": 1, "text": "a"}]')
    assert read_json_list(path, Row, "rows") == [Row(1, "a")]
    for raw, said in (
        ('[{"id": 1, "text": "é"}]'.encode("latin-1"), "not UTF-8; save it as UTF-8; expected"),
        (b"[" * 100_000, "expected a JSON list of rows"),
        (b'{"id": 1}', "expected a JSON list of rows"),
    ):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=said):
            read_json_list(path, Row, "rows")


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="a folder is there, expected a file; name another"):
        write_atomic(tmp_path, "x")
    for path in (tmp_path / "file" / "a", tmp_path / "file" / "b" / "c"):
        with pytest.raises(RunError, match="a file is where its folder should be; name another"):
            write_atomic(path, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_jsonl_there_and_back_with_gz_and_byte_order_mark(tmp_path: Path) -> None:
    rows = [Row(1, "one\nline"), Row(2, "zwei ü")]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl", Row) == rows
    raw = b"\xef\xbb\xbf" + (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(raw))
    assert read_jsonl(tmp_path / "rows.jsonl.gz", Row) == rows


def test_fingerprint_depends_on_values_alone() -> None:
    assert fingerprint({"a": 1, "b": [Row(1, "x")]}) == fingerprint({"b": [Row(1, "x")], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint(None)) == 16


def test_digest_file_is_the_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_file(tmp_path / "a").startswith("ba7816bf")
    with pytest.raises(DataError, match="no such file"):
        digest_file(tmp_path / "b")


def test_a_model_is_known_by_its_files_or_its_name(tmp_path: Path) -> None:
    assert digest_model("some/model") == "some/model"
    found = set()
    for text in ("a", "b"):
        (tmp_path / "model.safetensors").write_text(text)
        found.add(digest_model(str(tmp_path)))
    (tmp_path / "README.md").write_text("a card")
    assert len(found) == 2 and digest_model(str(tmp_path)) in found


def test_the_words_import_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "import agentic_r.types, agentic_r.protocols, agentic_r.errors, agentic_r.io\n"
        "import agentic_r.metrics, agentic_r.config, agentic_r.data, agentic_r.stage\n"
        "heavy = {'torch', 'transformers', 'faiss', 'bm25s', 'matplotlib', 'httpx', 'jinja2',\n"
        "         'numpy', 'sentence_transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )
    source = str(Path(io.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
