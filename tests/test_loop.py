"""The whole loop on a small world: what it leaves, and that nothing is done twice."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from agentic_r import judging
from agentic_r.cli import main
from agentic_r.config import Config, load_config
from agentic_r.data.questions import load_questions
from agentic_r.errors import ConfigError, DataError, LLMError
from agentic_r.evaluation.benchmark import Record, summarise
from agentic_r.evaluation.table import with_intervals
from agentic_r.io import read_jsonl
from agentic_r.loop import open_run, run_loop, stage_names
from agentic_r.protocols import JudgeRequest
from agentic_r.retriever.encoder import Encoder
from agentic_r.testing import OracleReader

from .runs import differences, read_json, read_lines, results, write_config, written

ROW = {"name", "k", "em", "f1", "hit_at_3", "searches", "seconds", "n"}


class Made(NamedTuple):
    config: Path
    folder: Path
    printed: str
    report: dict[str, Any]

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.report["rows"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("loop")
    config = write_config(folder, runs=folder / "runs")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["loop", str(config)]) == 0
    run = folder / "runs" / "small"
    return Made(config, run, out.getvalue(), read_json(run / "report.json"))


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("this was done before")


def test_the_table_has_every_system_once(made: Made) -> None:
    assert [row["name"] for row in made.report["rows"]] == [
        "BM25 query, k=2",
        "untouched query, k=1",
        "untouched query, k=2",
        "untouched question+query, k=1",
        "untouched question+query, k=2",
        "iteration 1, k=2",
        "iteration 2, k=2",
        "oracle, k=2",
    ]
    for row in made.report["rows"]:
        assert set(row) >= ROW
        assert f"k={row['k']}" in row["name"]
        assert row["n"] == 24 == row["n_seen"] + row["n_unseen"]
        assert row["failed"] == 0
        assert row["seconds"] > 0
        for rate in ("em", "f1", "hit_at_3", "em_seen", "em_unseen"):
            assert 0.0 <= row[rate] <= 1.0
        assert 1.0 <= row["searches"] <= 3.0
        assert set(row["em_by_hops"]) == {"1", "2", "3"}


def test_the_ceiling_is_above_everything(made: Made) -> None:
    assert made.rows["oracle, k=2"]["em"] == made.rows["oracle, k=2"]["hit_at_3"] == 1.0
    assert max(row["em"] for row in made.report["rows"]) == 1.0


def test_training_helps(made: Made) -> None:
    hits = {name: row["hit_at_3"] for name, row in made.rows.items()}
    assert hits["iteration 2, k=2"] > hits["untouched question+query, k=2"]


def test_the_gain_is_the_last_iteration_over_the_best_untouched_row(made: Made) -> None:
    gain, rows = made.report["gain"], made.rows
    assert set(gain) == {"em", "low", "high", "name", "over"}
    assert gain["name"] == "iteration 2, k=2"
    untouched = {name: row["em"] for name, row in rows.items() if name.startswith("untouched")}
    assert rows[gain["over"]]["em"] == max(untouched.values())
    assert gain["over"] in untouched
    assert gain["em"] == pytest.approx(rows[gain["name"]]["em"] - rows[gain["over"]]["em"])
    assert gain["low"] <= gain["em"] <= gain["high"]
    gap = 1.0 - rows[gain["over"]]["em"]
    assert made.report["gap_closed"] == pytest.approx(gain["em"] / gap)
    compared = {c["name"]: c for c in made.report["comparisons"]}
    assert set(compared) == set(rows) - {gain["over"]}
    for name, comparison in compared.items():
        assert comparison["over"] == gain["over"]
        wanted = rows[name]["em"] - rows[gain["over"]]["em"]
        assert comparison["difference"] == pytest.approx(wanted)


def test_rows_follow_from_their_records(made: Made) -> None:
    for folder in sorted((made.folder / "evaluation").iterdir()):
        records = read_jsonl(folder / "scores" / "records.jsonl", Record)
        row = read_json(folder / "scores" / "row.json")
        again = summarise(records, row["name"], row["k"], row["seconds"])
        again = with_intervals(again, records, samples=200, seed=0)
        assert json.loads(msgspec.json.encode(again)) == row == made.rows[row["name"]]
        assert {record.id.partition("-")[0] for record in records} == {"test"}


def test_labelling_says_what_it_cost(made: Made) -> None:
    assert len(made.report["labelling"]) == 2
    assert made.report["failures"] == [{}, {}]  # the rule and the reader cannot fail
    for number, cost in enumerate(made.report["labelling"], 1):
        counts = {"searches", "kept", "continuations", "exhaustive"}
        assert set(cost) == {*counts, "judge_calls", "subanswer_calls"}
        # The offline judge asks no language model.
        assert cost["judge_calls"] == cost["subanswer_calls"] == 0
        folder = made.folder / f"iteration-{number}" / "labels"
        utilities = read_lines(folder / "utilities.jsonl")
        searches = {(u["trajectory_id"], u["search"]) for u in utilities}
        assert cost["searches"] == len(searches)
        assert cost["exhaustive"] == 20 * cost["searches"] == len(utilities)
        measured = [u for u in utilities if u["why"] == "measured"]
        assert len(measured) == cost["continuations"] < cost["exhaustive"]
        assert 0 < cost["kept"] == len(read_lines(folder / "examples.jsonl"))


def test_examples_are_what_the_labels_say(made: Made) -> None:
    for number in (1, 2):
        folder = made.folder / f"iteration-{number}" / "labels"
        by_query: dict[str, dict[str, Any]] = {}
        for utility in read_lines(folder / "utilities.jsonl"):
            by_query.setdefault(utility["sent"], {})[utility["passage_id"]] = utility
        for example in read_lines(folder / "examples.jsonl"):
            candidates = by_query[example["query"]]
            assert " [SEP] " in example["query"]
            assert example["question_id"].startswith("train-")
            assert len(example["negatives"]) == len(set(example["negatives"])) == 5
            assert not set(example["negatives"]) & set(example["positives"])
            # Where the agent never succeeds afterwards, relevance decides alone.
            most = max(each["correctness"] or 0.0 for each in candidates.values())
            for id in example["positives"]:
                assert candidates[id]["relevance"] >= 60.0
                assert candidates[id]["correctness"] == most
            assert {*example["positives"], *example["negatives"]} <= set(candidates)


def test_each_iteration_uses_the_retriever_before_it(made: Made) -> None:
    def inputs(stage: str) -> dict[str, str]:
        found: dict[str, str] = read_json(made.folder / stage / "manifest.json")["inputs"]
        return found

    untouched = inputs("base/index")["encoder"]
    first = inputs("iteration-1/index")["encoder"]
    assert len({untouched, first, inputs("iteration-2/index")["encoder"]}) == 3
    assert inputs("iteration-1/rollouts")["retriever"] == untouched
    assert inputs("iteration-1/labels")["retriever"] == untouched
    assert inputs("iteration-2/rollouts")["retriever"] == first
    assert inputs("iteration-2/labels")["retriever"] == first
    for number in (1, 2):  # start = "base"
        assert inputs(f"iteration-{number}/retriever")["encoder"] == untouched


def test_training_is_watched_on_what_the_agent_asks(made: Made) -> None:
    """It is asked once, with the right passages at hand, as the retriever is sent it."""
    rows = read_lines(made.folder / "iteration-1" / "dev" / "trajectories.jsonl")
    dev = load_questions(made.folder / "data" / "dev.jsonl")
    assert [row["question"]["id"] for row in rows] == [each.id for each in dev]
    assert all(row["stop"] == "answered" for row in rows)
    assert not (made.folder / "iteration-2" / "dev").exists()
    marks = {
        read_json(made.folder / f"iteration-{number}" / "retriever" / "manifest.json")["inputs"][
            "dev"
        ]
        for number in (1, 2)
    }
    assert len(marks) == 1 and "" not in marks


def test_the_rest_of_the_report(made: Made) -> None:
    report = made.report
    assert report["seed"] == 0 and report["name"] == "small"
    assert (report["setup"]["train"], report["setup"]["test"]) == (24, 24)
    assert [curve["iteration"] for curve in report["curves"]] == [1, 2]
    for curve in report["curves"]:
        assert [point["step"] for point in curve["points"]] == list(
            range(1, len(curve["points"]) + 1)
        )
        folder = made.folder / f"iteration-{curve['iteration']}" / "retriever"
        right = [step["accuracy"] for step in read_lines(folder / "curve.jsonl")]
        assert [point["accuracy"] for point in curve["points"]] == right
        assert curve["dev"] == read_lines(folder / "dev.jsonl") != []
        assert curve["dev_k"] == 3
    assert report["rerankers"] == []
    times = Counter((entry["stage"], entry["iteration"]) for entry in report["stages"])
    assert set(times.values()) == {1}
    assert {("rollouts", 1), ("labels", 2), ("evaluation", None)} <= set(times)
    assert {case["split"] for case in report["cases"]} <= {"test", "training"}
    assert report["cases"]


def test_the_page_is_self_contained(made: Made) -> None:
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?!#)[a-z]+:", page)
    for row in made.report["rows"]:
        assert row["name"].partition(",")[0] in page


def test_what_is_printed(made: Made) -> None:
    for row in made.report["rows"]:
        assert row["name"] in made.printed
    assert f"{100 * made.report['gain']['em']:+.1f} points" in made.printed
    assert str(made.folder / "report.html") in made.printed
    for cost in made.report["labelling"]:
        assert f"{cost['searches']} searches labelled, {cost['kept']} kept" in made.printed


def test_running_it_again_does_nothing(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Encoder, "forward", refuse)
    monkeypatch.setattr(OracleReader, "complete", refuse)
    before, found = written(made.folder), results(made.folder)
    assert main(["loop", str(made.config)]) == 0
    after = written(made.folder)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed <= {"config.json", "lock", "report.json", "report.html"}
    assert differences(found, results(made.folder)) == []
    printed = capsys.readouterr()
    # All but the table's column of seconds, which is read from the manifests, is new each time.
    assert printed.out == made.printed
    assert "it/s" not in printed.err and "q/s" not in printed.err


def test_a_fork_with_another_k_reuses_what_does_not_depend_on_it(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(made.config, [("retriever.k", "1")])
    encoded: list[str] = []
    encode = Encoder.encode

    def counted(self: Encoder, texts: Any, kind: Any, *args: Any, **kwargs: Any) -> Any:
        encoded.append(kind)
        return encode(self, texts, kind, *args, **kwargs)

    monkeypatch.setattr(Encoder, "encode", counted)
    before = written(made.folder)
    with open_run(config, "other") as run:
        outcome = run_loop(run, config, until="iteration-1/labels")
    assert "passage" not in encoded
    assert "query" in encoded
    fork = made.folder.with_name("other")
    for name in ("base/index/index/passages.faiss", "data/corpus.jsonl"):
        assert (fork / name).read_bytes() == (made.folder / name).read_bytes()
        assert (fork / name).stat().st_ino == (made.folder / name).stat().st_ino
    searches = [s for t in read_lines(fork / "iteration-1" / "rollouts" / "trajectories.jsonl")
                for turn in t["turns"] for s in turn["searches"]]  # fmt: skip
    assert searches
    assert {len(search["hits"]) for search in searches} == {1}
    assert outcome.loop.config.retriever.k == 1
    assert written(made.folder) == before


def test_other_settings_are_refused(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["loop", str(made.config), "--retriever.k", "3"]) == 1
    said = capsys.readouterr().err
    assert "retriever.k was 2, now 3" in said


def test_a_stage_that_there_is_not_is_refused(made: Made) -> None:
    config = load_config(made.config)
    with (
        open_run(config) as run,
        pytest.raises(ConfigError, match="got stage 'iteration-7/labels', expected one of data"),
    ):
        run_loop(run, config, until="iteration-7/labels")


@pytest.mark.parametrize(
    ("key", "value"), [("kind", "bm25"), ("cache", "hits.sqlite"), ("rerank.model", "some-model")]
)
def test_what_the_loop_would_ignore_is_refused(
    made: Made, capsys: pytest.CaptureFixture[str], key: str, value: str
) -> None:
    assert main(["loop", str(made.config), f"--retriever.{key}", value]) == 2
    assert f"retriever.{key} is for search and ask alone" in capsys.readouterr().err


def test_the_stages_named_are_the_stages_done(made: Made) -> None:
    names = stage_names(load_config(made.config))
    assert names[0] == "data" and names[-1] == "evaluation"
    for name in names:
        assert list((made.folder / name).rglob("manifest.json")), name
    done = {path.parent.relative_to(made.folder) for path in made.folder.rglob("manifest.json")}
    assert {str(path) for path in done if path.parts[0] != "evaluation"} == set(names[:-1])


def test_settings_are_chosen_on_dev_questions(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every system is measured at every k, on dev questions alone; the report counts the time."""
    shutil.copytree(made.folder, tmp_path / "small")
    config = [str(made.config), "--runs", str(tmp_path)]
    assert main(["evaluate", *config, "--split", "dev"]) == 0
    printed = capsys.readouterr().out
    for name in ("BM25 query", "untouched query", "iteration 1", "iteration 2", "oracle"):
        assert f"{name}, k=1" in printed and f"{name}, k=2" in printed
    rows = [read_json(path) for path in (tmp_path / "small" / "dev").rglob("row.json")]
    assert {row["n"] for row in rows} == {len(load_questions(made.folder / "data" / "dev.jsonl"))}
    assert main(["loop", *config]) == 0
    again = read_json(tmp_path / "small" / "report.json")
    assert [row["em"] for row in again["rows"]] == [row["em"] for row in made.report["rows"]]
    stages = [stage["stage"] for stage in again["stages"] if stage["iteration"] is None]
    assert sorted(stages) == ["base index", "data", "evaluation", "measuring on dev questions"]


