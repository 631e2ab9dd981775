"""Upstream's label files give what upstream's own rule gives (contracts B6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.cli import main
from agentic_r.errors import DataError
from agentic_r.exchange.training_sets import read_training_set
from agentic_r.exchange.upstream_labels import (
    FIRST_NO_CORRECTNESS,
    FIRST_NO_RELEVANCE,
    NO_CANDIDATES,
    NO_CORRECTNESS,
    NO_RELEVANCE,
    NOTHING_SENT,
    OTHER_DOCUMENTS,
    REPEATED,
    UNLABELLED,
    convert,
    join,
)
from agentic_r.io import read_jsonl
from agentic_r.types import Example
from agentic_r.utility.select import TOO_FEW, UPSTREAM

Signals = list[tuple[float, int]]


def textbook(signals: Signals) -> tuple[list[str], list[str]] | None:
    """Positives and the pool of negatives as the contract tells it, in plain sorting."""
    docs = [(f"{n}", em, local / 100) for n, (em, local) in enumerate(signals)]
    docs.sort(key=lambda doc: (-doc[1], -doc[2]))
    top = docs[0]
    if top[2] < 0.6 or top[1] == 0:
        return None
    positives = [doc for doc in docs if doc[1:] == top[1:]]
    negatives = [doc for doc in docs if doc[1:] != top[1:]]
    if len(negatives) < 15:
        return None
    return [doc[0] for doc in positives], [doc[0] for doc in negatives]


def write(folder: Path, rounds: list[Signals], **changes: Any) -> list[str]:
    """Write the three files for one question with these rounds; returns their options."""
    candidates = [
        {
            "id": "train_7",
            "question": "Who?",
            "golden_answers": ["Ann"],
            "trajectory": [
                {
                    "round_index": n,
                    "reasoning_context": "",
                    "current_query": f"q{n}",
                    "candidate_passage_ids": list(range(len(signals))),
                }
                for n, signals in enumerate(rounds, 1)
            ],
            "output": {"prompt": ""},
        }
    ]
    local = [
        {
            "id": "train_7",
            "round_index": n,
            "docid_score": {str(d): score for d, (_, score) in enumerate(signals)},
        }
        for n, signals in enumerate(rounds, 1)
    ]
    global_ = [
        {
            "id": "train_7",
            "question": "Who?",
            "round_index": n,
            "history_queries": [f"q{m}" for m in range(1, n)],
            "current_query": f"q{n}",
            "docid_score": {
                str(d): {"metric_score": {"em": em, "f1": em}, "retrieved_times": 0}
                for d, (em, _) in enumerate(signals)
            },
        }
        for n, signals in enumerate(rounds, 1)
    ]
    change = changes.get("change")
    if change is not None:
        change(candidates, local, global_)
    (folder / "hotpotqa.json").write_text(json.dumps(candidates))
    for name, lines in (("local", local), ("global", global_)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [
        *("--candidates", str(folder / "hotpotqa.json")),
        *("--local", str(folder / "local.jsonl")),
        *("--global", str(folder / "global.jsonl")),
    ]


def files(folder: Path) -> tuple[Path, Path, Path]:
    return folder / "hotpotqa.json", folder / "local.jsonl", folder / "global.jsonl"


SIGNALS = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0, 20, 55, 59, 60, 61, 90, 100])),
    min_size=20,
    max_size=20,
)


@given(st.lists(SIGNALS, min_size=1, max_size=4), st.integers(0, 3))
def test_the_same_searches_positives_and_pools(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[Signals], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    write(folder, rounds)
    made = convert(join(*files(folder)), "hotpotqa", UPSTREAM, seed)
    expected = {n: textbook(signals) for n, signals in enumerate(rounds, 1)}
    kept = {n: found for n, found in expected.items() if found}
    assert {row.round_index for row in made.rows} == set(kept)
    for n, (positives, pool) in kept.items():
        rows = [row for row in made.rows if row.round_index == n]
        assert [row.passage_ids[0] for row in rows] == positives[:3]
        negatives = {row.passage_ids[1:] for row in rows}
        assert len(negatives) == 1
        drawn = negatives.pop()
        assert len(drawn) == 15 == len(set(drawn)) and set(drawn) <= set(pool)
        assert list(drawn) == [name for name in pool if name in drawn]
        for row in rows:
            signals = rounds[n - 1]
            said = [(score.em, score.local_utility) for score in row.scores]
            assert said == [
                (signals[int(name)][0], signals[int(name)][1] / 100) for name in row.passage_ids
            ]
            assert row.history_queries == tuple(f"q{m}" for m in range(1, n))
    assert sum(made.dropped.values()) == len(rounds) - len(kept)
    assert len(made.examples) == len(kept)


GOOD: Signals = [(1.0, 90), *((0.0, 10 + n) for n in range(19))]


def test_what_ends_upstreams_script_is_left_out_and_counted(tmp_path: Path) -> None:
    def change(candidates: Any, local: Any, global_: Any) -> None:
        del local[0]["docid_score"]["5"]
        del global_[0]["docid_score"]["6"]
        del global_[0]["docid_score"]["7"]["metric_score"]["em"]
        del local[1]["docid_score"]["0"]
        global_[2]["id"] = local[2]["id"] = "other"
        global_.append(global_[0])
        local.append({**local[0], "round_index": 9})

    write(tmp_path, [GOOD, GOOD, GOOD], change=change)
    made = convert(join(*files(tmp_path)), "hotpotqa", UPSTREAM)
    assert made.dropped == {
        REPEATED: 1,
        NO_CANDIDATES: 1,
        NO_RELEVANCE: 1,
        NO_CORRECTNESS: 2,
        FIRST_NO_RELEVANCE: 1,
        FIRST_NO_CORRECTNESS: 1,
        UNLABELLED: 1,
    }
    assert made.searches == 5  # three of the candidate file, one of `other`, round 9
    first = next(row for row in made.rows if row.query_id == "train_7")
    assert not {"5", "6", "7"} & set(first.passage_ids)
    assert {row.query_id for row in made.rows} == {"train_7", "other"}


def test_a_score_that_is_null_is_left_out_and_counted(tmp_path: Path) -> None:
    def change(candidates: Any, local: Any, global_: Any) -> None:
        local[0]["docid_score"]["5"] = None
        global_[0]["docid_score"]["6"] = None
        global_[0]["docid_score"]["7"]["metric_score"]["em"] = None
        local[1]["docid_score"]["0"] = None

    write(tmp_path, [GOOD, GOOD], change=change)
    made = convert(join(*files(tmp_path)), "hotpotqa", UPSTREAM)
    assert made.dropped == {NO_RELEVANCE: 1, NO_CORRECTNESS: 2, FIRST_NO_RELEVANCE: 1}
    assert not {"5", "6", "7"} & set(made.rows[0].passage_ids)


@pytest.mark.parametrize(("score", "em"), [(5000, 1), (-50, 1), (90, 7), (90, -1)])
def test_signals_outside_their_range_are_named(tmp_path: Path, score: float, em: float) -> None:
    def change(candidates: Any, local: Any, global_: Any) -> None:
        local[1]["docid_score"]["3"] = score
        global_[1]["docid_score"]["3"]["metric_score"]["em"] = em

    write(tmp_path, [GOOD, GOOD], change=change)
    name, wrong, most = ("local", score, 100) if em == 1 else ("global", em, 1)
    said = rf"{name}.jsonl: row 2, .*'train_7', document '3': got \w+ {wrong}, expected 0 to {most}"
    with pytest.raises(DataError, match=said):
        join(*files(tmp_path))


@pytest.mark.parametrize("name", ["dev_7", "7", 7, "2hop__12_34", "a b/c", "train_-1"])
def test_any_id_does(tmp_path: Path, name: str | int) -> None:
    def change(candidates: Any, local: Any, global_: Any) -> None:
        for each in (*candidates, *local, *global_):
            each["id"] = name

    write(tmp_path, [GOOD], change=change)
    made = convert(join(*files(tmp_path)), "hotpotqa", UPSTREAM)
    assert (made.dropped, {row.query_id for row in made.rows}) == ({}, {str(name)})


@pytest.mark.parametrize(("count", "kept"), [(15, False), (16, True), (19, True), (33, True)])
def test_any_number_of_candidates_does_and_too_few_are_counted(
    tmp_path: Path, count: int, kept: bool
) -> None:
    signals: Signals = [(1.0, 90), *((0.0, n) for n in range(count - 1))]
    write(tmp_path, [signals, GOOD])
    made = convert(join(*files(tmp_path)), "hotpotqa", UPSTREAM)
    assert made.dropped == ({} if kept else {TOO_FEW: 1})
    assert {row.round_index for row in made.rows} == ({1, 2} if kept else {2})


def test_files_of_different_runs_are_refused(tmp_path: Path) -> None:
    def change(candidates: Any, local: Any, global_: Any) -> None:
        global_[0]["current_query"] = "another"

    write(tmp_path, [GOOD], change=change)
    with pytest.raises(DataError, match=r"round 1: got the query 'another', but .* has 'q1'"):
        join(*files(tmp_path))


def test_an_empty_search_is_read_back_and_one_of_nothing_left_out(tmp_path: Path) -> None:
    def change(candidates: Any, local: Any, global_: Any) -> None:
        candidates[0]["trajectory"][0]["current_query"] = global_[0]["current_query"] = ""
        candidates[0]["trajectory"][1]["current_query"] = global_[1]["current_query"] = " "
        global_[1]["question"] = ""

    options = write(tmp_path, [GOOD, GOOD], change=change)
    assert convert(join(*files(tmp_path)), "d", UPSTREAM).dropped == {NOTHING_SENT: 1}
    for form in ("upstream", "ours"):
        out = tmp_path / f"{form}.jsonl"
        words = ["convert", "upstream-examples", *options, "--form", form, "--out", str(out)]
        assert main(words) == 0
        [example] = read_training_set(out, form).examples
        assert example.query == "Who? [SEP] "


def test_labels_of_other_documents_are_left_out_and_counted(tmp_path: Path) -> None:
    """Of some of the candidates, of more or of none that are named, they are used as they are."""

    def change(candidates: Any, local: Any, global_: Any) -> None:
        rounds = candidates[0]["trajectory"]
        for each, ids in zip(
            rounds, (range(100, 120), range(3), range(15, 40), range(0)), strict=True
        ):
            each["candidate_passage_ids"] = list(ids)

    write(tmp_path, [GOOD] * 4, change=change)
    made = convert(join(*files(tmp_path)), "d", UPSTREAM)
    assert made.dropped == {OTHER_DOCUMENTS: 1}
    assert made.searches == 4 and [row.round_index for row in made.rows] == [2, 3, 4]


def test_the_rules_numbers_are_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tied: Signals = [(1.0, 50)] * 3 + [(0.0, n) for n in range(4)]
    options = write(tmp_path, [tied])
    out = tmp_path / "out.jsonl"
    words = ["convert", "upstream-examples", *options, "--out", str(out), "--form", "ours"]
    assert main(words) == 1
    numbers = ["--relevance", "50", "--max-positives", "2", "--negatives", "3"]
    for rule in ("upstream", "graded"):
        assert main([*words, *numbers, "--rule", rule]) == 0
        [example] = read_jsonl(out, Example)
        assert (len(example.positives), len(example.negatives)) == (2, 3)
    for option, wrong in (("relevance", "101"), ("max-positives", "0"), ("negatives", "-1")):
        capsys.readouterr()
        assert main([*words, f"--{option}", wrong]) == 2
        assert f"--{option}: got {wrong}, expected" in capsys.readouterr().err


def test_a_broken_candidate_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, [GOOD])
    (tmp_path / "hotpotqa.json").write_text('[{"id": "train_7"}]')
    with pytest.raises(DataError, match=r"hotpotqa.json: .*expected a JSON list of questions"):
        join(*files(tmp_path))


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = write(tmp_path, [GOOD, [(0.0, 90)] * 20])
    out = tmp_path / "retriever_training_data.jsonl"
    assert main(["convert", "upstream-examples", *options, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{out}: 1 row from 1 of 2 searches" in said
    assert "1 no correct candidate" in said
    row = json.loads(out.read_text())
    assert row["dataset"] == "hotpotqa" and row["query_text"] == "q1" and len(row["scores"]) == 16
    assert row["scores"][0] == {"em": 1.0, "local_utility": 0.9}
    ours = tmp_path / "examples.jsonl"
    form = ["--form", "ours", "--out", str(ours)]
    assert main(["convert", "upstream-examples", *options, *form]) == 0
    assert read_jsonl(ours, Example)[0].query == "Who? [SEP] q1"


def test_no_row_leaves_the_target_and_says_what_was_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = write(tmp_path, [GOOD, GOOD])
    (tmp_path / "local.jsonl").write_text("")
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    assert main(["convert", "upstream-examples", *options, "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert f"2 searches gave no row: 2 {FIRST_NO_RELEVANCE}; expected --candidates" in said
    assert out.read_text() == "mine"
    same = ["--out", str(tmp_path / "local.jsonl")]
    assert main(["convert", "upstream-examples", *options, *same]) == 2
    assert "local.jsonl: got a target that is read" in capsys.readouterr().err


def test_an_empty_candidate_file_leaves_nothing_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = write(tmp_path, [GOOD, GOOD])
    (tmp_path / "hotpotqa.json").write_text("[]")
    out = ["--out", str(tmp_path / "out.jsonl")]
    assert main(["convert", "upstream-examples", *options, *out]) == 0
    said = capsys.readouterr().out
    assert "2 rows from 2 of 2 searches" in said and f"2 {NO_CANDIDATES}" in said
    assert "used all the same" in said
