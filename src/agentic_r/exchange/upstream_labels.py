"""Upstream's label files (contracts B2, B4, B5) joined into its training examples (B6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

import msgspec

from agentic_r.errors import DataError
from agentic_r.exchange.ids import Id, as_text
from agentic_r.exchange.rows import says_nothing
from agentic_r.io import read_json_list, read_jsonl
from agentic_r.protocols import SEPARATOR
from agentic_r.types import Example, Utility
from agentic_r.utility.select import Rule, select

NO_RELEVANCE = "documents without relevance"
NO_CORRECTNESS = "documents without correctness"
FIRST_NO_RELEVANCE = "searches whose first document has no relevance"
FIRST_NO_CORRECTNESS = "searches whose first document has no correctness"
UNLABELLED = "searches of the candidate file that neither label file has"
NOTHING_SENT = "searches with neither a question nor a query"
OTHER_DOCUMENTS = "searches whose labels are of none of their candidates"
REPEATED = "label lines of a search that another line had labelled"
CANDIDATE_FILE = "questions with trajectory[].round_index, current_query and candidate_passage_ids"
"""What a candidate file is, for error messages."""

NO_CANDIDATES = "labelled searches that the candidate file does not have, used all the same"


class Candidates(msgspec.Struct):
    """One search in the candidate file."""

    round_index: int
    current_query: str
    candidate_passage_ids: tuple[int | str, ...]


class Item(msgspec.Struct):
    """One question in the candidate file."""

    id: Id
    question: str
    trajectory: tuple[Candidates, ...]

    def __post_init__(self) -> None:
        as_text(self, "id")


class LocalLine(msgspec.Struct):
    """Relevance of the documents of one search, 0-100; null where it is not known."""

    id: Id
    round_index: int
    docid_score: dict[str, float | None]

    def __post_init__(self) -> None:
        as_text(self, "id")


class Outcome(msgspec.Struct):
    """What came of continuing from one document; of the metrics only `em` counts."""

    metric_score: dict[str, float | None]


class GlobalLine(msgspec.Struct):
    """Correctness of the documents of one search; null where it is not known."""

    id: Id
    question: str
    round_index: int
    current_query: str
    docid_score: dict[str, Outcome | None]
    history_queries: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        as_text(self, "id")

    def em(self, name: str) -> float | None:
        """Return the exact match of a document, None where it is not known."""
        outcome = self.docid_score.get(name)
        return outcome.metric_score.get("em") if outcome else None


class Score(msgspec.Struct, frozen=True):
    """Both signals of one passage: exact match 0-1 and relevance 0-1."""

    em: float
    local_utility: float


class TrainingRow(msgspec.Struct, frozen=True):
    """One line of `retriever_training_data.jsonl`: the first passage is the positive."""

    dataset: str
    query_id: Id
    question: str
    round_index: int
    history_queries: tuple[str, ...]
    query_text: str
    passage_ids: tuple[Id, ...]
    scores: tuple[Score, ...]

    def __post_init__(self) -> None:
        as_text(self, "query_id", "passage_ids")


class Joined(msgspec.Struct, frozen=True):
    """All that the label files say: a line and its rows a search, in the order of the files.

    `asked` counts the searches that any of the files has.
    """

    searches: tuple[tuple[GlobalLine, tuple[Utility, ...]], ...]
    asked: int
    dropped: dict[str, int]


class Converted(msgspec.Struct, frozen=True):
    """Training data made of label files; `dropped` counts what was left out, by reason.

    `searches` counts those that any of the files has.
    """

    examples: tuple[Example, ...]
    rows: tuple[TrainingRow, ...]
    searches: int
    dropped: dict[str, int]


def join(candidates: Path | str, local: Path | str, global_: Path | str) -> Joined:
    """Join the three files by question, round and document.

    Documents stand in the order of the correctness file, as upstream takes them. One that lacks
    a signal, over which upstream's script ends, is left out and counted; a search whose first
    document lacks one is skipped, as it is upstream, and so is one none of whose candidates is
    labelled. Raises DataError where a file is malformed or a signal outside its range, or where
    candidates and correctness are about different queries.
    """
    dropped: Counter[str] = Counter()
    asked = {
        (item.id, each.round_index): each
        for item in read_json_list(candidates, Item, CANDIDATE_FILE)
        for each in item.trajectory
    }
    lines = _correctness(global_, dropped)
    relevance = _relevance(local, dropped)
    found = []
    for key, line in lines.items():
        known = asked.get(key)
        if known is not None and known.current_query != line.current_query:
            raise DataError(
                f"{global_}: question {key[0]!r}, round {key[1]}: got the query "
                f"{line.current_query!r}, but {candidates} has {known.current_query!r}; one of "
                "the files was made anew, so make the other anew too"
            )
        scores = relevance.get(key, {})
        if known is not None and _apart(known, line.docid_score.keys() & scores.keys()):
            dropped[OTHER_DOCUMENTS] += 1
            continue
        rows = tuple(_rows(line, scores, dropped))
        if rows:
            dropped[NO_CANDIDATES] += known is None
            found.append((line, rows))
    dropped[FIRST_NO_CORRECTNESS] += sum(key not in lines for key in relevance)
    labelled = lines.keys() | relevance.keys()
    dropped[UNLABELLED] += len(asked.keys() - labelled)
    left = {why: count for why, count in dropped.items() if count}
    return Joined(tuple(found), len(asked.keys() | labelled), left)


def _apart(known: Candidates, labelled: Set[str]) -> bool:
    """Say whether labels are of other documents than the candidates, as of another iteration.

    Labels of some of the candidates, or of more than these, are of the same search.
    """
    asked = set(map(str, known.candidate_passage_ids))
    return bool(asked and labelled) and asked.isdisjoint(labelled)


def _correctness(path: Path | str, dropped: Counter[str]) -> dict[tuple[str, int], GlobalLine]:
    """Read the correctness file by question and round."""
    found: dict[tuple[str, int], GlobalLine] = {}
    for number, line in enumerate(read_jsonl(path, GlobalLine, allow_empty=True), start=1):
        for name in line.docid_score:
            where = f"{path}: row {number}, question {line.id!r}, document {name!r}"
            _check(line.em(name), 1, where, "em")
        dropped[REPEATED] += (line.id, line.round_index) in found
        found[line.id, line.round_index] = line
    return found


def _relevance(
    path: Path | str, dropped: Counter[str]
) -> dict[tuple[str, int], dict[str, float | None]]:
    """Read the relevance file by question and round."""
    found: dict[tuple[str, int], dict[str, float | None]] = {}
    for number, line in enumerate(read_jsonl(path, LocalLine, allow_empty=True), start=1):
        for name, score in line.docid_score.items():
            where = f"{path}: row {number}, question {line.id!r}, document {name!r}"
            _check(score, 100, where, "relevance")
        dropped[REPEATED] += (line.id, line.round_index) in found
        found[line.id, line.round_index] = line.docid_score
    return found


def _check(score: float | None, most: int, where: str, what: str) -> None:
    if score is not None and not 0 <= score <= most:
        raise DataError(f"{where}: got {what} {score:g}, expected 0 to {most}")


def convert(joined: Joined, dataset: str, rule: Rule, seed: int = 0) -> Converted:
    """Select examples as upstream's last step does, the negatives drawn with a seed (B6).

    Examples have up to three positives each; a training row has one, and its negatives from the
    best to the worst, by exact match and then by relevance.
    """
    dropped: Counter[str] = Counter(joined.dropped)
    examples: list[Example] = []
    rows: list[TrainingRow] = []
    for line, utilities in joined.searches:
        chosen, reasons = select(dataset, line.id, utilities, rule=rule, seed=seed)
        dropped.update(reasons)
        for example in chosen:
            examples.append(example)
            rows += _training_rows(dataset, line, example, utilities)
    return Converted(tuple(examples), tuple(rows), joined.asked, dict(dropped))


def _rows(
    line: GlobalLine, relevance: dict[str, float | None], dropped: Counter[str]
) -> Iterator[Utility]:
    """Make the rows of one search: none where nothing was sent or the first lacks a signal."""
    sent = f"{line.question}{SEPARATOR}{line.current_query}"
    if says_nothing(sent):
        dropped[NOTHING_SENT] += 1
        return
    first = next(iter(line.docid_score), None)
    if first is None or line.em(first) is None or relevance.get(first) is None:
        lacks = first is None or line.em(first) is None
        dropped[FIRST_NO_CORRECTNESS if lacks else FIRST_NO_RELEVANCE] += 1
        return
    dropped[NO_CORRECTNESS] += sum(name not in line.docid_score for name in relevance)
    rank = 0
    for name in line.docid_score:
        em, score = line.em(name), relevance.get(name)
        if score is None or em is None:
            dropped[NO_RELEVANCE if score is None else NO_CORRECTNESS] += 1
            continue
        yield Utility(line.id, line.round_index, sent, name, rank, score, em, "measured")
        rank += 1


def _training_rows(
    dataset: str, line: GlobalLine, example: Example, utilities: tuple[Utility, ...]
) -> Iterator[TrainingRow]:
    by_id = {row.passage_id: row for row in utilities}
    order = sorted(
        example.negatives,
        key=lambda name: (-(by_id[name].correctness or 0.0), -(by_id[name].relevance or 0.0)),
    )
    for positive in example.positives:
        ids = (positive, *order)
        scores = tuple(
            Score(by_id[name].correctness or 0.0, (by_id[name].relevance or 0.0) / 100)
            for name in ids
        )
        yield TrainingRow(
            dataset,
            line.id,
            line.question,
            line.round_index,
            line.history_queries,
            line.current_query,
            ids,
            scores,
        )
