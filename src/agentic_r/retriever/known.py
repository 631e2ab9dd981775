"""Queries whose answer is known: runs of words cut out of passages of the corpus itself."""

from __future__ import annotations

import random

from agentic_r.data.corpus import Corpus

QUERIES = 256
_WORDS = 8


def known_rows(corpus: Corpus, count: int = QUERIES, seed: int = 0) -> list[int]:
    """Draw the rows that queries are cut from, in order; the same seed draws the same."""
    drawn = random.Random(f"known items:{seed}").sample(range(len(corpus)), min(count, len(corpus)))
    return sorted(drawn)


def known_items(corpus: Corpus, count: int = QUERIES, seed: int = 0) -> list[str]:
    """Return a run of eight words out of each drawn passage: about what an agent would send."""
    queries = []
    for row in known_rows(corpus, count, seed):
        words = corpus[row].contents.split()
        start = random.Random(f"{seed}:{row}").randrange(max(1, len(words) - _WORDS + 1))
        queries.append(" ".join(words[start : start + _WORDS]))
    return queries
