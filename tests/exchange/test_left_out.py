"""What a training set holds is converted, counted or refused, never lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentic_r.cli import main
from agentic_r.data.corpus import Corpus
from agentic_r.errors import DataError
from agentic_r.exchange.counting import counted
from agentic_r.exchange.rows import (
    NO_NEGATIVES,
    NO_POSITIVES,
    ONLY_ZERO,
    ROUNDS,
    SAME_TEXT,
    STRAY,
    SURPLUS,
    TARGETS,
    UNJUDGED,
)
from agentic_r.exchange.training_sets import read_training_set, write_training_set
from agentic_r.io import write_jsonl
from agentic_r.types import Example, Passage

CORPUS = Corpus([Passage(f"p{n}", f"text {n % 9}") for n in range(10)])
FULL = Example("d", "q0", "who", ("p0",), ("p1", "p2", "p3"))
TARGETED = msgspec.structs.replace(FULL, targets=(1.0, 0.5, 0.5, 0.0))


def left_of(path: Path, form: str, examples: list[Example]) -> tuple[int, dict[str, int]]:
    left: Counter[str] = Counter()
    written = write_training_set(path, form, examples, CORPUS, left)
    return written, {why: count for why, count in left.items() if count}


def convert(*words: Any) -> int:
    return main(["convert", "examples", *map(str, words)])


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "beir"
    write_training_set(folder, "beir", [FULL], CORPUS)
    return folder


def add(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_one_without_negatives_takes_none_from_the_others(tmp_path: Path) -> None:
    path = tmp_path / "st.jsonl"
    none = Example("d", "q1", "where", ("p4",), ())
    two = Example("d", "q2", "when", ("p0", "p5"), ("p9", "p2", "p3"))  # p9 is p0's text
    assert left_of(path, "sentence-transformers", [FULL, none, two]) == (
        2,
        {NO_NEGATIVES: 1, SAME_TEXT: 1, SURPLUS: 1},
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [sorted(row) for row in rows] == [["anchor", "negative_1", "negative_2", "positive"]] * 3
    assert left_of(path, "sentence-transformers", [none]) == (1, {})


def test_what_a_format_cannot_hold_is_counted(tmp_path: Path) -> None:
    bare = Example("d", "q1", "where", (), ("p1",))
    for form in ("tevatron", "tevatron-legacy", "sentence-transformers", "beir"):
        assert left_of(tmp_path / form, form, [TARGETED, bare]) == (
            1,
            {NO_POSITIVES: 1, TARGETS: 1},
        )
    assert left_of(tmp_path / "ours", "ours", [TARGETED, bare]) == (1, {NO_POSITIVES: 1})
    assert left_of(tmp_path / "upstream", "upstream", [TARGETED, bare]) == (
        1,
        {NO_POSITIVES: 1, ROUNDS: 1},
    )


def test_rounds_that_upstreams_rows_lose_are_on_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "u.jsonl", tmp_path / "again.jsonl"
    write_training_set(source, "upstream", [FULL])
    row = json.loads(source.read_text())
    write_jsonl(source, [{**row, "round_index": n, "history_queries": ["a"]} for n in range(1, 4)])
    assert convert(source, target, "--from", "upstream", "--to", "upstream") == 0
    assert "  3 examples written as round 1, without earlier queries" in capsys.readouterr().out


def test_an_empty_query_after_a_question_goes_there_and_back(tmp_path: Path) -> None:
    empty = msgspec.structs.replace(FULL, query="Who? [SEP] ")
    for form in ("ours", "upstream", "tevatron", "tevatron-legacy", "sentence-transformers"):
        path = tmp_path / form
        write_training_set(path, form, [empty], CORPUS)
        [found] = read_training_set(path, form).examples
        assert found.query == "Who? [SEP] "


def test_no_usable_example_leaves_the_target_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("mine")
    with pytest.raises(DataError, match="got 1 example, none with a positive"):
        write_training_set(path, "upstream", [msgspec.structs.replace(FULL, positives=())])
    assert path.read_text() == "mine"


def test_beir_counts_what_gives_no_example(beir: Path, tmp_path: Path) -> None:
    for id in ("a", 5):
        add(beir / "queries.jsonl", json.dumps({"_id": id, "text": "x"}) + "\n")
    add(beir / "qrels" / "train.tsv", "5\tp1\t0\nb\tp1\t1\n")
    left: Counter[str] = Counter()
    assert read_training_set(beir, "beir", "d", left).examples == [FULL]
    assert left == {UNJUDGED: 1, ONLY_ZERO: 1, STRAY: 1}
    target = tmp_path / "o.jsonl"
    target.write_text("mine")
    (beir / "qrels" / "train.tsv").write_text("5\tp1\t0\n")
    with pytest.raises(DataError, match=r"no usable example .*1 query with judgements of grade 0"):
        read_training_set(beir, "beir")
    assert convert(beir, target, "--from", "beir", "--to", "ours") == 1
    assert target.read_text() == "mine"


def test_beir_refuses_ids_that_repeat_or_divide_columns(beir: Path, tmp_path: Path) -> None:
    add(beir / "queries.jsonl", '{"_id": "q0#0", "text": "x"}\n')
    with pytest.raises(DataError, match=r"queries.jsonl:2: got id 'q0#0', which line 1 has too"):
        read_training_set(beir, "beir")
    with pytest.raises(DataError, match="got the id 'a b#0', expected one without white space"):
        write_training_set(beir, "beir", [Example("d", "a b", "q", ("p0",), ())], CORPUS)
    with pytest.raises(DataError, match=r"got no such folder, expected a folder .* --form"):
        read_training_set(tmp_path / "none", "beir")


def test_a_docid_has_one_text(tmp_path: Path) -> None:
    path = tmp_path / "legacy.jsonl"
    write_training_set(path, "tevatron-legacy", [FULL, FULL], CORPUS)
    path.write_text(path.read_text()[::-1].replace("3 txet", "other"[::-1], 1)[::-1])
    with pytest.raises(DataError, match=r"legacy.jsonl:2: got docid 'p3' with another text"):
        read_training_set(path, "tevatron-legacy")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query": " "}, "got an empty query"),
        ({"query": " [SEP] "}, "got an empty query"),
        ({"negatives": ("p1", "p0")}, "got passage 'p0' as a positive and as a negative"),
        ({"targets": (1.0, 0.5)}, "got 2 targets for 4 passages"),
        ({"targets": (87.0, 0.5, 0.5, 0.5)}, "got the target 87, expected 0 to 1"),
        ({"targets": (1.0, -0.5, 0.5, 0.5)}, "got the target -0.5, expected 0 to 1"),
    ],
)
def test_examples_that_contradict_themselves_are_named(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [FULL, msgspec.structs.replace(FULL, **change)])
    with pytest.raises(DataError, match=rf"x.jsonl:2: question 'q0': {said}"):
        read_training_set(path, "ours")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query_text": ""}, "got an empty query_text and no question before it"),
        ({"scores": [{"em": 1, "local_utility": 95}] * 4}, "local_utility of 95, .* divided by"),
        ({"scores": [{"em": 7, "local_utility": 1}] * 4}, "an em of 7, expected 0 to 1"),
        ({"passage_ids": ["p0", "p0", "p1", "p2"]}, "'p0' as a positive and as a negative"),
    ],
)
def test_upstream_rows_that_contradict_themselves_are_named(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "u.jsonl"
    write_training_set(path, "upstream", [FULL])
    row = json.loads(path.read_text())
    write_jsonl(path, [{**row, "query_id": "q"}, {**row, **change}])
    with pytest.raises(DataError, match=rf"u.jsonl: row 2[,:] question 'q0'.*{said}"):
        read_training_set(path, "upstream")


def test_another_format_is_named_by_its_option(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_training_set(path, "tevatron", [FULL])
    for form in ("ours", "upstream", "tevatron-legacy", "sentence-transformers"):
        with pytest.raises(DataError, match=rf"x.jsonl:1: .* read as {form}: .* --from .* --form"):
            read_training_set(path, form)
    with pytest.raises(DataError, match=r"got a folder, expected a file; .* --form"):
        read_training_set(tmp_path, "ours")


def test_targets_that_cannot_be_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, corpus = tmp_path / "x.jsonl", tmp_path / "corpus.jsonl"
    write_training_set(source, "ours", [FULL])
    write_jsonl(corpus, ({"id": each.id, "contents": each.contents} for each in CORPUS))
    to_beir = ["--from", "ours", "--to", "beir", "--corpus", corpus]
    file = tmp_path / "file"
    file.write_text("mine")
    assert convert(source, file, *to_beir) == 1
    assert "a file is where its folder should be" in capsys.readouterr().err
    assert convert(source, tmp_path, "--from", "ours", "--to", "upstream") == 1
    assert "a folder is there, expected a file; name another" in capsys.readouterr().err
    for target in (source, tmp_path / "." / "x.jsonl", corpus, tmp_path):
        assert convert(source, target, *to_beir) == 2
        assert "got a target that is read or written already" in capsys.readouterr().err
    assert main(["convert", "chunk", str(corpus), str(corpus)]) == 2
    assert file.read_text() == "mine" and read_training_set(source, "ours").examples == [FULL]


def test_formats_with_texts_take_no_corpus_and_say_where_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "legacy.jsonl", tmp_path / "o.jsonl"
    write_training_set(source, "tevatron-legacy", [FULL], CORPUS)
    forms = ["--from", "tevatron-legacy", "--to", "ours"]
    assert convert(source, target, *forms) == 0
    assert "give --corpus-out FILE" in capsys.readouterr().out
    assert convert(source, target, *forms, "--corpus-out", tmp_path / "c.jsonl") == 0
    said = capsys.readouterr().out
    assert "c.jsonl: 4 passages" in said and "give --corpus-out" not in said
    for option in (["--corpus", tmp_path / "c.jsonl"], ["--row-numbers"]):
        assert convert(source, target, *forms, *option) == 2
        assert "tevatron-legacy holds its passages itself" in capsys.readouterr().err
    assert convert(target, source, "--from", "ours", "--to", "beir") == 1
    assert "give --corpus FILE" in capsys.readouterr().err


def test_counts_in_words() -> None:
    assert counted(1, "label lines of a search") == "1 label line of a search"
    assert counted(1, "queries without") == "1 query without"
    assert counted(1, "too few negatives") == "1 too few negatives"
    assert counted(1, "targets") == "1 target" and counted(0, "scores") == "0 scores"
    assert counted(1200, "examples") == "1,200 examples"
