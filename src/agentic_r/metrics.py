"""Is an answer right? The one normaliser and the metrics that read it."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WORD = re.compile(r"\w+")
_CLOSED = frozenset({"yes", "no", "noanswer"})


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
    if prediction is None:
        return 0.0
    said = normalise_answer(prediction)
    return max((_token_f1(said, normalise_answer(answer)) for answer in answers), default=0.0)


def answer_in(text: str, answer: str) -> bool:
    """Say whether `text` holds `answer`, compared after normalising and on word boundaries.

    Punctuation is read in both ways, as nothing ("U.S." holds "US") and as a space
    ("Paris-based" holds "Paris"). An answer without any word is never held.
    """
    wanted = normalise_answer(answer)
    if wanted and _on_boundaries(wanted, normalise_answer(text)):
        return True
    words = " ".join(_WORD.findall(answer.lower()))
    return bool(words) and _on_boundaries(words, " ".join(_WORD.findall(text.lower())))


def _on_boundaries(wanted: str, text: str) -> bool:
    return f" {wanted} " in f" {text} "


def _token_f1(said: str, answer: str) -> float:
    if said != answer and (said in _CLOSED or answer in _CLOSED):
        return 0.0
    said_tokens, answer_tokens = said.split(), answer.split()
    same = sum((Counter(said_tokens) & Counter(answer_tokens)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(said_tokens), same / len(answer_tokens)
    return 2 * precision * recall / (precision + recall)
