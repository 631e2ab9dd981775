"""Data sets: several question files at once, sampled; relevance judgements in the BEIR layout.

A data set's name is its folder in the FlashRAG collection, and questions are keyed by (name, id),
since ids such as `test_0` repeat between data sets.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from agentic_r.data.hub import fetched
from agentic_r.data.questions import Questions, hops, load_questions
from agentic_r.errors import DataError
from agentic_r.io import decode_line, json_lines
from agentic_r.types import Question

FLASHRAG = "hf://datasets/RUC-NLPIR/FlashRAG_datasets"
"""The collection that question files without a path come from: NAME/SPLIT.jsonl."""

SPLITS = {
    **dict.fromkeys(("nq", "triviaqa", "popqa", "bamboogle"), "test"),
    **dict.fromkeys(("hotpotqa", "2wikimultihopqa", "musique"), "dev"),
}
"""The seven sets of the paper's table and the split of each that it measures on."""

PATTERNS = frozenset({"curatedtrec"})
"""Data sets whose answers are regular expressions."""


class Source(msgspec.Struct, frozen=True):
    """Where the questions of one data set come from and how many are taken.

    `path` is a file, a folder of SPLIT.jsonl files or a hub address; empty takes the FlashRAG
    collection. `sample` 0 takes all. `qrels` is a file of relevance judgements, or nothing.
    """

    name: str
    path: str = ""
    split: str = ""
    sample: int = 0
    qrels: str = ""
    answers: Literal["auto", "text", "patterns"] = "auto"

    @property
    def where(self) -> str:
        """The file or the hub address of the questions. Raises DataError for an unknown split."""
        if self.path and not Path(self.path).is_dir():
            return self.path
        split = self.split or SPLITS.get(self.name, "")
        if not split:
            raise DataError(
                f"data set {self.name!r}: nothing says which split; set its split, such as "
                f'"test", or its path (known without: {", ".join(SPLITS)})'
            )
        if self.path:
            return str(Path(self.path) / f"{split}.jsonl")
        return f"{FLASHRAG}/{self.name}/{split}.jsonl"


def load_dataset(source: Source, seed: int = 0) -> Questions:
    """Read one data set, sampled by `seed`, in the order of the file.

    Raises DataError as `load_questions` and `load_qrels` do, and where judgements are about none
    of the questions.
    """
    patterns = source.answers == "patterns" or (
        source.answers == "auto" and source.name in PATTERNS
    )
    questions = load_questions(fetched(source.where), source.name, patterns=patterns)
    if source.qrels:
        questions = judged(questions, load_qrels(fetched(source.qrels)), source.qrels)
    return sampled(questions, source.sample, seed)


def load_datasets(sources: Sequence[Source], seed: int = 0) -> Questions:
    """Read several data sets into one list. Raises DataError where two have one name."""
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"got data set {twice[0]!r} twice, expected each once")
    return Questions(q for source in sources for q in load_dataset(source, seed))


def sampled(questions: Questions, size: int, seed: int) -> Questions:
    """Draw `size` questions without replacement, in the order of the list; 0 keeps all.

    What is drawn depends on the seed, the data set and the size alone.
    """
    if size <= 0 or size >= len(questions):
        return questions
    draw = random.Random(f"{seed}:{questions[0].dataset}:sample")
    rows = sorted(draw.sample(range(len(questions)), size))
    return Questions(questions[row] for row in rows)


class _Query(msgspec.Struct):
    """One line of a BEIR query file; fields that are not named here are ignored."""

    id: str | int = msgspec.field(name="_id")
    text: str


def load_beir(queries: Path | str, qrels: Path | str, dataset: str = "") -> Questions:
    """Read BEIR queries (`_id`, `text`) with their judgements; queries without any are left out.

    The questions have no answers: they serve to measure retrieval. Raises DataError with file and
    line where a line is malformed or an id repeats, and where no query is judged.
    """
    decoder = msgspec.json.Decoder(_Query)
    found = Questions()
    lines: dict[str, int] = {}
    for number, line in json_lines(queries):
        query = decode_line(queries, number, line, decoder)
        first = lines.setdefault(str(query.id), number)
        if first != number:
            raise DataError(
                f"{queries}:{number}: got id {query.id!r}, which line {first} has too; "
                "expected unique ids"
            )
        found.append(Question(str(query.id), query.text, (), dataset))
    kept = judged(found, load_qrels(qrels), str(qrels))
    return Questions(question for question in kept if gold(question))


def load_qrels(path: Path | str) -> dict[str, dict[str, int]]:
    """Read judgements, {query id: {passage id: grade}}: BEIR's three columns or TREC's four.

    BEIR's file has a head line; columns are divided by white space. Raises DataError with file
    and line where a line is malformed or judges a pair twice, and where there is no judgement.
    """
    found: dict[str, dict[str, int]] = {}
    for number, line in json_lines(path):
        where = f"{path}:{number}"
        parts = line.decode(errors="replace").split()
        if number == 1 and parts[-1] == "score":
            continue
        if len(parts) not in (3, 4):
            raise DataError(
                f"{where}: got {len(parts)} columns, expected query id, passage id and grade "
                "(BEIR), or query id, 0, passage id and grade (TREC)"
            )
        query, passage = parts[0], parts[-2]
        try:
            grade = int(parts[-1])
        except ValueError:
            raise DataError(f"{where}: got grade {parts[-1]!r}, expected an integer") from None
        if found.setdefault(query, {}).setdefault(passage, grade) != grade:
            raise DataError(f"{where}: {query!r} and {passage!r} were judged otherwise before")
    if not found:
        raise DataError(f"{path}: got a file without judgements, expected one a line")
    return found


def judged(
    questions: Sequence[Question], qrels: Mapping[str, Mapping[str, int]], path: str
) -> Questions:
    """Add judgements to questions. Raises DataError where they are about none of these."""
    if not any(question.id in qrels for question in questions):
        raise DataError(
            f"{path}: its {len(qrels)} queries, such as {next(iter(qrels))!r}, are none of the "
            f"{len(questions)} questions; give the judgements of these questions"
        )
    return Questions(
        msgspec.structs.replace(q, metadata={**q.metadata, "qrels": dict(qrels.get(q.id, {}))})
        for q in questions
    )


def gold(question: Question) -> dict[str, int]:
    """Return {passage id: grade} of what is known to be relevant; empty where nothing is.

    Known are judgements (`qrels`), `metadata.gold_passage_ids` and the passages of the hops, the
    first of them that is there.
    """
    judgements = question.metadata.get("qrels")
    if isinstance(judgements, dict):
        return {str(id): grade for id, grade in judgements.items() if grade > 0}
    listed = question.metadata.get("gold_passage_ids")
    if isinstance(listed, list) and listed:
        return {str(id): 1 for id in listed}
    return {hop.passage_id: 1 for hop in hops(question) if hop.passage_id}
