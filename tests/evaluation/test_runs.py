"""Runs as the loop leaves them, read back, compared and shown."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Record, summarise
from agentic_r.evaluation.overview import render_overview
from agentic_r.evaluation.runs import find, grouped, named, read_run
from agentic_r.evaluation.terminal import show_comparison, write_overview
from agentic_r.evaluation.verdict import contest_table, doubt, spoken, too_small
from agentic_r.io import write_jsonl
from tests.evaluation.test_page import HOSTILE, Page

ROWS = {"BM25, k=2": 0.3, "untouched query, k=2": 0.35, "iteration 1, k=2": 0.8}


def made_run(folder: Path, name: str = "one", rows: dict[str, float] = ROWS, n: int = 60) -> Path:
    """Lay down what a reader of runs needs: settings, manifests, rows and records."""
    run = folder / name
    run.mkdir(parents=True)
    config = {"name": name, "seed": 0, "evaluation": {"bootstrap": 400}}
    (run / "config.json").write_bytes(msgspec.json.encode(config))
    stages = [("base/index", 2.0)]
    for row, rate in rows.items():
        draw = random.Random(row)
        records = [
            Record("d", str(at), f"r{at // 2}", float(draw.random() < rate), 0.5, 2)
            for at in range(n)
        ]
        at = f"evaluation/{len(stages)}/scores"
        write_jsonl(run / at / "records.jsonl", records)
        row_json = msgspec.json.encode(summarise(records, row, 2, 1.5))
        (run / at / "row.json").write_bytes(row_json)
        stages.append((at, 1.0))
    for order, (stage, seconds) in enumerate(stages, 1):
        manifest = {"stage": stage, "order": order, "seconds": seconds}
        (run / stage).mkdir(parents=True, exist_ok=True)
        (run / stage / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return run


def test_a_run_of_the_loop_reads_like_a_grid(tmp_path: Path) -> None:
    run = read_run(made_run(tmp_path))
    assert [held.row.name for held in run.rows] == list(ROWS)
    assert not run.grid
    assert run.seconds == {"index": 2.0, "evaluation": 3.0}
    assert all("em" in held.row.intervals for held in run.rows)
    (group,) = grouped(named([run]), "em", 400, 0)
    assert (group.about, group.over, len(group.contests)) == ("test questions", "BM25, k=2", 2)
    assert all(c.p_holm is not None and c.p_holm >= c.p for c in group.contests)
    (group,) = grouped(named([run]), "em", 400, 0, ["iteration 1, k=2"])
    assert group.over == "iteration 1, k=2"
    assert all(c.difference < 0 for c in group.contests)


def test_rows_on_dev_questions_are_no_results(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    (run / "dev").mkdir()
    (run / "evaluation" / "1").rename(run / "dev" / "1")
    manifest = {"stage": "dev/1/scores", "order": 9, "seconds": 1.0}
    (run / "dev" / "1" / "scores" / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    assert [held.row.name for held in read_run(run).rows] == list(ROWS)[1:]


def test_rows_of_several_runs_are_compared_where_the_questions_are_the_same(
    tmp_path: Path,
) -> None:
    same, other = made_run(tmp_path, "two"), made_run(tmp_path, "three", n=20)
    runs = [read_run(run) for run in (made_run(tmp_path), same, other)]
    rows = named(runs)
    assert find(rows, "two: BM25, k=2").run == "two"
    groups = grouped(rows, "em", 200, 0)
    assert [len(group.rows) for group in groups] == [6, 3]
    with pytest.raises(DataError, match=r"got row 'BM25, k=2', expected one of: one: BM25"):
        find(rows, "BM25, k=2")
    with pytest.raises(DataError, match="expected the same questions"):
        show_comparison([same, other], ["two: BM25, k=2", "three: BM25, k=2"], "em")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no row was measured here; run `agentic-r loop CONFIG`"):
        read_run(empty)
    run = made_run(tmp_path)
    (run / "evaluation" / "1" / "scores" / "row.json").write_text("{")
    with pytest.raises(DataError, match=r"row.json: .*; delete .*/scores and run the same command"):
        read_run(run)
    (run / "config.json").write_text("[]")
    with pytest.raises(DataError, match=r"config.json: got Expected `object`"):
        read_run(run)


def test_sentences_say_what_is_settled_and_what_is_not(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    rows = named([read_run(run)])
    settled, unsettled = (
        grouped([row for row in rows if row.name in names], "em", 400, 0)[0]
        for names in (
            ("BM25, k=2", "iteration 1, k=2"),
            ("BM25, k=2", "untouched query, k=2"),
        )
    )
    assert "hardly explains the difference" in spoken(settled.contests[0])
    assert doubt(settled.contests[0]) == ""
    assert "Not settled: 60 questions on 30 roots" in spoken(unsettled.contests[0])
    assert "60 questions are too few to tell a difference of 5 points" in too_small(unsettled)
    text = contest_table(settled.contests)
    assert text.startswith("EM over BM25, k=2\n")
    assert "p (Holm)" not in text
    assert contest_table([]) == ""
    same = settled.contests[0]
    agreeing = msgspec.structs.replace(same, p=1.0, changed=0)
    assert doubt(agreeing).startswith("The two rows agree on every question")


@pytest.mark.parametrize("text", HOSTILE)
def test_names_of_rows_and_runs_are_text_on_the_page(tmp_path: Path, text: str) -> None:
    run = read_run(made_run(tmp_path, rows={f"{text} a": 0.2, f"{text} b": 0.7}))
    hostile = run._replace(name=text)
    rows = named([hostile])
    groups = [g._replace(about=text) for g in grouped(rows, "em", 100, 0)]
    page = Page(render_overview([hostile], rows, groups, "em"))
    calm = Page(render_overview([run], named([run]), grouped(named([run]), "em", 100, 0), "em"))
    assert page.open == [] and page.tags == calm.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_the_page_holds_table_plot_significance_and_cost(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_overview(page, [made_run(tmp_path)], "em", "")
    text = Page(page.read_text()).text
    for said in ("Too small to tell", "Against BM25, k=2", "corrected by Holm", "What it cost"):
        assert said in text
    write_overview(page, [tmp_path / "one"], "searches", "")
    assert "Difference in searches" in Page(page.read_text()).text
