"""The oracle: what the agent could reach if every search that asks a gold hop found it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import msgspec

from agentic_r.data.corpus import Corpus
from agentic_r.data.questions import Hop, hop_asked, hop_meant
from agentic_r.errors import ConfigError
from agentic_r.protocols import SEPARATOR, Retriever
from agentic_r.types import Hit, Question


class OracleRetriever:
    """Puts the gold passage of the asked hop among the hits of another retriever.

    It reads the question from the string it is sent, so it needs the input "question+query".
    `place` says where the gold passage goes: "first", or "random" among the k, drawn by `seed`
    and the string. The other k-1 are the inner retriever's best for the same string, or for
    the query alone with `inner_input` = "query". With `meant` a query in words of its own gets the
    passage of the hop that it seems to ask (`hop_meant`).
    """

    def __init__(
        self,
        questions: Sequence[Question],
        inner: Retriever,
        corpus: Corpus,
        *,
        place: Literal["first", "random"] = "first",
        seed: int = 0,
        inner_input: Literal["question+query", "query"] = "question+query",
        meant: bool = False,
    ) -> None:
        if place not in {"first", "random"}:
            raise ConfigError(f'oracle: got place {place!r}, expected "first" or "random"')
        self._questions: dict[str, list[Question]] = {}
        for question in questions:
            self._questions.setdefault(_bare(question.text), []).append(question)
        self._inner = inner
        self._corpus = corpus
        self._place = place
        self._seed = seed
        self._inner_input = inner_input
        self._hop = hop_meant if meant else hop_asked

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return k hits for each "question [SEP] query", gold among them where a hop is asked.

        A query that asks no hop gets the inner retriever's hits. Raises ConfigError for a string
        whose question is not one of `questions`, DataError for a gold passage that the corpus
        lacks.
        """
        asked = [self._asked(sent) for sent in queries]
        inner_queries = (
            [query for _, query in asked] if self._inner_input == "query" else list(queries)
        )
        found = self._inner.search(inner_queries, k)
        return [
            hits if hop is None or not hop.passage_id else self._with_gold(hits, hop, sent, k)
            for sent, (hop, _), hits in zip(queries, asked, found, strict=True)
        ]

    def _asked(self, sent: str) -> tuple[Hop | None, str]:
        # The query is the model's own text and may hold a separator, so each one is tried.
        parts = sent.split(SEPARATOR)
        for cut in range(len(parts) - 1, 0, -1):
            query = SEPARATOR.join(parts[cut:])
            questions = self._questions.get(_bare(SEPARATOR.join(parts[:cut])))
            if questions is not None:
                hops = (self._hop(question, query) for question in questions)
                return next((hop for hop in hops if hop is not None), None), query
        raise ConfigError(
            f"oracle: got {sent[:80]!r}, expected one of its {len(self._questions)} questions, "
            f'then {SEPARATOR!r} and the query; set retriever.input to "question+query" for it'
        )

    def _with_gold(self, hits: list[Hit], hop: Hop, sent: str, k: int) -> list[Hit]:
        gold = self._corpus.get(hop.passage_id)
        others = [hit for hit in hits if hit.passage.id != gold.id][: k - 1]
        at = 0
        if self._place == "random":
            at = random.Random(f"{self._seed}:{sent}").randint(0, len(others))
        # The score of the rank it takes: scores still fall from first to last.
        return [*others[:at], msgspec.structs.replace(hits[at], passage=gold), *others[at:]]


def _bare(question: str) -> str:
    """A question as dialects may put it: some add a question mark."""
    return question.strip().rstrip("?").rstrip()
