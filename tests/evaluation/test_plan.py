from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentic_r.config import Config, IndexConfig, load_config, to_toml
from agentic_r.errors import ConfigError
from agentic_r.evaluation.plan import describe, missing, plan, wanted


def grid(folder: Path, text: str = "", **overrides: str) -> Config:
    path = folder / "grid.toml"
    path.write_text('[data]\nsource = "files"\ncorpus = "c.jsonl"\nquestions = "q.jsonl"\n' + text)
    return load_config(path, [(k.replace("__", "."), v) for k, v in overrides.items()])


FULL = """
[agent]
model = "http://localhost:8000/v1"
turns = 5

[retriever]
k = 3

[[evaluation.agents]]
label = "Agent A"
[[evaluation.agents]]
label = "Agent B"
model = "some/model"
turns = 9
[[evaluation.retrievers]]
kind = "bm25"
input = "query"
[[evaluation.retrievers]]
label = "mine"
base = "runs/mine/model"
k = 5
[[evaluation.datasets]]
name = "nq"
[[evaluation.datasets]]
name = "own"
path = "own.jsonl"
sample = 7
"""


def test_entries_change_what_they_name_and_keep_the_rest(tmp_path: Path) -> None:
    found = plan(grid(tmp_path, FULL, evaluation__sample="50"))
    assert [(a.label, a.config.model, a.config.turns) for a in found.agents] == [
        ("Agent A", "http://localhost:8000/v1", 5),
        ("Agent B", "some/model", 9),
    ]
    bm25, mine = found.retrievers
    assert (bm25.label, bm25.kind, bm25.config.k, bm25.config.input) == ("bm25", "bm25", 3, "query")
    assert (mine.label, mine.kind, mine.config.k) == ("mine", "dense", 5)
    assert [(s.name, s.sample) for s in found.sources] == [("nq", 50), ("own", 7)]
    cell = found.cells(found.agents[0], mine)[1]
    assert cell.name == "Agent A + mine on own"
    assert cell.folder == "grid/agent-a/mine/own"


def test_without_lists_there_is_no_grid_and_one_list_is_enough(tmp_path: Path) -> None:
    assert not wanted(grid(tmp_path))
    config = grid(tmp_path, '[[evaluation.retrievers]]\nkind = "bm25"\n')
    assert wanted(config)
    found = plan(config)
    assert found.own
    assert (found.agents[0].label, found.sources[0].name) == ("tiny", "test")


def test_the_lists_are_settings_like_others(tmp_path: Path) -> None:
    config = grid(tmp_path, FULL)
    again = tmp_path / "again.toml"
    again.write_text(to_toml(config))
    assert load_config(again) == config
    short = grid(tmp_path, evaluation__datasets='[{name = "nq", sample = 3}]')
    assert [s.sample for s in plan(short).sources] == [3]


def test_questions_to_train_on_are_not_needed_for_a_grid(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        '[data]\nsource = "files"\ncorpus = "c"\n[[evaluation.datasets]]\nname = "nq"\n'
    )
    assert plan(load_config(path)).sources[0].name == "nq"


@pytest.mark.parametrize(
    "entry", ['{"index.kind" = "pq"}', '{index = {kind = "pq"}}', '{index.kind = "pq"}']
)
def test_settings_of_a_table_below_can_differ(tmp_path: Path, entry: str) -> None:
    found = plan(grid(tmp_path, evaluation__retrievers=f"[{entry}]")).retrievers[0]
    assert found.config.index.kind == "pq"
    assert found.config.index.candidates == IndexConfig().candidates


BAD: list[tuple[str, str, str]] = [
    (
        "agents",
        '{modle = "x"}',
        r"evaluation.agents, entry 1: .*agent.modle; did you mean agent.model",
    ),
    ("agents", "{batch = 0}", r"entry 1: agent.batch: got 0, expected an integer of at least 1"),
    ("agents", '{label = "-"}', r"entry 1: label: got '-', expected a name"),
    ("agents", '{label = "a b"}, {label = "A-B"}', r"evaluation.agents: 'A-B' is taken"),
    ("retrievers", '{kind = "magic"}', r'entry 1: kind: got .magic., expected one of "dense"'),
    ("retrievers", '{kind = "oracle", input = "query"}', r'input: got "query", expected "question'),
    ("retrievers", '{label = "x", epochs = 3}', r"entry 1: there is no setting retriever.epochs"),
    (
        "retrievers",
        '{"index.kin" = "pq"}',
        r"retriever.index.kin; did you mean retriever.index.kind",
    ),
    ("retrievers", "{index = {candidates = 0}}", r"retriever.index.candidates: got 0"),
    ("datasets", '{nam = "nq"}', r"entry 1: there is no key 'nam'; did you mean name"),
    ("datasets", '{path = "x.jsonl"}', r"entry 1: .*missing required field `name`"),
    ("datasets", '{name = "nq", sample = -1}', r"sample of at least 0"),
    ("datasets", '{name = "nq", sample = "many"}', r"entry 1: Expected `int`, got `str`"),
    ("datasets", '{name = "squad"}', r"entry 1: data set 'squad': nothing says which split"),
    (
        "datasets",
        '{name = "nq"}, {name = "NQ", split = "dev"}',
        r"datasets: 'NQ' is taken; .* name",
    ),
    ("datasets", '{name = "average", split = "dev"}', r"'average' is taken"),
]


@pytest.mark.parametrize(("name", "entries", "message"), BAD)
def test_bad_entries_are_named(tmp_path: Path, name: str, entries: str, message: str) -> None:
    overrides: dict[str, Any] = {f"evaluation__{name}": f"[{entries}]"}
    with pytest.raises(ConfigError, match=message):
        plan(grid(tmp_path, **overrides))


def test_a_list_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"evaluation.agents: got \[3\], expected a list of tables"
    ):
        grid(tmp_path, evaluation__agents="[3]")


def test_what_is_missing_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = grid(tmp_path, FULL)
    assert missing(config, plan(config)) == ["own.jsonl", "c.jsonl"]
    said = describe(config, plan(config))
    assert "corpus: c.jsonl (MISSING)" in said
    assert any("nq/test.jsonl (" in line and "MISSING" not in line for line in said)
    assert said[-1] == "8 cells"
    Path("own.jsonl").touch()
    Path("c.jsonl").touch()
    assert missing(config, plan(config)) == []
