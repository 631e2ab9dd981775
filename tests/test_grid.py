from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentic_r.cli import main
from agentic_r.config import Config, load_config
from agentic_r.evaluation.benchmark import Record, Row
from agentic_r.evaluation.plan import plan
from agentic_r.evaluation.runs import read_run
from agentic_r.grid import open_grid, run_grid
from agentic_r.io import read_jsonl
from agentic_r.loop import open_run
from agentic_r.testing import OracleReader
from tests.runs import WORLD, results, written

GRID = """
[retriever]
k = 2

[agent]
model = "oracle-reader"

[evaluation]
bootstrap = 300

[[evaluation.agents]]
label = "reader"

[[evaluation.agents]]
label = "hasty reader"
turns = 1

[[evaluation.retrievers]]
label = "BM25"
kind = "bm25"
input = "query"

[[evaluation.retrievers]]
label = "oracle"
kind = "oracle"
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets of a small world in files, and the config of a grid over them."""
    from agentic_r.parts import open_data

    folder = tmp_path_factory.mktemp("world")
    config = folder / "world.toml"
    config.write_text(WORLD)
    data = open_data(load_config(config))
    rows = [{"id": p.id, "title": p.title, "text": p.text} for p in data.corpus]
    lines = {"corpus": rows}
    for name, part in (("first", data.train[:10]), ("second", data.test[:12])):
        lines[name] = [
            {"id": f"q{n}", "question": q.text, "golden_answers": q.answers, "metadata": q.metadata}
            for n, q in enumerate(part)
        ]
    for name, held in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in held))
    sets = "".join(
        f'\n[[evaluation.datasets]]\nname = "{name}"\npath = "{folder}/{name}.jsonl"\n'
        for name in ("first", "second")
    )
    corpus = f'[data]\nsource = "files"\ncorpus = "{folder}/corpus.jsonl"\n'
    (folder / "grid.toml").write_text(f'name = "grid"\n{corpus}{GRID}{sets}')
    return folder


def config_of(world: Path, runs: Path, *more: tuple[str, str]) -> Config:
    return load_config(world / "grid.toml", [("runs", str(runs)), *more])


def measured(config: Config) -> Path:
    with open_run(config) as run:
        run_grid(open_grid(run, config, plan(config)))
        return run.folder


LEXICAL = ("evaluation.retrievers", '[{label = "BM25", kind = "bm25", input = "query"}]')
"""A grid that encodes nothing, so a quick one."""


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return measured(config_of(world, tmp_path_factory.mktemp("runs")))


def rows_of(run: Path) -> dict[str, Row]:
    return {row.name: row for row in read_jsonl(run / "rows.jsonl", Row)}


def test_every_cell_and_every_average_is_a_row(finished: Path) -> None:
    rows = rows_of(finished)
    assert len(rows) == 2 * 2 * 2 + 2 * 2
    names = list(rows)
    assert names[0] == "reader + BM25 on first"
    assert names[-1] == "hasty reader + oracle on average"
    ceiling = rows["reader + oracle on first"]
    assert (ceiling.em, ceiling.hit_at_3, ceiling.gold_recall) == (1.0, 1.0, 1.0)
    assert ceiling.intervals["em"][0] < 1.0
    assert (ceiling.n, ceiling.tokens, ceiling.unfinished) == (10, None, 0.0)
    average = rows["reader + BM25 on average"]
    parts = [rows[f"reader + BM25 on {name}"] for name in ("first", "second")]
    assert average.em == pytest.approx(sum(part.em for part in parts) / 2)
    assert average.n == 22
    assert average.tokens is None
    low, high = average.intervals["hit_at_3"]
    assert average.hit_at_3 is not None
    assert low < average.hit_at_3 < high


def test_unfinished_questions_are_counted_as_such(finished: Path) -> None:
    hasty = rows_of(finished)["hasty reader + oracle on second"]
    assert (hasty.unfinished, hasty.em, hasty.searches) == (1.0, 0.0, 1.0)


def test_the_same_questions_have_the_same_keys_and_ids_may_repeat(finished: Path) -> None:
    folder = finished / "grid" / "reader" / "bm25"
    first = read_jsonl(folder / "first" / "scores" / "records.jsonl", Record)
    second = read_jsonl(folder / "second" / "scores" / "records.jsonl", Record)
    assert {r.id for r in first} < {r.id for r in second}
    assert {r.dataset for r in first} == {"first"}


def test_a_finished_grid_does_nothing_again(world: Path, finished: Path) -> None:
    before = written(finished / "grid")
    config = config_of(world, finished.parent)
    assert measured(config) == finished
    assert written(finished / "grid") == before


class Stopped(Exception):
    """The machine was switched off."""


