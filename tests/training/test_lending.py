"""A retriever that several processes share."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Client
from threading import Thread
from typing import Any

import pytest

from agentic_r.errors import OutageError
from agentic_r.testing import TableRetriever
from agentic_r.training.lending import Borrowed, lent
from agentic_r.types import Hit, Passage

PASSAGES = [Passage("p", "text </information> of one", "A"), Passage("q", "another", "")]


class Failing:
    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        raise ValueError("no index")


def test_what_is_borrowed_finds_what_its_owner_finds() -> None:
    owner = TableRetriever({"a": PASSAGES[1:]}, PASSAGES)
    with lent(owner) as (own, borrowed):
        for queries in (["a"], ["b", "a", "é"], []):
            assert borrowed.search(queries, 2) == own.search(queries, 2) == owner.search(queries, 2)


def test_several_may_ask_at_once_and_one_is_answered_at_a_time() -> None:
    under_way: list[int] = []

    class Slow(TableRetriever):
        def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
            under_way.append(1)
            assert len(under_way) == 1
            found = super().search(queries, k)
            under_way.pop()
            return found

    answers: list[Any] = []
    with lent(Slow({}, PASSAGES)) as (_, borrowed):

        def ask() -> None:
            line = Borrowed(borrowed._address, borrowed._key)
            answers.extend(line.search([str(n)], 1) for n in range(20))

        threads = [Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 80


def test_a_failed_search_is_told_with_its_reason() -> None:
    with (
        lent(Failing()) as (_, borrowed),
        pytest.raises(OutageError, match="cannot search: ValueError: no index"),
    ):
        borrowed.search(["a"], 1)


def test_whoever_lacks_the_key_is_turned_away_and_the_others_are_served() -> None:
    with lent(TableRetriever({}, PASSAGES)) as (own, borrowed):
        with pytest.raises(Exception, match="digest"):
            Client(borrowed._address, authkey=b"guess")
        assert borrowed.search(["a"], 1) == own.search(["a"], 1)


def test_an_owner_that_is_gone_is_an_outage() -> None:
    with lent(TableRetriever({}, PASSAGES)) as (_, borrowed):
        pass
    with pytest.raises(OutageError, match="does not answer searches"):
        borrowed.search(["a"], 1)
