"""What a run spent: read out of its manifests, the fullest account of every role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentic_r.errors import DataError
from agentic_r.evaluation.costs import Spent, said, spent_in, spent_of


def usage(requests: int, **more: Any) -> dict[str, Any]:
    told = {"requests": requests, "prompt_tokens": 10 * requests, "new_tokens": requests}
    return {**told, "untold": 0, "reused": 0, "cost": 0.0, **more}


def manifest(stage: str, **spent: Any) -> dict[str, Any]:
    return {"stage": stage, "facts": {"spent": spent} if spent else {}}


def test_the_fullest_account_of_each_role_counts_once() -> None:
    found = spent_of(
        [
            manifest("iteration-1/rollouts", agent=usage(5)),
            manifest("iteration-1/labels", agent=usage(9, cost=0.5), judge=usage(4, untold=4)),
            manifest("data"),
            manifest("iteration-2/rollouts", agent=usage(7)),
        ]
    )
    assert found == [
        Spent("agent", 9, 90, 9, cost=0.5),
        Spent("judge", 4, 40, 4, untold=4),
    ]
    assert said(found[0]) == "agent: 9 answers of servers, 90 tokens read, 9 written, cost 0.5"
    assert "(4 of them not counted)" in said(found[1])


def test_the_agents_of_a_grid_are_told_apart() -> None:
    found = spent_of(
        [
            manifest("grid/one/bm25/nq/rollouts", agent=usage(2)),
            manifest("grid/one/dense/nq/rollouts", agent=usage(4)),
            manifest("grid/two/bm25/nq/rollouts", agent=usage(3)),
        ]
    )
    assert [(each.who, each.requests) for each in found] == [("agent one", 4), ("agent two", 3)]


def test_a_folder_is_read_and_a_damaged_file_named(tmp_path: Path) -> None:
    assert spent_in(tmp_path) == []
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "manifest.json"
    path.write_bytes(msgspec.json.encode(manifest("a", agent=usage(1))))
    assert [each.who for each in spent_in(tmp_path)] == ["agent"]
    path.write_bytes(b"{")
    with pytest.raises(DataError, match=r"manifest\.json: got"):
        spent_in(tmp_path)
