from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentic_r.cli import main


def test_documents_become_passages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"id": n, "contents": f'"T{n}"\n' + "word " * 250} for n in range(3)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = [str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    assert main(["convert", "chunk", *arguments]) == 0
    assert "3 documents, 9 passages" in capsys.readouterr().out
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first == {"id": "0-0", "contents": '"T0"\n' + " ".join(["word"] * 100)}


def test_documents_with_one_id_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": "a", "contents": "b"}\n' * 2)
    arguments = [str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    assert main(["convert", "chunk", *arguments]) == 1
    assert "unique ids" in capsys.readouterr().err
