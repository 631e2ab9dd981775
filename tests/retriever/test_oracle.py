from __future__ import annotations

from collections.abc import Sequence

import pytest

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError
from agentic_r.retriever.oracle import OracleRetriever
from agentic_r.types import Hit, Passage, Question

CORPUS = Corpus([Passage(str(i), f"text {i}") for i in range(6)])


def question(gold: str = "4") -> Question:
    hops = [
        {"question": "who made Alpha", "answer": "Kavron", "passage_id": gold},
        {"question": "where was #1 born", "answer": "Lima", "passage_id": "1"},
    ]
    return Question("q", "Where was the maker of Alpha born?", ("Lima",), "d", {"hops": hops})


class Inner:
    """Returns the corpus in order and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        self.asked += queries
        return [[Hit(CORPUS[i], 1 - i / 10) for i in range(min(k, 6))] for _ in queries]


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.passage.id for hit in hits]


def ask(query: str) -> str:
    return f"{question().text} [SEP] {query}"


def test_the_gold_passage_comes_first_and_the_rest_is_the_inner_top() -> None:
    oracle = OracleRetriever([question()], Inner(), CORPUS)
    found = oracle.search([ask("Who made Alpha?"), ask("where was Kavron born")], 3)
    assert ids(found[0]) == ["4", "0", "1"]
    assert ids(found[1]) == ["1", "0", "2"]
    assert ids(oracle.search([ask("who made alpha")], 1)[0]) == ["4"]
    for hits in found:
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_query_that_asks_no_hop_gets_the_inner_hits() -> None:
    inner = Inner()
    assert ids(OracleRetriever([question()], inner, CORPUS).search([ask("what else")], 2)[0]) == [
        "0",
        "1",
    ]
    assert inner.asked == [ask("what else")]


def test_random_places_are_seeded_and_spread() -> None:
    # A trailing comma or space still asks the same hop, and the string decides the place.
    queries = [ask("who made Alpha" + " " * i) for i in range(60)]

    def places(seed: int) -> list[int]:
        oracle = OracleRetriever([question()], Inner(), CORPUS, place="random", seed=seed)
        found = oracle.search(queries, 3)
        assert all(sorted(ids(hits)) == ["0", "1", "4"] for hits in found)
        assert all(hits[0].score >= hits[1].score >= hits[2].score for hits in found)
        return [ids(hits).index("4") for hits in found]

    assert places(0) == places(0) != places(1)
    assert {0, 1, 2} == set(places(0))


def test_the_inner_retriever_can_be_sent_the_query_alone() -> None:
    inner = Inner()
    OracleRetriever([question()], inner, CORPUS, inner_input="query").search([ask("who")], 2)
    assert inner.asked == ["who"]


def test_a_separator_in_the_models_query_does_not_confuse_it() -> None:
    inner = Inner()
    oracle = OracleRetriever([question()], inner, CORPUS, inner_input="query")
    oracle.search([ask("a [SEP] b"), ask("")], 1)
    assert inner.asked == ["a [SEP] b", ""]


def test_what_the_oracle_cannot_know_is_refused() -> None:
    with pytest.raises(ConfigError, match="question\\+query"):
        OracleRetriever([question()], Inner(), CORPUS).search(["who made Alpha"], 2)
    with pytest.raises(ConfigError, match="place"):
        OracleRetriever([], Inner(), CORPUS, place="last")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'gone'"):
        OracleRetriever([question("gone")], Inner(), CORPUS).search([ask("who made alpha")], 2)
