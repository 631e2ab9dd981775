"""Is an answer right? The one normaliser and the metrics that read it."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from agentic_r.types import Question

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WORD = re.compile(r"\w+")
_LETTER = re.compile(r"\s*(?:option\s+)?\(?([a-z])[).:]*(?:\s+(.*\S))?\s*", re.I | re.DOTALL)
_CLOSED = frozenset({"yes", "no", "noanswer"})


class Overlap(NamedTuple):
    """How far the words of a prediction and of an answer overlap, each figure 0-1."""

    f1: float
    precision: float
    recall: float


class Scores(NamedTuple):
    """One answer by every measure of the table, each 0-1; `acc` is upstream's cover EM."""

    em: float
    acc: float
    f1: float
    precision: float
    recall: float


def normalise_answer(s: str) -> str:
    """Lower-case, take out punctuation and a/an/the, collapse spaces (contracts A6)."""
    return " ".join(_ARTICLES.sub(" ", s.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str | None, answers: Sequence[str]) -> float:
    """Return 1.0 where the normalised prediction equals a normalised answer, else 0.0.

    No prediction, or a blank one, is 0.0 even for an answer that normalises to nothing.
    """
    if prediction is None or not prediction.strip():
        return 0.0
    said = normalise_answer(prediction)
    return float(any(said == normalise_answer(answer) for answer in answers))


def f1(prediction: str | None, answers: Sequence[str]) -> float:
    """Return the token F1 with the answer that fits best, 0-1 (contracts A6).

    Where either side is "yes", "no" or "noanswer", only equality counts.
    """
    return overlap(prediction, answers).f1


def overlap(prediction: str | None, answers: Sequence[str]) -> Overlap:
    """Compare words with every answer; each of the three figures is that of its best answer.

    So precision and recall may come from different answers, as upstream has it (contracts A6).
    """
    if prediction is None:
        return Overlap(0.0, 0.0, 0.0)
    said = normalise_answer(prediction)
    found = [_overlap(said, normalise_answer(answer)) for answer in answers]
    if not found:
        return Overlap(0.0, 0.0, 0.0)
    return Overlap(*(max(figures) for figures in zip(*found, strict=True)))


def cover_match(prediction: str | None, answers: Sequence[str]) -> float:
    """Return 1.0 where a normalised answer is a piece of the normalised prediction, else 0.0.

    Upstream's "acc": a plain substring, so "us" is in "campus". A blank prediction is 0.0.
    """
    if prediction is None or not prediction.strip():
        return 0.0
    said = normalise_answer(prediction)
    return float(any(normalise_answer(answer) in said for answer in answers))


def score_answer(
    prediction: str | None, answers: Sequence[str], *, patterns: bool = False
) -> Scores:
    """Measure one answer by all five figures of the paper's table.

    With `patterns` the answers are regular expressions (curatedtrec): EM needs one to match the
    whole normalised prediction, accuracy a part of it, capitals aside; the words of F1 are those
    of the expression itself, as upstream has it.
    """
    words = overlap(prediction, answers)
    if not patterns:
        em, accuracy = exact_match(prediction, answers), cover_match(prediction, answers)
        return Scores(em, accuracy, *words)
    said = normalise_answer(prediction or "")
    compiled = [re.compile(answer, re.IGNORECASE) for answer in answers] if said else []
    return Scores(
        float(any(pattern.fullmatch(said) for pattern in compiled)),
        float(any(pattern.search(said) for pattern in compiled)),
        *words,
    )


def score_question(question: Question, answer: str | None) -> Scores:
    """Measure an answer as its question wants it: text, a choice, or a regular expression.

    metadata["patterns"] says that the answers are expressions. With metadata["choices"] the letter
    of a choice, alone or before its text, counts as the choice.
    """
    choices = question.metadata.get("choices")
    if answer is not None and isinstance(choices, list):
        answer = chosen(answer, [str(choice) for choice in choices])
    patterns = question.metadata.get("patterns") is True
    return score_answer(answer, question.answers, patterns=patterns)


def chosen(answer: str, choices: Sequence[str]) -> str:
    """Return the choice that "B", "(B)" or "B. its text" names, else the answer as it is.

    An answer that is a choice's text is never read as a letter.
    """
    said = normalise_answer(answer)
    texts = [normalise_answer(choice) for choice in choices]
    found = _LETTER.fullmatch(answer)
    if found is None or (said and said in texts):
        return answer
    place = ord(found[1].lower()) - ord("a")
    if place < len(choices) and (not found[2] or normalise_answer(found[2]) == texts[place]):
        return choices[place]
    return answer


def answer_in(text: str, answer: str) -> bool:
    """Say whether `text` holds `answer`, compared after normalising and on word boundaries.

    Punctuation is read in both ways, as nothing ("U.S." holds "US") and as a space
    ("Paris-based" holds "Paris"). An answer without any word is never held.
    """
    return any_answer_in(text, [answer])


def any_answer_in(text: str, answers: Sequence[str]) -> bool:
    """Say whether `text` holds one of `answers`, each compared as `answer_in` does."""
    normal, plain = normalise_answer(text), " ".join(_WORD.findall(text.lower()))
    for answer in answers:
        wanted, words = normalise_answer(answer), " ".join(_WORD.findall(answer.lower()))
        if (wanted and _on_boundaries(wanted, normal)) or (words and _on_boundaries(words, plain)):
            return True
    return False


def can_be_found(answers: Sequence[str]) -> bool:
    """Say whether a passage could hold the answer; a "yes" or "no" is in the reader alone."""
    return any(normalise_answer(answer) not in _CLOSED for answer in answers)


def _on_boundaries(wanted: str, text: str) -> bool:
    return f" {wanted} " in f" {text} "


def _overlap(said: str, answer: str) -> Overlap:
    if said != answer and (said in _CLOSED or answer in _CLOSED):
        return Overlap(0.0, 0.0, 0.0)
    said_tokens, answer_tokens = said.split(), answer.split()
    same = sum((Counter(said_tokens) & Counter(answer_tokens)).values())
    if same == 0:
        return Overlap(0.0, 0.0, 0.0)
    precision, recall = same / len(said_tokens), same / len(answer_tokens)
    return Overlap(2 * precision * recall / (precision + recall), precision, recall)
