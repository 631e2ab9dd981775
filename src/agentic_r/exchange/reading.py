"""Training sets read, a function a format; what is left out is counted in `left`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import msgspec

from agentic_r.data.corpus import Corpus
from agentic_r.data.datasets import load_qrels
from agentic_r.errors import DataError
from agentic_r.exchange.counting import counted
from agentic_r.exchange.ids import question_of
from agentic_r.exchange.rows import (
    ONLY_ZERO,
    STRAY,
    UNJUDGED,
    BeirQuery,
    LegacyRow,
    TevatronRow,
    TrainingSet,
    checked,
    says_nothing,
)
from agentic_r.exchange.upstream_labels import TrainingRow
from agentic_r.io import decode_line, json_lines
from agentic_r.protocols import SEPARATOR
from agentic_r.types import Example, Passage

T = TypeVar("T")


def _rows(path: Path, type: type[T], form: str) -> Iterator[tuple[int, T]]:
    """Yield (line number, row); where the first is of another shape, so may be the file."""
    if path.is_dir():
        raise DataError(f"{path}: got a folder, expected a file; {_other(form)}")
    decoder = msgspec.json.Decoder(type)
    first = True
    for number, line in json_lines(path):
        try:
            row = decode_line(path, number, line, decoder)
        except DataError as error:
            raise (DataError(f"{error}; {_other(form)}") if first else error) from None
        first = False
        yield number, row
    if first:
        raise DataError(f"{path}: got an empty file, expected one JSON object a line")


def _other(form: str) -> str:
    return f"it was read as {form}: another format is named by --from (convert) or --form (train)"


def _read_ours(path: Path, dataset: str, left: Counter[str]) -> TrainingSet:
    rows = _rows(path, Example, "ours")
    return TrainingSet([checked(row, f"{path}:{number}") for number, row in rows], {})


def _read_upstream(path: Path, dataset: str, left: Counter[str]) -> TrainingSet:
    """Rows that follow each other and differ in their positive alone are one example.

    Relevance alone becomes the targets, for that is all upstream's trainer takes of the scores
    (contracts B7); exact match has ordered the passages already. Where a query is empty, it sends
    the question all the same.
    """
    rows = []
    for number, row in enumerate((row for _, row in _rows(path, TrainingRow, "upstream")), start=1):
        _check_scores(row, f"{path}: row {number}, question {row.query_id!r}")
        rows.append((number, row))
    same = groupby(
        rows,
        lambda pair: (
            pair[1].dataset,
            pair[1].query_id,
            pair[1].round_index,
            pair[1].query_text,
            pair[1].passage_ids[1:],
        ),
    )
    examples = []
    for (name, question_id, _, query, negatives), group in same:
        numbers, members = zip(*group, strict=True)
        sent = f"{members[0].question}{SEPARATOR}{query}" if members[0].question else query
        if says_nothing(sent):
            raise DataError(
                f"{path}: row {numbers[0]}, question {question_id!r}: got an empty query_text and "
                "no question before it, expected one of them; take the row out"
            )
        positives = tuple(row.passage_ids[0] for row in members)
        scores = (*(row.scores[0] for row in members), *members[0].scores[1:])
        targets = tuple(score.local_utility for score in scores)
        example = Example(name, question_id, sent, positives, negatives, targets)
        examples.append(checked(example, f"{path}: row {numbers[0]}"))
    return TrainingSet(examples, {})


def _check_scores(row: TrainingRow, said: str) -> None:
    if not row.passage_ids or len(row.scores) != len(row.passage_ids):
        held = (
            f"{counted(len(row.scores), 'scores')} for {counted(len(row.passage_ids), 'passages')}"
        )
        raise DataError(f"{said}: got {held}, expected one each, and the positive first")
    for score in row.scores:
        if not 0 <= score.local_utility <= 1:
            raise DataError(
                f"{said}: got a local_utility of {score.local_utility:g}, expected 0 to 1, which "
                "is relevance (0-100) divided by 100"
            )
        if not 0 <= score.em <= 1:
            raise DataError(f"{said}: got an em of {score.em:g}, expected 0 to 1")


def _read_tevatron(path: Path, dataset: str, left: Counter[str]) -> TrainingSet:
    examples = []
    for number, row in _rows(path, TevatronRow, "tevatron"):
        example = Example(
            row.source or dataset,
            question_of(row.query_id, row.question_id),
            row.query_text,
            row.positive_document_ids,
            row.negative_document_ids,
        )
        examples.append(checked(example, f"{path}:{number}"))
    return TrainingSet(examples, {})


def _read_legacy(path: Path, dataset: str, left: Counter[str]) -> TrainingSet:
    passages: dict[str, Passage] = {}
    examples = []
    for number, row in _rows(path, LegacyRow, "tevatron-legacy"):
        for each in (*row.positive_passages, *row.negative_passages):
            passage = Passage(each.docid, each.text, each.title)
            if passages.setdefault(each.docid, passage) != passage:
                raise DataError(
                    f"{path}:{number}: got docid {each.docid!r} with another text or title than "
                    "before, expected one text for each docid"
                )
        example = Example(
            dataset,
            question_of(row.query_id, row.question_id),
            row.query,
            tuple(each.docid for each in row.positive_passages),
            tuple(each.docid for each in row.negative_passages),
        )
        examples.append(checked(example, f"{path}:{number}"))
    return TrainingSet(examples, passages)


def _read_texts(path: Path, dataset: str, left: Counter[str]) -> TrainingSet:
    """Passages have no ids there: a digest of its text is a passage's id.

    Nor have questions: rows whose anchors have one question before the separator, or are the
    same, are about one, which has the number of the first of them.
    """
    form = "sentence-transformers"
    passages: dict[str, Passage] = {}

    def named(text: str) -> str:
        id = hashlib.sha256(text.encode()).hexdigest()[:16]
        title, newline, rest = text.partition("\n")
        passages[id] = Passage(id, rest, title) if newline else Passage(id, text)
        return id

    examples = []
    questions: dict[str, str] = {}
    for number, row in _rows(path, dict[str, str], form):
        if "anchor" not in row or "positive" not in row:
            raise DataError(
                f"{path}:{number}: got the columns {sorted(row)}, expected anchor, positive and "
                f"negative_1, negative_2, ...; {_other(form)}"
            )
        question = questions.setdefault(row["anchor"].partition(SEPARATOR)[0], str(number))
        texts = [text for name, text in row.items() if name.startswith("negative")]
        negatives = tuple(dict.fromkeys(named(text) for text in texts))
        example = Example(dataset, question, row["anchor"], (named(row["positive"]),), negatives)
        examples.append(checked(example, f"{path}:{number}"))
    return TrainingSet(examples, passages)


def _read_beir(path: Path, dataset: str, left: Counter[str]) -> TrainingSet:
    if not path.is_dir():
        found = "a file" if path.exists() else "no such folder"
        raise DataError(
            f"{path}: got {found}, expected a folder with corpus.jsonl, queries.jsonl and "
            f"qrels/train.tsv; {_other('beir')}"
        )
    corpus = Corpus.load(path / "corpus.jsonl")
    judged = load_qrels(path / "qrels" / "train.tsv")
    source = path / "queries.jsonl"
    examples = []
    lines: dict[str, int] = {}
    for number, query in _rows(source, BeirQuery, "beir"):
        first = lines.setdefault(query.id, number)
        if first != number:
            raise DataError(
                f"{source}:{number}: got id {query.id!r}, which line {first} has too; expected "
                "unique ids"
            )
        grades = judged.get(query.id, {})
        positives = tuple(id for id, grade in grades.items() if grade > 0)
        negatives = tuple(id for id, grade in grades.items() if grade <= 0)
        if not positives:
            left[ONLY_ZERO if grades else UNJUDGED] += 1
            continue
        marked = query.metadata.get("question_id") if isinstance(query.metadata, dict) else None
        question = question_of(query.id, marked)
        example = Example(dataset, question, query.text, positives, negatives)
        examples.append(checked(example, f"{source}:{number}"))
    left[STRAY] += sum(id not in lines for id in judged)
    return TrainingSet(examples, {passage.id: passage for passage in corpus})


READERS: dict[str, Callable[[Path, str, Counter[str]], TrainingSet]] = {
    "ours": _read_ours,
    "upstream": _read_upstream,
    "tevatron": _read_tevatron,
    "tevatron-legacy": _read_legacy,
    "sentence-transformers": _read_texts,
    "beir": _read_beir,
}
