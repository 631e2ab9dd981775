"""Training sets survive every format that can hold them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.cli import main
from agentic_r.converting import examples as converting
from agentic_r.data.corpus import Corpus
from agentic_r.errors import DataError
from agentic_r.exchange.training_sets import (
    FORMATS,
    WITH_TEXTS,
    by_row_number,
    check_ids,
    read_training_set,
    write_training_set,
)
from agentic_r.io import write_jsonl
from agentic_r.types import Example, Passage

CORPUS = Corpus([Passage(f"p-{n}", f"text {n}\nsecond line", f"Title {n}") for n in range(9)])
EXAMPLES = [
    Example("hotpotqa", "train_1", "Who is it? [SEP] ulm", ("p-0", "p-1"), ("p-3", "p-2")),
    Example("hotpotqa", "train_1", "Who is it? [SEP] bonn", ("p-4",), ("p-5", "p-8")),
]


def texts(examples: list[Example], passages: dict[str, Passage]) -> set[tuple[str, str, str]]:
    """Every (query, kind, passage) of a training set."""
    return {
        (each.query, kind, passages[id].contents)
        for each in examples
        for kind, ids in (("+", each.positives), ("-", each.negatives))
        for id in ids
    }


@pytest.mark.parametrize("form", FORMATS)
def test_there_and_back(tmp_path: Path, form: str) -> None:
    path = tmp_path / "hotpotqa.jsonl"
    write_training_set(path, form, EXAMPLES, CORPUS)
    found, passages = read_training_set(path, form, "hotpotqa")
    known = passages or {each.id: each for each in CORPUS}
    assert texts(found, known) == texts(EXAMPLES, {each.id: each for each in CORPUS})
    if form not in ("sentence-transformers", "beir"):
        assert [(each.positives, each.negatives) for each in found] == [
            (each.positives, each.negatives) for each in EXAMPLES
        ]
    assert bool(passages) == (form in WITH_TEXTS)


@pytest.mark.parametrize("form", FORMATS)
@given(ids=st.lists(st.text("a#01", max_size=4), min_size=1, max_size=6))
def test_searches_of_one_question_stay_together(
    tmp_path_factory: pytest.TempPathFactory, form: str, ids: list[str]
) -> None:
    path = tmp_path_factory.mktemp("ids") / "d.jsonl"
    rows = [Example("d", id, f"Q{id} [SEP] {n}", ("p-0",), ("p-1",)) for n, id in enumerate(ids)]
    write_training_set(path, form, rows, CORPUS)
    found = [each.question_id for each in read_training_set(path, form, "d").examples]
    if form == "sentence-transformers":  # no ids there: questions have numbers of rows
        found = [ids[int(number) - 1] for number in found]
    assert found == ids


def test_ids_that_others_end_so_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_training_set(path, "tevatron", EXAMPLES)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, ({**row, "query_id": n, "question_id": None} for n, row in enumerate(rows)))
    assert [x.question_id for x in read_training_set(path, "tevatron").examples] == ["0", "1"]
    for row in rows:
        del row["question_id"]
    write_jsonl(path, rows)
    found = read_training_set(path, "tevatron").examples
    assert [each.question_id for each in found] == ["train_1#0", "train_1#1"]


def test_numbers_are_ids(tmp_path: Path) -> None:
    path = tmp_path / "u.jsonl"
    write_training_set(path, "upstream", EXAMPLES[1:])
    row = json.loads(path.read_text())
    write_jsonl(path, [{**row, "query_id": 7, "passage_ids": [4, 5, 8]}])
    [found] = read_training_set(path, "upstream").examples
    assert (found.question_id, found.positives, found.negatives) == ("7", ("4",), ("5", "8"))


@pytest.mark.parametrize("form", sorted(WITH_TEXTS))
def test_texts_need_a_corpus(tmp_path: Path, form: str) -> None:
    with pytest.raises(DataError, match="got no corpus"):
        write_training_set(tmp_path / "x", form, EXAMPLES)


def test_upstream_rows_are_one_positive_each(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    write_training_set(path, "upstream", EXAMPLES)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["passage_ids"][0] for row in rows] == ["p-0", "p-1", "p-4"]
    assert rows[0]["question"] == "Who is it?" and rows[0]["query_text"] == "ulm"
    assert [score["em"] for score in rows[0]["scores"]] == [1.0, 0.0, 0.0]


def test_upstream_relevance_becomes_the_targets_and_goes_back(tmp_path: Path) -> None:
    targets = (0.95, 0.9, 0.9, 0.2)
    graded = [Example("d", "1", "Q [SEP] q", ("p-0", "p-1"), ("p-3", "p-2"), targets)]
    write_training_set(tmp_path / "data.jsonl", "upstream", graded)
    assert read_training_set(tmp_path / "data.jsonl", "upstream").examples == graded


def test_upstream_scores_are_one_for_each_passage(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    write_training_set(path, "upstream", EXAMPLES)
    [first, *rest] = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, [*rest, {**first, "scores": first["scores"][1:]}])
    with pytest.raises(DataError, match=r"row 3, question 'train_1': got 2 scores for 3 pass"):
        read_training_set(path, "upstream")


def test_an_upstream_row_without_passages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "u.jsonl"
    write_training_set(path, "upstream", EXAMPLES[:1])
    row = json.loads(path.read_text().splitlines()[0])
    write_jsonl(path, [{**row, "passage_ids": [], "scores": []}])
    with pytest.raises(DataError, match=r"got 0 scores for 0 passages.* and the positive first"):
        read_training_set(path, "upstream")


def test_row_numbers_are_mapped_when_asked_and_refused_otherwise() -> None:
    rows = [Example("d", "q", "s", ("0",), ("8", "3"))]
    assert by_row_number(rows, CORPUS)[0].negatives == ("p-8", "p-3")
    with pytest.raises(DataError, match="if they are row numbers, say --row-numbers"):
        check_ids(rows, CORPUS)
    for id in ("9", "\u00b2", "b0", "9" * 5000):
        with pytest.raises(DataError, match=r"question 'q': .* expected a row number of 0 to 8"):
            by_row_number([Example("d", "q", "s", (id,), ())], CORPUS)


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"query": "a", "positive": "b"}\n')
    with pytest.raises(DataError, match=r"x.jsonl:1: got the columns .* expected anchor"):
        read_training_set(path, "sentence-transformers")


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, source = tmp_path / "corpus.jsonl", tmp_path / "hotpotqa.jsonl"
    write_jsonl(corpus, ({"id": each.id, "contents": each.contents} for each in CORPUS))
    rows = [Example("hotpotqa", "1", "Q [SEP] q", ("2",), ("4",))]
    write_training_set(source, "upstream", rows)
    target, passages = tmp_path / "out.jsonl", tmp_path / "passages.jsonl"
    forms = ["--from", "upstream", "--to", "tevatron-legacy", "--corpus", str(corpus)]
    assert main(["convert", "examples", str(source), str(target), *forms]) == 1
    assert "say --row-numbers" in capsys.readouterr().err
    assert main(["convert", "examples", str(source), str(target), *forms, "--row-numbers"]) == 0
    said = capsys.readouterr().out
    assert f"{target}: 1 example\n" in said and "1 example written without graded" in said
    assert json.loads(target.read_text())["positive_passages"][0]["docid"] == "p-2"
    back = ["--from", "tevatron-legacy", "--to", "ours", "--corpus-out", str(passages)]
    assert main(["convert", "examples", str(target), str(tmp_path / "o.jsonl"), *back]) == 0
    assert len(Corpus.load(passages)) == 2


def test_the_program_names_the_formats_without_loading_them() -> None:
    assert converting.FORMATS == FORMATS
