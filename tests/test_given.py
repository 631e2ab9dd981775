"""A run that starts from upstream's files: what is taken, what is asked for, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentic_r.agent.agent import SearchAgent
from agentic_r.agent.dialects import DIALECTS
from agentic_r.cli import main
from agentic_r.data.corpus import Corpus
from agentic_r.data.questions import Questions
from agentic_r.errors import ConfigError, DataError
from agentic_r.given import (
    FURTHER,
    REPEATED_CANDIDATES,
    REPEATED_SUBANSWERS,
    STRAY_CANDIDATES,
    STRAY_SUBANSWERS,
    UNKNOWN,
    Given,
    read_given,
)
from agentic_r.io import read_jsonl, write_jsonl
from agentic_r.retriever.bm25 import BM25Retriever
from agentic_r.retriever.dense import DenseRetriever
from agentic_r.settings import GivenConfig
from agentic_r.testing import ScriptedLLM
from agentic_r.types import Example, Passage, Question, Search, Trajectory, Turn

from .runs import read_json, read_lines, write_config

CORPUS = Corpus([Passage(f"p{n}", f"text {n}") for n in range(5)])
QUESTION = Question("train_3", "Where was the maker of Ulm born?", ("Bonn",), "hotpotqa")
ASKED = ("maker of Ulm", "where was Ann born")
TRAJECTORY = Trajectory(
    "t0",
    QUESTION,
    (
        *(Turn(f"<search>{q}</search>", "search", (Search(q, q),), observation="") for q in ASKED),
        Turn("<answer>Bonn</answer>", "answer", answer="Bonn"),
    ),
    "answered",
)


class Files(NamedTuple):
    """Files of one question; `read` takes them with changes to the settings."""

    trajectories: Path
    candidates: Path
    subanswers: Path

    def settings(self, **changes: Any) -> GivenConfig:
        found = {
            "trajectories": (str(self.trajectories),),
            "candidates": (str(self.candidates),),
            "sub_answers": (str(self.subanswers),),
        }
        return GivenConfig(**{**found, **changes})

    def read(self, **changes: Any) -> Given:
        return read_given(self.settings(**changes), CORPUS, Questions([QUESTION]))


def rounds(*ids: Any) -> list[dict[str, Any]]:
    return [
        {"round_index": n, "current_query": query, "candidate_passage_ids": list(ids)}
        for n, query in enumerate(ASKED, start=1)
    ]


def item(question_id: str = "train_3", *ids: Any) -> dict[str, Any]:
    return {"id": question_id, "question": QUESTION.text, "trajectory": rounds(*ids)}


def said(*texts: str, question_id: str = "train_3") -> dict[str, Any]:
    pairs = [{"query": q, "subanswer": text} for q, text in zip(ASKED, texts, strict=False)]
    named = {"id": question_id, "question": QUESTION.text, "golden_answers": ["Bonn"]}
    return {**named, "query_subanswer_list": pairs}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    found = Files(tmp_path / "t.jsonl", tmp_path / "hotpotqa.json", tmp_path / "hotpotqa.jsonl")
    write_jsonl(found.trajectories, [TRAJECTORY])
    found.candidates.write_text(json.dumps([item("train_3", "p4", "p0")]))
    write_jsonl(found.subanswers, [said("Ann", "Not Sure")])
    return found


def test_all_three_are_read_and_joined(files: Files) -> None:
    found = files.read()
    assert found.trajectories == [TRAJECTORY] and not found.dropped
    key = ("hotpotqa", "train_3", "t0")
    assert {at: [p.id for p in each] for at, each in found.candidates.items()} == {
        (key, 0): ["p4", "p0"],
        (key, 1): ["p4", "p0"],
    }
    assert found.subanswers == {key: ["Ann", None]}
    assert set(found.digests) == {"given candidates", "given sub-answers"}
    assert files.read(candidates=()).digests.keys() == {"given sub-answers"}


def test_row_numbers_count_only_where_it_is_said(files: Files) -> None:
    files.candidates.write_text(json.dumps([item("train_3", 4, 0)]))
    [first, _] = files.read(row_numbers=True).candidates.values()
    assert [each.id for each in first] == ["p4", "p0"]
    with pytest.raises(DataError, match=r"'4' is not in the corpus.*given.row_numbers = true"):
        files.read()
    files.candidates.write_text(json.dumps([item("train_3", 5)]))
    with pytest.raises(
        DataError, match=r"hotpotqa.json: question 'train_3': got the passage '5', .* 0 to 4"
    ):
        files.read(row_numbers=True)


def test_our_own_question_takes_the_place_of_theirs(files: Files) -> None:
    """It has the data set and the annotation of this run."""
    own = Question("train_3", QUESTION.text, ("Bonn",), "mine", {"hops": []})
    found = read_given(files.settings(), CORPUS, Questions([own]))
    assert [each.question for each in found.trajectories] == [own]
    assert list(found.subanswers) == [("mine", "train_3", "t0")] and len(found.candidates) == 2


def test_what_fits_no_question_is_counted(files: Files) -> None:
    stranger = Trajectory("t1", Question("train_9", "Who?", ("x",)), ())
    write_jsonl(files.trajectories, [TRAJECTORY, stranger, TRAJECTORY])
    files.candidates.write_text(json.dumps([item("train_3", "p1"), item("train_9", "p1")]))
    write_jsonl(files.subanswers, [said("Ann", "Bonn"), said("Ann", question_id="train_9")])
    found = files.read()
    assert len(found.trajectories) == 1 and len(found.candidates) == 2
    assert found.dropped == {UNKNOWN: 1, FURTHER: 1, STRAY_CANDIDATES: 2, STRAY_SUBANSWERS: 1}
    lines = list(found.said(7))
    assert lines[0] == (
        "Given: 1 trajectories of 7 questions, candidates of 2 searches, sub-answers of 1 "
        "trajectories"
    )
    assert f"Left out: 2 {STRAY_CANDIDATES}" in lines


def test_an_id_that_two_data_sets_share_goes_by_the_files_name(files: Files) -> None:
    other = Question("train_3", "Another?", ("x",), "nq")
    found = read_given(files.settings(), CORPUS, Questions([other, QUESTION]))
    assert [each.question for each in found.trajectories] == [QUESTION]
    assert len(found.candidates) == 2 and len(found.subanswers) == 1


def _other_query(files: Files) -> None:
    changed = item("train_3", "p1")
    changed["trajectory"][1]["current_query"] = "something else"
    files.candidates.write_text(json.dumps([changed]))


def _no_such_round(files: Files) -> None:
    changed = item("train_3", "p1")
    changed["trajectory"][1]["round_index"] = 3
    files.candidates.write_text(json.dumps([changed]))


def _round_zero(files: Files) -> None:
    changed = item("train_3", "p1")
    changed["trajectory"][0]["round_index"] = 0
    files.candidates.write_text(json.dumps([changed]))


def _other_question(files: Files) -> None:
    own = Question("train_3", "Who?", ("Bonn",), "hotpotqa")
    write_jsonl(files.trajectories, [Trajectory("t0", own, TRAJECTORY.turns, "answered")])


def _two_candidates(files: Files) -> None:
    files.candidates.write_text(json.dumps([item("train_3", "p1"), item("train_3", "p2")]))


def _nothing_known(files: Files) -> None:
    stranger = Trajectory("t1", Question("train_9", "Who?", ("x",)), ())
    write_jsonl(files.trajectories, [stranger])


def _other_sub_answer_query(files: Files) -> None:
    changed = said("Ann", "Bonn")
    changed["query_subanswer_list"][0]["query"] = "something else"
    write_jsonl(files.subanswers, [changed])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_other_query, r"search 2: got the query 'something else', but the trajectory has 'where"),
        (_no_such_round, r"search 3: .* has no such search; one of the files was made anew"),
        (_round_zero, r"search 0: .* has no such search"),
        (_other_question, r"got 'Who\?', but the questions of this run have 'Where was"),
        (_other_sub_answer_query, r"hotpotqa.jsonl: question 'train_3', search 1: got the query"),
        (
            lambda files: write_jsonl(files.subanswers, [said("Ann")]),
            r"got 1 sub-answers, but its trajectory has 2 searches",
        ),
        (_two_candidates, r"hotpotqa.json: question 'train_3': got the candidates of search 1 twi"),
        (
            lambda files: write_jsonl(files.subanswers, [said("Ann", "x"), said("Ann", "y")]),
            r"hotpotqa.jsonl: question 'train_3': got the sub-answers twice, and they differ",
        ),
        (_nothing_known, r"t.jsonl: got nothing that fits .* trajectories of the 1 training"),
        (lambda files: files.candidates.write_text("[]"), r"hotpotqa.json: got nothing that fits"),
        (
            lambda files: write_jsonl(files.subanswers, [said("Ann", question_id="x")]),
            r"hotpotqa.jsonl: got nothing that fits",
        ),
        (lambda files: files.candidates.write_text("{}"), r"expected a JSON list of questions"),
        (lambda files: files.candidates.unlink(), r"hotpotqa.json"),
    ],
)
def test_what_does_not_go_together_is_refused(
    files: Files, spoil: Callable[[Files], Any], said: str
) -> None:
    spoil(files)
    with pytest.raises(DataError, match=said):
        files.read()


def test_equal_repeats_are_counted(files: Files) -> None:
    files.candidates.write_text(json.dumps([item("train_3", "p1"), item("train_3", "p1")]))
    write_jsonl(files.subanswers, [said("Ann", "Bonn"), said("Ann", "Bonn")])
    found = files.read()
    assert found.dropped == {REPEATED_CANDIDATES: 2, REPEATED_SUBANSWERS: 1}
    assert len(found.candidates) == 2 and len(found.subanswers) == 1


@pytest.mark.parametrize("name", ["search-r1", "search-r1-rl", "flare", "react", "rearag"])
def test_trajectories_of_another_dialect_are_refused(files: Files, name: str) -> None:
    def read() -> Given:
        speaks = DIALECTS[name]()
        return read_given(files.settings(), CORPUS, Questions([QUESTION]), speaks)

    if name in ("react", "rearag"):
        with pytest.raises(ConfigError, match=rf"agent.dialect: got '{name}', but .*t.jsonl, que"):
            read()
    else:
        assert read().trajectories == [TRAJECTORY]  # flare goes by probabilities, which text lacks


def test_what_was_sent_is_put_into_the_runs_form(files: Files) -> None:
    """Trajectories of the bare query, as upstream's first iteration has them (contracts B3)."""
    agent = SearchAgent(
        ScriptedLLM(lambda prompt: ""), BM25Retriever(CORPUS), "search-r1", form="question+query"
    )
    found, changed = files.read().in_form(agent)
    [trajectory] = found.trajectories
    assert changed == 2
    assert [each.sent for each in trajectory.searches] == [
        f"{QUESTION.text} [SEP] {query}" for query in ASKED
    ]
    assert [each.query for each in trajectory.searches] == list(ASKED)
    again, changed = found.in_form(agent)
    assert not changed and again == found
    assert files.read().in_form(agent.using(form="query"))[1] == 0


