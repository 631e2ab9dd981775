from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Row
from agentic_r.evaluation.compare import Compared
from agentic_r.evaluation.report import (
    Gain,
    Report,
    gain,
    notes,
    read_report,
    table,
    write_report,
)

AFTER, BEFORE = "iteration 2, k=2", "untouched question+query, k=2"
ROWS = [Row(name, 2, 0.5, 0.5, None, 1.0, 1.0, 4) for name in (BEFORE, AFTER)]


def test_json_has_the_agreed_keys(tmp_path: Path, report: Report) -> None:
    path, _ = write_report(tmp_path / "new", report)
    data = json.loads(path.read_text())
    agreed = ["name", "k", "em", "f1", "hit_at_3", "searches", "seconds", "n"]
    assert path.name == "report.json"
    for row in data["rows"]:
        assert list(row)[:8] == agreed
    assert list(data["gain"]) == ["em", "low", "high", "name", "over"]
    names = [row["name"] for row in data["rows"]]
    assert len(set(names)) == len(names)
    assert data["gain"]["name"] in names and data["gain"]["over"] in names
    for entry in data["labelling"]:
        counts = ["searches", "kept", "continuations", "exhaustive"]
        assert list(entry) == [*counts, "judge_calls", "subanswer_calls"]
    assert read_report(path) == report


def test_a_report_of_an_earlier_version_is_read(tmp_path: Path, report: Report) -> None:
    path, _ = write_report(tmp_path, report)
    data = json.loads(path.read_text())
    for entry in data["labelling"]:
        del entry["judge_calls"], entry["subanswer_calls"]
    for curve in data["curves"]:
        del curve["dev"], curve["dev_k"]
        for point in curve["points"]:
            del point["accuracy"]
    del data["failures"], data["rerankers"]
    path.write_text(json.dumps(data))
    old = read_report(path)
    assert [entry.kept for entry in old.labelling] == [604, 811]
    assert [entry.calls for entry in old.labelling] == [0, 0] and old.failures == []
    assert old.curves[0].points[0].accuracy is None and not old.curves[0].dev
    _, page = write_report(tmp_path, old)
    assert page.read_text().count("<polyline") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [*ROWS, ROWS[0]]}, "expected unique names"),
        ({"gain": Gain(0.1, 0.0, 0.2, "nobody", BEFORE)}, "row 'nobody'"),
        ({"comparisons": [Compared("x", BEFORE, "em", 0, 0, 0, 1, 1)]}, "row 'x'"),
        (
            {
                "rows": [ROWS[0], msgspec.structs.replace(ROWS[1], em=52.0)],
                "comparisons": [],
            },
            "expected a fraction 0-1",
        ),
        ({"gain": Gain(float("nan"), 0.0, 0.2, AFTER, BEFORE)}, "finite"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(
    tmp_path: Path, report: Report, change: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_report(tmp_path, msgspec.structs.replace(report, **change))
    assert list(tmp_path.iterdir()) == []


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such report"):
        read_report(tmp_path / "report.json")
    (tmp_path / "report.json").write_text('{"name": 3}')
    with pytest.raises(DataError, match="expected the report of a run"):
        read_report(tmp_path / "report.json")


def test_the_gain_comes_from_a_comparison() -> None:
    compared = Compared("a", "b", "em", 0.1, 0.05, 0.15, 10, 5)
    assert gain(compared, "a", "b") == Gain(0.1, 0.05, 0.15, "a", "b")


def test_the_table_lines_up(report: Report) -> None:
    lines = table(report.rows).splitlines()
    assert len(lines) == 2 + len(report.rows)
    assert lines[0].split()[:4] == ["name", "k", "EM", "F1"] and "EM unseen" in lines[0]
    assert lines[0].split()[-3:] == ["read", "written", "cost/1k"]
    assert lines[2].split()[-3:] == ["1,305", "147", "0.284"]
    assert len({len(line) for line in lines}) == 1
    assert lines[2].startswith("BM25, k=2") and "0.332" in lines[2]
    bare = msgspec.structs.replace(
        report.rows[0], em_seen=None, em_unseen=None, cost=None, hit_at_3=None, name="two\nlines"
    )
    text = table([bare])
    assert (
        "EM seen" not in text
        and "cost" not in text
        and "written" in text
        and " - " in text
        and "two lines" in text
    )
    assert table([]).startswith("name")


def test_a_re_ranker_that_makes_it_worse_is_named() -> None:
    plain = Row("iteration 1, k=1", 1, 0.41, 0.41, 0.8, 2.0, 1.0, 4)
    named = msgspec.structs.replace(plain, name="re-ranked iteration 1, k=1", em=0.02)
    (said,) = notes([plain, named])
    assert said.startswith("re-ranked iteration 1, k=1: EM 39.0 points below iteration 1, k=1")
    assert notes([plain, msgspec.structs.replace(named, em=0.41)]) == []
