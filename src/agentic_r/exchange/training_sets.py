"""Retriever training sets in the formats that trainers read, each read and written.

| name | file | passages |
|---|---|---|
| ours | `examples.jsonl` of a labelling stage | ids |
| upstream | `retriever_training_data.jsonl`, one positive a row | ids or row numbers |
| tevatron | query_text, positive_document_ids, negative_document_ids | ids |
| tevatron-legacy | query, positive_passages, negative_passages | ids and texts |
| sentence-transformers | anchor, positive, negative_1, negative_2, ... | texts |
| beir | a folder: corpus.jsonl, queries.jsonl, qrels/train.tsv | ids and texts |

A hard negative of BEIR is a passage judged 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agentic_r.data.corpus import Corpus
from agentic_r.data.datasets import load_qrels
from agentic_r.errors import DataError
from agentic_r.exchange.upstream_labels import Score, TrainingRow
from agentic_r.io import read_jsonl, write_atomic, write_jsonl
from agentic_r.protocols import SEPARATOR
from agentic_r.types import Example, Passage


class TrainingSet(NamedTuple):
    """Examples, and the passages that came with them where the format has texts."""

    examples: list[Example]
    passages: dict[str, Passage]


class TevatronRow(msgspec.Struct, kw_only=True):
    """Tevatron's row with ids; what other modalities hold is empty."""

    query_id: str
    query_text: str
    query_image: None = None
    query_video: None = None
    query_audio: None = None
    positive_document_ids: tuple[str, ...]
    negative_document_ids: tuple[str, ...]
    source: str = ""


class Document(msgspec.Struct):
    """A passage in Tevatron's legacy row."""

    docid: str
    text: str
    title: str = ""


class LegacyRow(msgspec.Struct):
    """Tevatron's older row, which holds texts."""

    query_id: str
    query: str
    positive_passages: tuple[Document, ...]
    negative_passages: tuple[Document, ...]


class BeirQuery(msgspec.Struct):
    """A line of queries.jsonl."""

    id: str = msgspec.field(name="_id")
    text: str


def read_training_set(path: Path | str, form: str, dataset: str = "") -> TrainingSet:
    """Read a training set. Raises DataError where it is not in the format.

    `dataset` names the data set where the format does not; by default the file's own name.
    """
    path = Path(path)
    return READERS[form](path, dataset or path.name.split(".")[0])


def write_training_set(
    path: Path | str, form: str, examples: Sequence[Example], corpus: Corpus | None = None
) -> None:
    """Write a training set. Raises DataError where the format wants texts and has no corpus."""
    if form in WITH_TEXTS and corpus is None:
        raise DataError(f"{form}: got no corpus, expected one, for the format holds texts")
    WRITERS[form](Path(path), examples, corpus)