def test_nothing_to_learn_from_is_said(tmp_path: Path, made: Made) -> None:
    """No passage is relevant enough: the run stops and says what the searches lacked."""
    config: Config = load_config(made.config, [("utility.relevance", "100"), ("agent.turns", "1")])
    with open_run(config, "nothing") as run, pytest.raises(DataError) as raised:
        run_loop(run, config)
    assert "iteration-1: none of " in str(raised.value)
    assert "lower utility.relevance" in str(raised.value)


def test_two_judges_are_compared_on_the_searches_of_a_run(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    """It labels nothing, and a judge agrees with itself, in whatever order it is shown."""
    command = ["label", str(made.config), "--sample", "9", "--compare-judges"]
    assert main([*command, "offline", "offline", "--shuffle"]) == 0
    said = capsys.readouterr().out
    assert "9 searches, " in said and "(Kendall's tau-b) 1.000 ± 0.000" in said
    assert "  offline: " in said and "  offline (shuffled): " in said
    assert "(100%)" in said
    assert main([*command, "offline", "gold", "--iteration", "2"]) == 0
    assert "  gold: " in capsys.readouterr().out
    assert main([*command, "offline", "oracle"]) == 2
    assert "got the judge 'oracle', expected one of offline" in capsys.readouterr().err
    assert main(["label", str(made.config), "--sample", "3"]) == 2
    assert "--sample goes with --compare-judges A B" in capsys.readouterr().err
    assert main(["label", str(made.config), "--sample", "1", *command[4:], "gold", "gold"]) == 0
    said = capsys.readouterr().out
    assert "1 search, " in said and "over 1 search that" in said and "nan" not in said


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("oracle", "got the judge 'oracle'"),
        ("cross-encoder", "needs a model"),
        ("gold=x", "--compare-judges: got 'gold=x', but the judge gold is a rule"),
    ],
)
def test_judges_are_opened_before_the_rollouts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], judge: str, message: str
) -> None:
    config = write_config(tmp_path, runs=tmp_path / "runs")
    assert main(["label", str(config), "--compare-judges", "offline", judge]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_server_is_tried_before_the_rollouts_that_it_judges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, runs=tmp_path / "runs")
    judge = "http://127.0.0.1:9/v1=model"
    assert main(["label", str(config), "--compare-judges", "offline", judge]) == 1
    assert f"--compare-judges {judge}: " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_why_a_judge_failed_is_said(
    made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        async def relevance(self, request: JudgeRequest) -> list[float | None]:
            raise LLMError("status 500")

    opened = judging.named_judge
    monkeypatch.setattr(
        judging, "named_judge", lambda s, n, **k: Failing() if n == "gold" else opened(s, n, **k)
    )
    command = ["label", str(made.config), "--sample", "3", "--compare-judges", "offline", "gold"]
    assert main(command) == 0
    assert "  gold: 3 searches failed, the first: status 500" in capsys.readouterr().out
    assert main(["label", str(made.config), "--shuffle"]) == 2
    assert "--shuffle goes with --compare-judges" in capsys.readouterr().err
