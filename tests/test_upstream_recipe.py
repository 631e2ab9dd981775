"""What the benchmark of upstream's recipe runs, what it chooses by, and how it compares."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from .scripts import benchmark, row


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return benchmark("upstream_recipe")


def play(runs: Path, given: Sequence[str]) -> None:
    """Write what a command of the program would leave, as far as it is read."""
    name = given[given.index("--name") + 1]
    if given[0] == "loop":
        row(runs / name / "evaluation" / "iteration-2-k-1", 20 if "ours" in name else 15)
        row(runs / name / "evaluation" / "untouched-question-query-k-1", 5)
    elif "--split" in given:
        name = given[given.index("--fork") + 1] if "--fork" in given else name
        row(runs / name / "dev" / "iteration-1-k-1", 30 if name.endswith("1e-4-32-4") else 10)
    elif given[0] == "evaluate":
        for label, right in (("untouched", 4), ("upstream", 8), ("ours", 16)):
            row(runs / name / "grid" / "foreign" / label / "test", right)


def test_upstream_is_tuned_on_a_seed_of_its_own_and_compared_in_pairs(
    recipe: ModuleType,
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
    monkeypatch.setattr(recipe, "foreign", lambda folder: folder / "made")
    assert recipe.main(["--runs", str(tmp_path), "--seeds", "0", "1"]) == 0
    trials = len(recipe.TRIALS)
    assert ["--fork" in given for given in asked[:trials]] == [False, *[True] * (trials - 1)]
    assert {given[given.index("--name") + 1] for given in asked[:trials]} == {
        "upstream-trial-1e-4-16-1"
    }
    assert {given[given.index("--seed") + 1] for given in asked[:trials]} == {"9"}
    loops = [given for given in asked[trials:] if given[0] == "loop"]
    assert [given[given.index("--name") + 1] for given in loops] == [
        *("ours-0", "upstream-0", "ours-1", "upstream-1"),
    ]
    assert loops[1][-6:] == [*recipe.TRIALS["1e-4-32-4"]]
    assert "--retriever.train.recipe" not in loops[0]
    grid = asked[-1][asked[-1].index("--evaluation.retrievers") + 1]
    entries = tomllib.loads(f"retrievers = {grid}")["retrievers"]
    assert [entry["label"] for entry in entries] == ["ours", "upstream", "untouched"]
    out = capsys.readouterr().out
    own, foreign = (
        [line for line in out.splitlines() if line.startswith(agent)]
        for agent in ("own", "foreign")
    )
    assert "+37.5 [" in own[0] and "+12.5 [" in own[1] and own[2].endswith("(0.500 0.500)")
    assert "+30.0 [" in foreign[0] and "+20.0 [" in foreign[1]


def test_the_inputs_part_is_told_apart(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def program(given: list[str]) -> int:
        asked.append(given)
        play(tmp_path, given)
        return 0

    monkeypatch.setattr("program.agentic_r", program)
    monkeypatch.setattr(recipe, "foreign", lambda folder: folder / "made")
    given = ["--runs", str(tmp_path), "--seeds", "0", "--reasoning", "--trial", "2e-4-32-2"]
    assert recipe.main(given) == 0
    ours, upstream, grid = asked
    assert ours[ours.index("--name") + 1] == "ours-0"
    assert upstream[upstream.index("--name") + 1] == "reasoned-0"
    assert upstream[upstream.index("--retriever.input") + 1] == "question+reasoning+query"
    assert grid[grid.index("--name") + 1] == "foreign-reasoned-0"
    retrievers = grid[grid.index("--evaluation.retrievers") + 1]
    forms = [row["input"] for row in tomllib.loads(f"rows = {retrievers}")["rows"]]
    assert forms == ["question+reasoning+query", "question+reasoning+query", "question+query"]


def test_a_failing_command_stops_it(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("program.agentic_r", lambda given: 2)
    assert recipe.main(["--runs", str(tmp_path)]) == 1
