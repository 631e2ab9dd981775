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

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agentic_r.data.corpus import Corpus
from agentic_r.errors import DataError
from agentic_r.exchange.counting import counted, reasons
from agentic_r.exchange.ids import is_number
from agentic_r.exchange.reading import READERS
from agentic_r.exchange.rows import NO_POSITIVES, TARGETS, TrainingSet
from agentic_r.exchange.writing import WRITERS
from agentic_r.types import Example

FORMATS = tuple(READERS)
WITH_TEXTS = frozenset({"tevatron-legacy", "sentence-transformers", "beir"})
"""Formats that cannot be written without the corpus."""

GRADED = frozenset({"ours", "upstream"})
"""Formats that hold graded targets."""


def read_training_set(
    path: Path | str, form: str, dataset: str = "", left: Counter[str] | None = None
) -> TrainingSet:
    """Read a training set; what gives no example is counted in `left`, by reason.

    `dataset` names the data set where the format does not; by default the file's own name.
    Examples without positives are read, for whoever uses them to refuse or to leave out. Raises
    DataError where the file is not in the format, contradicts itself or has no example.
    """
    path = Path(path)
    left = Counter() if left is None else left
    found = READERS[form](path, dataset or path.name.split(".")[0], left)
    if not found.examples:
        raise DataError(f"{path}: got no usable example ({reasons(left)}), expected at least one")
    return found


def write_training_set(
    path: Path | str,
    form: str,
    examples: Sequence[Example],
    corpus: Corpus | None = None,
    left: Counter[str] | None = None,
) -> int:
    """Write a training set and return how many examples; what is left out is counted in `left`.

    Raises DataError where the format wants texts and has no corpus, and where no example has a
    positive; RunError where the file cannot be written. An earlier file is then untouched.
    """
    left = Counter() if left is None else left
    if form in WITH_TEXTS and corpus is None:
        raise DataError(
            f"{form}: got no corpus, expected one, for the format holds texts; give --corpus FILE"
        )
    usable = [each for each in examples if each.positives]
    if not usable:
        raise DataError(
            f"{path}: not written, for it would hold nothing: got "
            f"{counted(len(examples), 'examples')}, none with a positive, expected at least one"
        )
    left[NO_POSITIVES] += len(examples) - len(usable)
    if form not in GRADED:
        left[TARGETS] += sum(each.targets is not None for each in usable)
    return WRITERS[form](Path(path), usable, corpus, left)


def by_row_number(examples: Sequence[Example], corpus: Corpus) -> list[Example]:
    """Take passage ids as row numbers of a corpus, as upstream's files mean them (fault C17).

    Raises DataError for what is no row of it.
    """

    def named(example: Example, ids: Sequence[str]) -> tuple[str, ...]:
        try:
            return tuple(corpus[row_number(id, len(corpus))].id for id in ids)
        except DataError as error:
            raise DataError(f"question {example.question_id!r}: {error}") from None

    return [
        msgspec.structs.replace(
            each, positives=named(each, each.positives), negatives=named(each, each.negatives)
        )
        for each in examples
    ]


def check_ids(examples: Sequence[Example], corpus: Corpus) -> None:
    """Raise DataError where an example names a passage that the corpus does not have."""
    for example in examples:
        for id in (*example.positives, *example.negatives):
            if id not in corpus:
                hint = "; if they are row numbers, say --row-numbers" if is_number(id) else ""
                raise DataError(
                    f"question {example.question_id!r}: passage {id!r} is not in the corpus, "
                    f"expected the ids of its {len(corpus):,} passages{hint}"
                )


def row_number(id: str, count: int) -> int:
    """Read a passage's row number, as upstream names passages. Raises DataError for none."""
    if not is_number(id) or int(id) >= count:
        raise DataError(f"got the passage {id!r}, expected a row number of 0 to {count - 1}")
    return int(id)
