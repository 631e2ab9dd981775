"""Trajectories of a run folder are found by stage and row, never by path."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agentic_r.types import Question, Search, Trajectory, Turn
from tests.serve.conftest import Client, Make, served

TURNS = (
    Turn("<search> ulm </search>", "search", (Search("ulm", "Q? [SEP] ulm"),), None, "seen"),
    Turn("<answer> Ulm </answer>", "answer", (), "Ulm"),
)


@pytest.fixture
def client(make: Make, tmp_path: Path) -> Client:
    """A service of a run with two stages, and one that leads out of it."""
    rows = [
        Trajectory(f"t{at}", Question(f"q{at}", f"Where {at}?", ("ulm",)), TURNS, "answered")
        for at in range(60)
    ]
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    folder = tmp_path / "run"
    for name in ("iteration-1/rollouts", "evaluation/untouched/rollouts", "out"):
        (folder / name).mkdir(parents=True)
        (folder / name / "trajectories.jsonl").write_bytes(lines + b'{"half a')
    (tmp_path / "outside.jsonl").write_bytes(lines)
    link = folder / "out" / "trajectories.jsonl"
    link.unlink()
    link.symlink_to(tmp_path / "outside.jsonl")
    return make(what=served(run=folder)[0])


def test_walking_through_a_run(client: Client) -> None:
    assert client.get("/run").json()["stages"] == [
        {"stage": "evaluation/untouched/rollouts", "trajectories": 60},
        {"stage": "iteration-1/rollouts", "trajectories": 60},
    ]
    page = client.get("/run/trajectories?stage=iteration-1/rollouts&start=50").json()
    assert [row["row"] for row in page["rows"]] == list(range(50, 60))
    assert page["rows"][0]["correct"] is True
    one = client.get("/run/trajectory?stage=iteration-1/rollouts&row=59").json()
    assert one["trajectory"]["question"]["id"] == "q59"
    assert one["trajectory"]["turns"][0]["searches"][0]["sent"] == "Q? [SEP] ulm"


@pytest.mark.parametrize(
    "stage", ["out", "..", "../outside", "/etc", "iteration-1", "%2e%2e%2foutside", "%00"]
)
def test_a_stage_is_no_path(client: Client, stage: str) -> None:
    assert client.get(f"/run/trajectories?stage={stage}&start=0").status_code == 404
    assert client.get(f"/run/trajectory?stage={stage}&row=0").status_code == 404


@pytest.mark.parametrize(
    "query",
    ["stage=x", "stage=x&start=-1", "stage=x&start=1&start=2", "start=a&stage=x", "%ff", ""],
)
def test_bad_parameters(client: Client, query: str) -> None:
    assert client.get(f"/run/trajectories?{query}").status_code == 422


def test_rows_that_are_not_there(client: Client, make: Make) -> None:
    assert client.get("/run/trajectory?stage=iteration-1/rollouts&row=60").status_code == 404
    assert make().get("/run").status_code == 404
