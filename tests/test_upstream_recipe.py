"""What the benchmark of upstream's recipe runs, what it chooses by, and how it compares."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from agentic_r.evaluation.benchmark import Record
from agentic_r.io import write_jsonl

PATH = Path(__file__).parents[1] / "benchmarks" / "upstream_recipe.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """Import the benchmark, which is a script."""
    spec = importlib.util.spec_from_file_location("upstream_recipe", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["upstream_recipe"] = module
    spec.loader.exec_module(module)
    return module


def row(folder: Path, right: int) -> None:
    """Write a row of 40 questions on 20 roots, of which the first `right` were answered."""
    found = [
        Record("", f"q{n}", f"root{n // 2}", float(n < right), float(n < right), 2)
        for n in range(40)
    ]
    (folder / "scores").mkdir(parents=True)
    write_jsonl(folder / "scores" / "records.jsonl", found)


def play(runs: Path, given: Sequence[str]) -> None:
    """Write what a command of the program would leave, as far as it is read."""
    name = given[given.index("--name") + 1]
    if given[0] == "loop":
        row(runs / name / "evaluation" / "iteration-2-k-1", 20 if "ours" in name else 15)
        row(runs / name / "evaluation" / "untouched-question-query-k-1", 5)
    elif "--split" in given:
        row(runs / name / "dev" / "iteration-1-k-1", 30 if name.endswith("5e-5-twice") else 10)
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

    monkeypatch.setattr(recipe, "agentic_r", program)
    monkeypatch.setattr(recipe, "foreign", lambda folder: folder / "made")
    assert recipe.main(["--runs", str(tmp_path), "--seeds", "0", "1"]) == 0
    trials = 2 * len(recipe.TRIALS)
    assert {given[given.index("--seed") + 1] for given in asked[:trials]} == {"9"}
    loops = [given for given in asked[trials:] if given[0] == "loop"]
    assert [given[given.index("--name") + 1] for given in loops] == [
        *("ours-0", "upstream-0", "ours-1", "upstream-1"),
    ]
    assert loops[1][-4:] == [*recipe.TRIALS["5e-5-twice"]]
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


def test_a_failing_command_stops_it(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "agentic_r", lambda given: 2)
    assert recipe.main(["--runs", str(tmp_path)]) == 1
