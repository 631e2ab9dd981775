from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentic_r.data.rl_rows import load_rl_questions, read_parquet, write_parquet
from agentic_r.errors import DataError
from agentic_r.types import Question

pyarrow: Any = pytest.importorskip("pyarrow")

QUESTIONS = [
    Question("train_0", "Who?", ("Ada", "Bo"), "nq"),
    Question("train_0", "Where?", ("Ulm",), "hotpotqa"),
]


def put(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def upstream(**changes: Any) -> dict[str, Any]:
    """A row as upstream's script writes it, without the original columns."""
    row: dict[str, Any] = {
        "data_source": "nq",
        "prompt": [{"role": "user", "content": "Answer. Question: Who?\n"}],
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": ["Ada"]}},
        "extra_info": {"split": "train", "index": 3},
        "question": "Who?",
    }
    return row | changes


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write_parquet(QUESTIONS, ["a", "b"], path)
    assert read_parquet(path) == QUESTIONS


def test_upstreams_rows(tmp_path: Path) -> None:
    rows = [upstream(id=None, golden_answers=None)]
    rows += [upstream(id="train_9", golden_answers=["Bo"])]
    first, second = read_parquet(put(tmp_path / "a.parquet", rows))
    assert first == Question("train_3", "Who?", ("Ada",), "nq")
    assert second == Question("train_9", "Who?", ("Bo",), "nq")


def test_several_files_are_one_list(tmp_path: Path) -> None:
    write_parquet(QUESTIONS, ["a", "b"], tmp_path / "a.parquet")
    line = '{"id": "train_0", "question": "When?", "golden_answers": ["1900"]}\n'
    (tmp_path / "popqa.jsonl").write_text(line)
    found = load_rl_questions([tmp_path / "a.parquet", tmp_path / "popqa.jsonl"])
    assert [q.key for q in found] == [
        ("nq", "train_0"),
        ("hotpotqa", "train_0"),
        ("popqa", "train_0"),
    ]
    write_parquet(QUESTIONS[:1], ["a"], tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"question 'train_0' of 'nq', which .*a\.parquet has too"):
        load_rl_questions([tmp_path / "a.parquet", tmp_path / "b.parquet"])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([upstream(question="")], "row 1: got .* expected a question and its answers"),
        ([upstream(reward_model=None)], "row 1: .*expected a question and its answers"),
        ([upstream(), upstream()], "row 2: got id 'train_3', which row 1 has too"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_parquet(put(tmp_path / "a.parquet", rows))


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_parquet(tmp_path / "no.parquet")
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_parquet(tmp_path / "bad.parquet")
