"""What the benchmark of alternating training runs, in which order, and how it compares arms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from .scripts import benchmark, row


@pytest.fixture(scope="module")
def alternating() -> ModuleType:
    return benchmark("alternating")


def play(runs: Path, given: Sequence[str]) -> None:
    """Write what a command of the program would leave, as far as it is read."""
    name = given[given.index("--fork" if "--fork" in given else "--name") + 1]
    own = 10 if name.endswith("-both") else 0
    if given[0] == "loop":
        evaluation = runs / name / "evaluation"
        row(evaluation / "iteration-2-k-1", 15 + own)
        row(evaluation / "untouched-question-reasoning-query-k-1", 5 + own // 2)
        row(evaluation / "oracle-k-1", 30)
    if given[0] == "evaluate":
        for label, right in (("untouched", 8), ("oracle", 35)):
            row(runs / name / "grid" / "trained" / label / "test", right)


def test_each_arm_has_the_same_budget_and_is_compared_in_pairs(
    alternating: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[list[str]] = []

    def program(given: list[str]) -> int:
        asked.append(given)
        play(tmp_path, given)
        return 0

    monkeypatch.setattr("program.agentic_r", program)
    options = ["--runs", str(tmp_path), "--seeds", "0", "1", "--start", "tiny", "--steps", "7"]
    assert alternating.main([*options, "--retriever.train.epochs", "2"]) == 0
    assert [given[0] for given in asked] == ["loop", "loop", "train", "evaluate"] * 2
    steps = "--agent.train.rl.steps"
    taken = [given[given.index(steps) + 1] if steps in given else "" for given in asked[:4]]
    assert taken == ["", "7", "14", ""]
    assert all("--retriever.train.epochs" in given for given in asked)
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if ".000" in line or "0." in line}
    assert lines["neither"].split()[1:4] == ["0.125", "(0.125", "0.125)"]
    assert "+25.0 [" in lines["retriever"]  # over neither, and as much below both
    assert lines["retriever"].count("+25.0 [") == 2
    assert "+7.5 [" in lines["agent"] and "+42.5 [" in lines["agent"]
    assert "+50.0 [" in lines["both"]
    assert lines["agent"].split()[-4:-2] == ["0.200", "0.875"]


def test_a_failing_command_stops_it(
    alternating: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("program.agentic_r", lambda given: 2)
    assert alternating.main(["--runs", str(tmp_path), "--start", "tiny"]) == 1
