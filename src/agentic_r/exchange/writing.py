"""Training sets written, a function a format; what is left out is counted in `left`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from agentic_r.data.corpus import Corpus
from agentic_r.errors import DataError
from agentic_r.exchange.ids import search_id
from agentic_r.exchange.rows import (
    NO_NEGATIVES,
    ROUNDS,
    SAME_TEXT,
    SURPLUS,
    BeirQuery,
    Document,
    LegacyRow,
    TevatronRow,
)
from agentic_r.exchange.upstream_labels import Score, TrainingRow
from agentic_r.io import write_atomic, write_jsonl
from agentic_r.protocols import SEPARATOR
from agentic_r.types import Example

Writer = Callable[[Path, Sequence[Example], Corpus | None, Counter[str]], int]
"""Writes examples, which all have positives, and returns how many of them."""


def _write_ours(
    path: Path, examples: Sequence[Example], corpus: Corpus | None, left: Counter[str]
) -> int:
    write_jsonl(path, examples)
    return len(examples)


def _write_upstream(
    path: Path, examples: Sequence[Example], corpus: Corpus | None, left: Counter[str]
) -> int:
    write_jsonl(path, (row for example in examples for row in _upstream_rows(example)))
    left[ROUNDS] += len(examples)
    return len(examples)


def _upstream_rows(example: Example) -> Iterator[TrainingRow]:
    """One row a positive; the targets stand as relevance, 1 and 0 where there are none.

    An example does not know its round, what was searched before nor exact match, none of which a
    trainer reads: it is written as the first, a positive as correct and a negative as not.
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


def _write_tevatron(
    path: Path, examples: Sequence[Example], corpus: Corpus | None, left: Counter[str]
) -> int:
    write_jsonl(
        path,
        (
            TevatronRow(
                query_id=search_id(each.question_id, number),
                query_text=each.query,
                positive_document_ids=each.positives,
                negative_document_ids=each.negatives,
                source=each.dataset,
                question_id=each.question_id,
            )
            for number, each in enumerate(examples)
        ),
    )
    return len(examples)


def _write_legacy(
    path: Path, examples: Sequence[Example], corpus: Corpus | None, left: Counter[str]
) -> int:
    assert corpus is not None

    def documents(ids: Iterable[str]) -> tuple[Document, ...]:
        found = (corpus.get(id) for id in ids)
        return tuple(Document(each.id, each.text, each.title) for each in found)

    write_jsonl(
        path,
        (
            LegacyRow(
                search_id(each.question_id, number),
                each.query,
                documents(each.positives),
                documents(each.negatives),
                each.question_id,
            )
            for number, each in enumerate(examples)
        ),
    )
    return len(examples)


def _write_texts(
    path: Path, examples: Sequence[Example], corpus: Corpus | None, left: Counter[str]
) -> int:
    """One row a positive; all rows have as many negatives as the shortest list that is not empty.

    Columns must be equal, so an example without negatives is left out where others have some.
    """
    assert corpus is not None

    def contents(ids: Iterable[str]) -> list[str]:
        return [corpus.get(id).contents for id in ids]

    def negatives(example: Example) -> list[str]:
        own = set(contents(example.positives))
        return [text for text in contents(example.negatives) if text not in own]

    counts = [len(negatives(each)) for each in examples]
    left[SAME_TEXT] += sum(
        len(each.negatives) - n for each, n in zip(examples, counts, strict=True)
    )
    width = min((count for count in counts if count), default=0)
    kept = [each for each, count in zip(examples, counts, strict=True) if count or not width]
    left[NO_NEGATIVES] += len(examples) - len(kept)
    left[SURPLUS] += sum(count - width for count in counts if count)

    def rows(example: Example) -> Iterator[dict[str, str]]:
        others = negatives(example)[:width]
        columns = {f"negative_{number}": text for number, text in enumerate(others, start=1)}
        for positive in contents(example.positives):
            yield {"anchor": example.query, "positive": positive, **columns}

    write_jsonl(path, (row for each in kept for row in rows(each)))
    return len(kept)


def _write_beir(
    path: Path, examples: Sequence[Example], corpus: Corpus | None, left: Counter[str]
) -> int:
    assert corpus is not None
    lines = ["query-id\tcorpus-id\tscore"]
    queries = []
    for number, each in enumerate(examples):
        name = search_id(each.question_id, number)
        for id in (name, *each.positives, *each.negatives):
            if id.split() != [id]:
                raise DataError(
                    f"{path}: question {each.question_id!r}: got the id {id!r}, expected one "
                    "without white space, which divides the columns of BEIR's judgements"
                )
        queries.append(BeirQuery(name, each.query, {"question_id": each.question_id}))
        lines += [f"{name}\t{id}\t1" for id in each.positives]
        lines += [f"{name}\t{id}\t0" for id in each.negatives]
    write_jsonl(path / "queries.jsonl", queries)
    rows = ({"_id": each.id, "title": each.title, "text": each.text} for each in corpus)
    write_jsonl(path / "corpus.jsonl", rows)
    write_atomic(path / "qrels" / "train.tsv", "\n".join(lines) + "\n")
    return len(examples)


WRITERS: dict[str, Writer] = {
    "ours": _write_ours,
    "upstream": _write_upstream,
    "tevatron": _write_tevatron,
    "tevatron-legacy": _write_legacy,
    "sentence-transformers": _write_texts,
    "beir": _write_beir,
}
