"""What the test server answers to the judge prompts: a rule in place of a large model."""

from __future__ import annotations

import re

from agentic_r.metrics import answer_in, normalise_answer

_QUERY = re.compile(r"^Search query: (.*)$", re.MULTILINE)
_PASSAGE = re.compile(r"^Passage \[\d+\]: (.*)$", re.MULTILINE)
_REFERENCE = re.compile(r"^Reference answer: (.*)$", re.MULTILINE)
_SEARCHES = re.compile(r"There are (\d+) search quer")
_ANSWERS = re.compile(r"^Correct answers: \[\"?(.*?)\"?[\],]", re.MULTILINE)


def reply(user: str) -> str:
    """Answer one user message of the judge's or of the sub-answers' prompt.

    A passage gets 60 to 100 where it holds the reference answer and 0 to 40 where not, by the
    share of the query's words in it. Of the searches, the last is told the first correct answer
    and the others "Not Sure". Anything else is answered "ok".
    """
    passages = _PASSAGE.findall(user)
    if passages:
        query = _line(_QUERY, user)
        reference = _line(_REFERENCE, user)
        return " ".join(str(_grade(passage, query, reference)) for passage in passages)
    searches = _SEARCHES.search(user)
    if searches:
        facts = ["Not Sure"] * (int(searches.group(1)) - 1) + [_line(_ANSWERS, user) or "Not Sure"]
        return " ".join(f"<sub-answer> {fact} </sub-answer>" for fact in facts)
    return "ok"


def _grade(passage: str, query: str, reference: str) -> int:
    words = normalise_answer(query).split()
    there = set(normalise_answer(passage).split())
    share = sum(word in there for word in words) / max(1, len(words))
    holds = bool(reference) and answer_in(passage, reference)
    return round(60 * holds + 40 * share)


def _line(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match.group(1).strip() if match else ""
