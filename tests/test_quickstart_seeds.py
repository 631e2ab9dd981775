"""What the three-seed benchmark reads, pools and decides; the runs themselves are made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from agentic_r.evaluation.benchmark import Record, summarise
from agentic_r.evaluation.compare import compare
from agentic_r.evaluation.report import Gain, Report, write_report
from agentic_r.io import write_jsonl
from tests.evaluation.conftest import made_report

from .scripts import benchmark

BEFORE, AFTER, ORACLE = "untouched query, k=1", "iteration 1, k=1", "oracle, k=1"


@pytest.fixture(scope="module")
def seeds() -> ModuleType:
    return benchmark("quickstart_seeds")


def records(right: Sequence[int]) -> list[Record]:
    """Make 40 questions on 20 roots, of which those in `right` were answered."""
    return [
        Record("", f"q{n}", f"root{n // 2}", float(n in right), float(n in right), 2)
        for n in range(40)
    ]


def make_run(folder: Path, gained: int) -> Report:
    """Write a finished run whose last iteration answers `gained` questions more."""
    answered = {
        BEFORE: records(range(10)),
        AFTER: records(range(10 + gained)),
        ORACLE: records(range(30)),
    }
    rows = []
    for place, (name, found) in enumerate(answered.items()):
        row = summarise(found, name, 1, 1.0)
        rows.append(row)
        scores = folder / "evaluation" / f"row-{place}" / "scores"
        scores.mkdir(parents=True)
        write_jsonl(scores / "records.jsonl", found)
        (scores / "row.json").write_bytes(msgspec.json.encode(row))
    found = compare(answered[BEFORE], answered[AFTER], samples=500)
    report = msgspec.structs.replace(
        made_report(),
        rows=rows,
        gain=Gain(found.difference, found.low, found.high, AFTER, BEFORE),
        comparisons=[],
        gap_closed=gained / 20,
    )
    write_report(folder, report)
    return report


def test_three_runs_are_made_one_after_another_and_pooled(
    seeds: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[list[str]] = []

    def loop(arguments: list[str]) -> int:
        asked.append(arguments)
        name = arguments[arguments.index("--name") + 1]
        make_run(tmp_path / name, gained=12 + len(asked))
        return 0

    monkeypatch.setattr(seeds, "agentic_r", loop)
    code = seeds.main(["--runs", str(tmp_path), "--retriever.train.epochs", "1"])
    out = capsys.readouterr().out
    assert [line[line.index("--seed") + 1] for line in asked] == ["0", "1", "2"]
    assert all(line[0] == "loop" and "--retriever.train.epochs" in line for line in asked)
    assert code == 0, out
    assert out.count("PASS") == 7
    assert "FAIL" not in out
    assert "3 seeds: mean gain +35.0 (+32.5, +35.0, +37.5)" in out
    assert "mean share of the oracle gap closed: 70%" in out
    assert "120 questions, 60 (seed, root) clusters" in out
    assert BEFORE in out
    assert ORACLE in out


def test_a_missed_target_fails(seeds: ModuleType, tmp_path: Path) -> None:
    for number, gained in enumerate((14, 3)):
        make_run(tmp_path / str(number), gained)
    found = [seeds.finished(tmp_path / str(n), n, 1.0) for n in range(2)]
    results = {text: is_met for is_met, text in seeds.checks(found)}
    met = {text.partition(",")[0]: is_met for text, is_met in results.items()}
    assert met["seed 0: gain +35.0"]
    assert not met["seed 1: gain +7.5"]
    assert sum(not each for each in met.values()) >= 3
    assert "42%" in next(text for text in results if text.startswith("mean share"))


def test_roots_of_different_seeds_are_different_clusters(seeds: ModuleType, tmp_path: Path) -> None:
    make_run(tmp_path / "0", 12)
    once = seeds.finished(tmp_path / "0", 0, 1.0)
    again = seeds.finished(tmp_path / "0", 1, 1.0)
    both: Any = seeds.pooled([once, again], samples=200)
    assert (both.n, both.clusters) == (80, 40)
    assert both.difference == pytest.approx(0.3)


def test_a_failing_run_stops_the_benchmark(
    seeds: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "agentic_r", lambda arguments: 1)
    assert seeds.main(["--runs", str(tmp_path)]) == 1


def test_a_run_without_its_records_is_refused(seeds: ModuleType, tmp_path: Path) -> None:
    write_report(tmp_path, made_report())
    with pytest.raises(seeds.DataError, match="got no records of"):
        seeds.finished(tmp_path, 0, 1.0)