def test_candidates_need_trajectories(files: Files) -> None:
    with pytest.raises(ConfigError, match=r"given.trajectories: got nothing"):
        files.read(trajectories=())
    assert files.read(trajectories=(), candidates=(), sub_answers=()) == Given()


def test_a_run_goes_on_from_upstreams_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same labels as the run that wrote them, though nobody rolls out or asks for hops."""
    config = write_config(tmp_path, runs=tmp_path / "runs")
    assert main(["label", str(config)]) == 0
    source = tmp_path / "runs" / "small" / "iteration-1"
    out = tmp_path / "training_data"
    assert main(["convert", "upstream-files", str(source), str(out)]) == 0
    capsys.readouterr()
    [name] = [path.stem for path in (out / "trajectory").iterdir()]
    given = [
        *("--given.trajectories", f'["{out}/trajectory/{name}.json"]'),
        *("--given.candidates", f'["{out}/passage_candidates/{name}.json"]'),
        *("--given.sub_answers", f'["{out}/trajectory_subanswer/{name}.jsonl"]'),
    ]
    searched: list[str] = []
    search = DenseRetriever.search

    def spy(self: DenseRetriever, queries: Any, k: int) -> Any:
        searched.extend(queries if k == 20 else [])
        return search(self, queries, k)

    monkeypatch.setattr(DenseRetriever, "search", spy)
    again = ["label", str(config), "--name", "again", *given]
    assert main(again) == 0
    told = capsys.readouterr().out
    folder = tmp_path / "runs" / "again" / "iteration-1"
    assert "Given: 24 trajectories of 24 questions" in told
    manifest = read_json(folder / "rollouts" / "manifest.json")
    assert manifest["counts"]["given"] == 24
    own = {row["sent"] for row in read_lines(source / "labels" / "utilities.jsonl")}
    asked = {s.sent for t in read_jsonl(source / "rollouts" / "trajectories.jsonl", Trajectory)
             for s in t.searches}  # fmt: skip
    assert asked and set(searched) == own - asked
    first, second = (
        [
            (row["sent"], row["passage_id"], row["relevance"], row["correctness"], row["why"])
            for row in read_lines(at / "labels" / "utilities.jsonl")
        ]
        for at in (source, folder)
    )
    assert first and first == second  # negatives are drawn by the trajectories' names, which differ
    first, second = (
        [
            (each.question_id, each.query, each.positives)
            for each in read_jsonl(at / "labels" / "examples.jsonl", Example)
        ]
        for at in (source, folder)
    )
    assert first and first == second
    before = (folder / "labels" / "examples.jsonl").read_bytes()
    assert main(again) == 0 and (folder / "labels" / "examples.jsonl").read_bytes() == before


def test_the_agent_answers_what_is_not_given(tmp_path: Path) -> None:
    config = write_config(tmp_path, runs=tmp_path / "runs")
    assert main(["label", str(config)]) == 0
    source = tmp_path / "runs" / "small" / "iteration-1" / "rollouts" / "trajectories.jsonl"
    whole = read_jsonl(source, Trajectory)
    some = tmp_path / "some.jsonl"
    write_jsonl(some, whole[5:9])
    given = ("--given.trajectories", f'["{some}"]')
    assert main(["label", str(config), "--name", "again", *given]) == 0
    found = tmp_path / "runs" / "again" / "iteration-1" / "rollouts"
    rows = read_jsonl(found / "trajectories.jsonl", Trajectory)
    assert {row.question.key for row in rows} == {row.question.key for row in whole}
    assert read_json(found / "manifest.json")["counts"] | {"searches": 0} == {
        "questions": 24,
        "searches": 0,
        "given": 4,
    }


def test_a_run_says_that_what_was_given_was_sent_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, runs=tmp_path / "runs")
    assert main(["label", str(config), "--retriever.input", "query"]) == 0
    source = tmp_path / "runs" / "small" / "iteration-1" / "rollouts" / "trajectories.jsonl"
    given = ("--given.trajectories", f'["{source}"]', "--retriever.input", "question+query")
    capsys.readouterr()
    assert main(["label", str(config), "--name", "again", *given]) == 0
    assert "given searches had sent the retriever something else" in capsys.readouterr().out
    labels = tmp_path / "runs" / "again" / "iteration-1" / "labels"
    examples = read_jsonl(labels / "examples.jsonl", Example)
    assert examples and all(" [SEP] " in each.query for each in examples)
