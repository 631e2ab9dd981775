"""Rows of the formats of training sets, what was left out of them, and what no example may be."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from agentic_r.errors import DataError
from agentic_r.exchange.counting import counted
from agentic_r.exchange.ids import Id, as_text
from agentic_r.protocols import SEPARATOR
from agentic_r.types import Example, Passage

NO_POSITIVES = "examples without positives"
NO_NEGATIVES = "examples without negatives, where others have some and columns must be equal"
SURPLUS = "negatives more than the shortest list has, for columns must be equal"
SAME_TEXT = "negatives with the text of a positive"
TARGETS = "examples written without graded targets, which the format cannot hold"
ROUNDS = (
    "examples written as round 1, without earlier queries and with an em of 1 or 0, which they do "
    "not know"
)
UNJUDGED = "queries without judgements"
ONLY_ZERO = "queries with judgements of grade 0 alone"
STRAY = "queries with judgements, but not in queries.jsonl"


class TrainingSet(NamedTuple):
    """Examples, and the passages that came with them where the format has texts."""

    examples: list[Example]
    passages: dict[str, Passage]


class TevatronRow(msgspec.Struct, kw_only=True):
    """Tevatron's row with ids; what other modalities hold is empty.

    Tevatron does not read `question_id`, which tells the searches of one question.
    """

    query_id: Id
    query_text: str
    query_image: None = None
    query_video: None = None
    query_audio: None = None
    positive_document_ids: tuple[Id, ...]
    negative_document_ids: tuple[Id, ...]
    source: str = ""
    question_id: Any = None

    def __post_init__(self) -> None:
        as_text(self, "query_id", "positive_document_ids", "negative_document_ids")


class Document(msgspec.Struct):
    """A passage in Tevatron's legacy row."""

    docid: Id
    text: str
    title: str = ""

    def __post_init__(self) -> None:
        as_text(self, "docid")


class LegacyRow(msgspec.Struct):
    """Tevatron's older row, which holds texts; `question_id` as in the newer one."""

    query_id: Id
    query: str
    positive_passages: tuple[Document, ...]
    negative_passages: tuple[Document, ...]
    question_id: Any = None

    def __post_init__(self) -> None:
        as_text(self, "query_id")


class BeirQuery(msgspec.Struct):
    """A line of queries.jsonl; BEIR leaves `metadata` to whoever writes it."""

    id: Id = msgspec.field(name="_id")
    text: str
    metadata: Any = None

    def __post_init__(self) -> None:
        as_text(self, "id")


def says_nothing(sent: str) -> bool:
    """Say whether what is sent has no text beside separators.

    An agent may ask an empty query; the question that stands before it is then what is sent.
    """
    return not sent.replace(SEPARATOR.strip(), "").strip()


def checked(example: Example, where: str) -> Example:
    """Return an example as it is; `where` it stands is for errors.

    Raises DataError for an empty query, a passage that is both positive and negative, and targets
    that are not one number 0-1 for each passage.
    """
    said = f"{where}: question {example.question_id!r}"
    if says_nothing(example.query):
        raise DataError(f"{said}: got an empty query, expected the text that is searched for")
    both = set(example.positives) & set(example.negatives)
    if both:
        raise DataError(
            f"{said}: got passage {min(both)!r} as a positive and as a negative, expected one of "
            "the two; take it out of the negatives"
        )
    if example.targets is None:
        return example
    count = len(example.positives) + len(example.negatives)
    if len(example.targets) != count:
        raise DataError(
            f"{said}: got {counted(len(example.targets), 'targets')} for "
            f"{counted(count, 'passages')}, expected one each, those of the positives first"
        )
    for target in example.targets:
        if not 0 <= target <= 1:
            raise DataError(f"{said}: got the target {target:g}, expected 0 to 1")
    return example