def test_a_grid_cut_short_goes_on_and_ends_the_same(
    world: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(world, tmp_path)
    asked = 0
    whole = OracleReader.complete

    async def cut(self: OracleReader, prompt: str, sampling: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked > 40:
            raise Stopped
        return await whole(self, prompt, sampling)

    with monkeypatch.context() as patch:
        patch.setattr(OracleReader, "complete", cut)
        with pytest.raises(Stopped):
            measured(config)
    assert len(rows_of(tmp_path / "grid")) in range(1, 8)
    run = measured(config)
    one, other = results(finished), results(run)
    # Rows hold seconds; everything else is equal to the byte.
    for found in (one, other):
        found.pop("rows.jsonl")
        for name in list(found):
            if name.endswith("comparison.html"):
                found.pop(name)
    assert [name for name in one if one[name] != other.get(name)] == []


def test_a_data_set_may_be_added_and_the_rest_stays(world: Path, tmp_path: Path) -> None:
    entry = f'[{{name = "first", path = "{world}/first.jsonl"}}]'
    run = measured(config_of(world, tmp_path, LEXICAL, ("evaluation.datasets", entry)))
    before = written(run / "grid")
    assert len(rows_of(run)) == 2
    measured(config_of(world, tmp_path, LEXICAL))
    after = written(run / "grid")
    assert len(rows_of(run)) == 6
    assert {name: after[name] for name in before} == before


def test_a_cell_is_never_reused_for_something_else(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["evaluate", str(world / "grid.toml"), "--runs", str(tmp_path)]
    one += [f"--{LEXICAL[0]}", LEXICAL[1]]
    sets = f'[{{name = "first", path = "{world}/first.jsonl", sample = SIZE}}]'
    assert main([*one, "--evaluation.datasets", sets.replace("SIZE", "4")]) == 0
    assert main([*one, "--evaluation.datasets", sets.replace("SIZE", "5")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "grid/reader/bm25/first/rollouts was made with other settings or inputs" in said
    forked = [*one, "--evaluation.datasets", sets.replace("SIZE", "5"), "--fork", "more"]
    assert main(forked) == 0


def test_the_command_line_shows_compares_and_writes_trec(
    world: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--runs", str(finished.parent)]
    folder = tmp_path / "trec"
    assert main(["evaluate", str(world / "grid.toml"), *runs, "--trec", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "average over data sets" in out
    assert "first: EM over reader + BM25 on first" in out
    assert "reader + oracle on first: nDCG@10" in out
    assert "Warning: first: 10 questions are too few" in out
    assert len(list(folder.glob("*.run"))) == len(list(folder.glob("*.qrels"))) == 8
    pair = ["reader + oracle on first", "reader + BM25 on first"]
    assert main(["report", str(finished), "--compare", *pair, "--metric", "hit_at_3"]) == 0
    out = capsys.readouterr().out
    assert "hit@3: reader + oracle on first" in out
    assert "paired randomisation test" in out
    assert main(["report", str(finished), "--compare", pair[0], pair[0]]) == 1
    assert "twice, expected two rows" in capsys.readouterr().err


def test_a_page_over_runs(
    world: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(world, tmp_path, LEXICAL, ("name", "other"))
    other = measured(config)
    page = tmp_path / "page.html"
    assert main(["report", str(finished), str(other), "--page", str(page)]) == 0
    html = page.read_text()
    assert "other: reader + BM25 on first" in html
    assert "Against grid: reader + BM25 on first" in html
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert main(["report", str(finished), str(finished)]) == 1
    assert "two runs named 'grid'" in capsys.readouterr().err


def test_rows_read_back_are_the_rows_written(finished: Path) -> None:
    run = read_run(finished)
    assert {held.row.name: held.row for held in run.rows} == rows_of(finished)
    assert run.grid
    assert run.seconds["evaluation"] > 0


def test_dry_run_names_the_cells_and_what_is_missing(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["evaluate", str(world / "grid.toml"), "--runs", str(tmp_path), "--dry-run"]
    assert main(one) == 0
    out = capsys.readouterr().out
    assert "# 8 cells" in out
    again = tmp_path / "again.toml"
    again.write_text(out)
    assert load_config(again) == config_of(world, tmp_path)
    assert main([*one, "--data.corpus", "no-such.jsonl"]) == 1
    assert "no-such.jsonl: there is no such file" in capsys.readouterr().err
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "dev"], "--split is for the loop's own table"),
        (["--data.corpus", "no.jsonl"], "no.jsonl: there is no such file"),
        (["--evaluation.datasets", "[{name = 'x', path = 'no.jsonl'}]"], "no.jsonl: there is no"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    one = ["evaluate", str(world / "grid.toml"), "--runs", str(tmp_path)]
    assert main([*one, *arguments]) in (1, 2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert message in said[0]


def test_indexes_of_one_encoder_are_kept_apart(tmp_path: Path) -> None:
    from agentic_r.grid import _index_key

    path = tmp_path / "grid.toml"
    path.write_text("[retriever]\nk = 2\n")
    keys = {
        _index_key(load_config(path, more))
        for more in (
            [],
            [("retriever.index.workers", "3")],
            [("retriever.index.kind", "pq")],
            [("retriever.index.kind", "pq"), ("retriever.index.candidates", "4")],
        )
    }
    assert "" in keys
    assert len(keys) == 3
