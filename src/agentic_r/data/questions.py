"""Questions with their answers, and what is known of the hops that lead to them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import msgspec

from agentic_r.errors import DataError
from agentic_r.io import decode_line, json_lines
from agentic_r.types import Question

_EXPECTED = 'expected "id", "question" and "golden_answers" (a list of strings)'
_WORD = re.compile(r"\w+")
_REFERENCE = re.compile(r"#(\d+)")


class Hop(msgspec.Struct, frozen=True):
    """One step of a question: `index` from 0, the gold passage, all known ways of asking it.

    `passage_id` is "" where the data does not name the passage.
    """

    index: int
    question: str
    answer: str
    passage_id: str
    forms: tuple[str, ...]


class _Line(msgspec.Struct):
    """One line of a question file; fields that are not named here are ignored."""

    id: str | int | None = None
    question: str | None = None
    golden_answers: list[str | int | float | bool] | None = None
    choices: list[str | int | float | bool] | None = None
    metadata: dict[str, Any] | None = None


class _HopLine(msgspec.Struct):
    question: str
    answer: str | int | float
    passage_id: str | int = ""
    queries: list[str] = []


class Questions(list[Question]):
    """A list of questions that can be split."""

    def split(self, *sizes: int | float | None, seed: int = 0) -> tuple[Questions, ...]:
        """Divide into disjoint parts, one per size, drawn by `seed`, each in the order of the list.

        A size is a count (int), a fraction of all (float, rounded down) or None for all that is
        left. Where every question has metadata["root"], questions of one root stay together, and
        a part has at most its size. Raises DataError where there are too few questions.
        """
        wanted = [_count(size, len(self)) for size in sizes]
        asked = sum(size for size in wanted if size is not None)
        if asked > len(self):
            raise DataError(f"got {len(self)} questions, expected at least {asked} for the split")
        groups = self._groups()
        random.Random(f"{seed}:split").shuffle(groups)
        parts: list[list[int]] = []
        for size in sorted(range(len(wanted)), key=lambda at: (wanted[at] is None, at)):
            part, groups = _take(groups, wanted[size])
            parts.append([size, *sorted(part)])
        parts.sort()
        return tuple(Questions(self[row] for row in part[1:]) for part in parts)

    def _groups(self) -> list[list[int]]:
        if not all("root" in question.metadata for question in self):
            return [[row] for row in range(len(self))]
        groups: dict[str, list[int]] = {}
        for row, question in enumerate(self):
            groups.setdefault(f"{question.dataset}\n{question.metadata['root']}", []).append(row)
        return list(groups.values())


def load_questions(path: Path | str, dataset: str = "", *, patterns: bool = False) -> Questions:
    """Read a FlashRAG question file (JSON lines, `.gz` too), in the order of the file.

    A line is {"id", "question", "golden_answers", "metadata"} (contracts A6), metadata optional;
    ids that are integers become strings. With "choices" (multiple choice) an integer answer is
    the place of a choice, from 0, and becomes its text; metadata["choices"] keeps them, and the
    question goes on with them, "Which? (A) one (B) other", as the agent is asked it. With
    `patterns` the answers are regular expressions (curatedtrec), marked by metadata["patterns"].
    Raises DataError, with file and line, where a line is malformed, lacks a field, has no answer
    or repeats an id, and where there is no question.
    """
    decoder = msgspec.json.Decoder(_Line)
    lines: dict[str, int] = {}
    questions = Questions()
    for number, line in json_lines(path):
        where = f"{path}:{number}"
        question = _question(decode_line(path, number, line, decoder), dataset, where)
        if patterns:
            question = _with_patterns(question, where)
        first = lines.setdefault(question.id, number)
        if first != number:
            raise DataError(
                f"{where}: got id {question.id!r}, which line {first} has too; expected unique ids"
            )
        questions.append(question)
    if not questions:
        raise DataError(f"{path}: got a file without questions, {_EXPECTED} a line")
    return questions


def hops(question: Question) -> list[Hop]:
    """Return the annotated hops of a question, none where it has no metadata["hops"].

    "#1" in a hop's question or queries stands for the answer of hop 1 and is filled in. Raises
    DataError where the annotation is malformed.
    """
    try:
        lines = msgspec.convert(question.metadata.get("hops") or [], list[_HopLine])
    except msgspec.ValidationError as error:
        raise DataError(
            f'question {question.id!r}: metadata["hops"]: {error}; expected a list of '
            '{"question", "answer", "passage_id"}'
        ) from None
    answers = [str(line.answer) for line in lines]
    return [_hop(index, line, answers[:index]) for index, line in enumerate(lines)]


def hop_asked(question: Question, query: str) -> Hop | None:
    """Return the hop that `query` asks: the first with a form equal to it, else None.

    Compared are lower-cased words; punctuation and spacing do not matter.
    """
    asked = _words(query)
    for hop in hops(question):
        if any(_words(form) == asked for form in hop.forms):
            return hop
    return None


def hop_meant(question: Question, query: str) -> Hop | None:
    """Return the hop that `query` asks, or, where it has words of its own, seems to ask.

    That is the hop one of whose forms shares the most words with it (Jaccard), of equals the first;
    words of three letters or fewer do not count. None where no hop shares any.
    """
    hop = hop_asked(question, query)
    if hop is not None:
        return hop
    said = _long_words(query)
    shares = [
        (max(_jaccard(said, _long_words(form)) for form in hop.forms), -hop.index, hop)
        for hop in hops(question)
    ]
    share, _, nearest = max(shares, key=lambda each: each[:2], default=(0.0, 0, None))
    return nearest if share else None


def _long_words(text: str) -> set[str]:
    return {word for word in _words(text).split() if len(word) > 3}


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one & other else 0.0


def _hop(index: int, line: _HopLine, before: Sequence[str]) -> Hop:
    asked = _fill(line.question, before)
    forms = dict.fromkeys([asked, *(_fill(query, before) for query in line.queries)])
    return Hop(index, asked, str(line.answer), str(line.passage_id), tuple(forms))


def _fill(text: str, answers: Sequence[str]) -> str:
    def answer(match: re.Match[str]) -> str:
        number = int(match.group(1))
        return answers[number - 1] if 1 <= number <= len(answers) else match.group()

    return _REFERENCE.sub(answer, text)


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _question(line: _Line, dataset: str, where: str) -> Question:
    if line.id is None or line.question is None or line.golden_answers is None:
        missing = [
            name for name in ("id", "question", "golden_answers") if getattr(line, name) is None
        ]
        raise DataError(f"{where}: got a line without {', '.join(missing)}; {_EXPECTED}")
    answers = _answers(line.golden_answers, line.choices or [], where)
    if not answers or not all(answer.strip() for answer in answers):
        raise DataError(
            f"{where}: got golden_answers {list(answers)}, expected at least one, none blank"
        )
    if not line.question.strip():
        raise DataError(f"{where}: got an empty question, expected text")
    metadata = line.metadata or {}
    text = line.question
    if line.choices:
        choices = [str(choice) for choice in line.choices]
        metadata = {**metadata, "choices": choices}
        text = with_choices(text, choices, where)
    return Question(str(line.id), text, answers, dataset, metadata)


def with_choices(text: str, choices: Sequence[str], where: str) -> str:
    """Return a question followed by its choices on one line, each behind its letter.

    Raises DataError where there are more choices than letters.
    """
    if len(choices) > len(ascii_uppercase):
        raise DataError(
            f"{where}: got {len(choices)} choices, expected at most {len(ascii_uppercase)}"
        )
    listed = (
        f"({letter}) {' '.join(choice.split())}"
        for letter, choice in zip(ascii_uppercase, choices, strict=False)
    )
    return " ".join([text.rstrip(), *listed])


def _answers(
    given: Sequence[str | int | float | bool], choices: Sequence[object], where: str
) -> tuple[str, ...]:
    """Write answers as texts, the place of a choice as the choice."""
    found = []
    for answer in given:
        if not choices or type(answer) is not int:
            found.append(str(answer))
        elif 0 <= answer < len(choices):
            found.append(str(choices[answer]))
        else:
            raise DataError(
                f"{where}: got answer {answer}, expected the place of one of {len(choices)} "
                f"choices, 0 to {len(choices) - 1}"
            )
    return tuple(found)


def _with_patterns(question: Question, where: str) -> Question:
    for answer in question.answers:
        try:
            re.compile(answer, re.IGNORECASE)
        except re.error as error:
            raise DataError(
                f"{where}: got answer {answer!r}, expected a regular expression ({error})"
            ) from None
    return msgspec.structs.replace(question, metadata={**question.metadata, "patterns": True})


def _count(size: int | float | None, total: int) -> int | None:
    if size is None or (isinstance(size, int) and size >= 0):
        return size
    if isinstance(size, float) and 0.0 <= size <= 1.0:
        return int(size * total + 1e-9)
    raise DataError(f"got a split size of {size}, expected a count, a fraction 0-1 or None")


def _take(groups: Iterable[list[int]], size: int | None) -> tuple[list[int], list[list[int]]]:
    """Take whole groups in order while they fit; return the rows taken and the groups left."""
    taken: list[int] = []
    left: list[list[int]] = []
    for group in groups:
        if size is None or len(taken) + len(group) <= size:
            taken.extend(group)
        else:
            left.append(group)
    return taken, left