def by_row_number(examples: Sequence[Example], corpus: Corpus) -> list[Example]:
    """Take passage ids as row numbers of a corpus, as upstream's files mean them (fault C17).

    Raises DataError for what is no row of it.
    """

    def named(ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(corpus[row_number(id, len(corpus))].id for id in ids)

    return [
        msgspec.structs.replace(
            each, positives=named(each.positives), negatives=named(each.negatives)
        )
        for each in examples
    ]


def check_ids(examples: Sequence[Example], corpus: Corpus) -> None:
    """Raise DataError where an example names a passage that the corpus does not have."""
    for example in examples:
        for id in (*example.positives, *example.negatives):
            if id not in corpus:
                hint = "; if they are row numbers, say --row-numbers" if id.isdigit() else ""
                raise DataError(
                    f"question {example.question_id!r}: passage {id!r} is not in the corpus, "
                    f"expected the ids of its {len(corpus):,} passages{hint}"
                )


def row_number(id: str, count: int) -> int:
    """Read a passage's row number, as upstream names passages. Raises DataError for none."""
    if not id.isdigit() or int(id) >= count:
        raise DataError(f"got the passage {id!r}, expected a row number of 0 to {count - 1}")
    return int(id)


def _read_ours(path: Path, dataset: str) -> TrainingSet:
    return TrainingSet(read_jsonl(path, Example), {})


def _read_upstream(path: Path, dataset: str) -> TrainingSet:
    """Rows that follow each other and differ in their positive alone are one example.

    Relevance alone becomes the targets, for that is all upstream's trainer takes of the scores
    (contracts B7); exact match has ordered the passages already.
    """
    rows = read_jsonl(path, TrainingRow)
    for number, row in enumerate(rows, start=1):
        if not row.passage_ids or len(row.scores) != len(row.passage_ids):
            raise DataError(
                f"{path}: row {number}, question {row.query_id!r}: got {len(row.scores)} scores "
                f"for {len(row.passage_ids)} passages, expected one each, and the positive first"
            )
    same = groupby(
        rows,
        lambda row: (
            row.dataset,
            row.query_id,
            row.round_index,
            row.query_text,
            row.passage_ids[1:],
        ),
    )
    examples = []
    for (name, question_id, _, query, negatives), group in same:
        members = list(group)
        sent = f"{members[0].question}{SEPARATOR}{query}" if members[0].question else query
        positives = tuple(row.passage_ids[0] for row in members)
        scores = (*(row.scores[0] for row in members), *members[0].scores[1:])
        targets = tuple(score.local_utility for score in scores)
        examples.append(Example(name, question_id, sent, positives, negatives, targets))
    return TrainingSet(examples, {})


def _read_tevatron(path: Path, dataset: str) -> TrainingSet:
    return TrainingSet(
        [
            Example(
                row.source or dataset,
                row.query_id,
                row.query_text,
                row.positive_document_ids,
                row.negative_document_ids,
            )
            for row in read_jsonl(path, TevatronRow)
        ],
        {},
    )


def _read_legacy(path: Path, dataset: str) -> TrainingSet:
    passages: dict[str, Passage] = {}
    examples = []
    for row in read_jsonl(path, LegacyRow):
        for each in (*row.positive_passages, *row.negative_passages):
            passages[each.docid] = Passage(each.docid, each.text, each.title)
        positives = tuple(each.docid for each in row.positive_passages)
        negatives = tuple(each.docid for each in row.negative_passages)
        examples.append(Example(dataset, row.query_id, row.query, positives, negatives))
    return TrainingSet(examples, passages)


def _read_texts(path: Path, dataset: str) -> TrainingSet:
    """Passages have no ids there: a digest of its text is a passage's id."""
    passages: dict[str, Passage] = {}

    def named(text: str) -> str:
        id = hashlib.sha256(text.encode()).hexdigest()[:16]
        title, newline, rest = text.partition("\n")
        passages[id] = Passage(id, rest, title) if newline else Passage(id, text)
        return id

    examples = []
    for number, row in enumerate(read_jsonl(path, dict[str, str]), start=1):
        if "anchor" not in row or "positive" not in row:
            raise DataError(
                f"{path}:{number}: got the columns {sorted(row)}, expected anchor, positive and "
                "negative_1, negative_2, ..."
            )
        texts = [text for name, text in row.items() if name.startswith("negative")]
        negatives = tuple(dict.fromkeys(named(text) for text in texts))
        example = Example(dataset, str(number), row["anchor"], (named(row["positive"]),), negatives)
        examples.append(example)
    return TrainingSet(examples, passages)


def _read_beir(path: Path, dataset: str) -> TrainingSet:
    corpus = Corpus.load(path / "corpus.jsonl")
    judged = load_qrels(path / "qrels" / "train.tsv")
    examples = []
    for query in read_jsonl(path / "queries.jsonl", BeirQuery):
        grades = judged.get(query.id, {})
        positives = tuple(id for id, grade in grades.items() if grade > 0)
        negatives = tuple(id for id, grade in grades.items() if grade <= 0)
        if positives:
            examples.append(Example(dataset, query.id, query.text, positives, negatives))
    return TrainingSet(examples, {passage.id: passage for passage in corpus})


def _write_ours(path: Path, examples: Sequence[Example], corpus: Corpus | None) -> None:
    write_jsonl(path, examples)


def _write_upstream(path: Path, examples: Sequence[Example], corpus: Corpus | None) -> None:
    write_jsonl(path, (row for example in examples for row in _upstream_rows(example)))


def _upstream_rows(example: Example) -> Iterator[TrainingRow]:
    """One row a positive; the targets stand as relevance, 1 and 0 where there are none.

    An example does not know its turn nor what was searched before, which no trainer reads.
    """
    question, found, query = example.query.partition(SEPARATOR)
    targets = example.targets or (
        *(1.0 for _ in example.positives),
        *(0.0 for _ in example.negatives),
    )
    count = len(example.positives)
    for positive, target in zip(example.positives, targets[:count], strict=True):
        scores = (Score(1.0, target), *(Score(0.0, other) for other in targets[count:]))
        yield TrainingRow(
            example.dataset,
            example.question_id,
            question if found else "",
            1,
            (),
            query if found else question,
            (positive, *example.negatives),
            scores,
        )


def _write_tevatron(path: Path, examples: Sequence[Example], corpus: Corpus | None) -> None:
    write_jsonl(
        path,
        (
            TevatronRow(
                query_id=f"{each.question_id}#{number}",
                query_text=each.query,
                positive_document_ids=each.positives,
                negative_document_ids=each.negatives,
                source=each.dataset,
            )
            for number, each in enumerate(examples)
        ),
    )


def _write_legacy(path: Path, examples: Sequence[Example], corpus: Corpus | None) -> None:
    assert corpus is not None

    def documents(ids: Iterable[str]) -> tuple[Document, ...]:
        found = (corpus.get(id) for id in ids)
        return tuple(Document(each.id, each.text, each.title) for each in found)

    write_jsonl(
        path,
        (
            LegacyRow(
                f"{each.question_id}#{number}",
                each.query,
                documents(each.positives),
                documents(each.negatives),
            )
            for number, each in enumerate(examples)
        ),
    )


def _write_texts(path: Path, examples: Sequence[Example], corpus: Corpus | None) -> None:
    """One row a positive; all rows have as many negatives as the shortest, as columns must."""
    assert corpus is not None
    width = min((len(each.negatives) for each in examples), default=0)

    def row(example: Example, positive: str) -> dict[str, str]:
        texts = {"anchor": example.query, "positive": corpus.get(positive).contents}
        for number, id in enumerate(example.negatives[:width], start=1):
            texts[f"negative_{number}"] = corpus.get(id).contents
        return texts

    write_jsonl(path, (row(each, positive) for each in examples for positive in each.positives))


def _write_beir(path: Path, examples: Sequence[Example], corpus: Corpus | None) -> None:
    assert corpus is not None
    (path / "qrels").mkdir(parents=True, exist_ok=True)
    lines = ["query-id\tcorpus-id\tscore"]
    queries = []
    for number, each in enumerate(examples):
        name = f"{each.question_id}#{number}"
        queries.append(BeirQuery(name, each.query))
        lines += [f"{name}\t{id}\t1" for id in each.positives]
        lines += [f"{name}\t{id}\t0" for id in each.negatives]
    write_jsonl(path / "queries.jsonl", queries)
    rows = ({"_id": each.id, "title": each.title, "text": each.text} for each in corpus)
    write_jsonl(path / "corpus.jsonl", rows)
    write_atomic(path / "qrels" / "train.tsv", "\n".join(lines) + "\n")


READERS: dict[str, Callable[[Path, str], TrainingSet]] = {
    "ours": _read_ours,
    "upstream": _read_upstream,
    "tevatron": _read_tevatron,
    "tevatron-legacy": _read_legacy,
    "sentence-transformers": _read_texts,
    "beir": _read_beir,
}
WRITERS: dict[str, Callable[[Path, Sequence[Example], Corpus | None], Any]] = {
    "ours": _write_ours,
    "upstream": _write_upstream,
    "tevatron": _write_tevatron,
    "tevatron-legacy": _write_legacy,
    "sentence-transformers": _write_texts,
    "beir": _write_beir,
}
FORMATS = tuple(READERS)
WITH_TEXTS = frozenset({"tevatron-legacy", "sentence-transformers", "beir"})
"""Formats that cannot be written without the corpus."""
