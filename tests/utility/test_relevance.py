from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from agentic_r.errors import JudgeError, LLMError, OutageError
from agentic_r.protocols import JudgeRequest
from agentic_r.types import Candidate, Passage, Question, Search, Trajectory, Turn
from agentic_r.utility.relevance import grade, graded, reasoning
from agentic_r.utility.tally import count


class Judge:
    """Scores by the length of the list, and remembers what it was told."""

    def __init__(self, scores: Sequence[float | None] = (50.0,), fails: str = "") -> None:
        self.scores = list(scores)
        self.fails = fails
        self.requests: list[JudgeRequest] = []
        self.closed = 0

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        self.requests.append(request)
        if self.fails and self.fails in request.query:
            raise LLMError("refused")
        return self.scores

    async def aclose(self) -> None:
        self.closed += 1


class Sub:
    """One sub-answer per search: the query in capitals."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
        self.asked.append(trajectory.id)
        if trajectory.id == "bad":
            raise LLMError("nonsense")
        return [search.query.upper() for search in trajectory.searches]


def places(name: str, *queries: str) -> list[tuple[Trajectory, int]]:
    turns = tuple(
        Turn(f"<search>{query}</search>", "search", (Search(query, query),), observation="shown")
        for query in queries
    )
    question = Question("q", "Who?", ("x",), metadata={"hops": ["secret"]})
    trajectory = Trajectory(name, question, turns)
    return [(trajectory, number) for number in range(len(queries))]


def found(where: Sequence[tuple[Trajectory, int]]) -> list[list[Candidate]]:
    return [[Candidate(each.id, n, Passage("gold-7", "text", "Title"), 0)] for each, n in where]


def test_the_judge_is_told_texts_and_the_sub_answer_and_nothing_else() -> None:
    judge, sub, where = Judge(), Sub(), places("t", "a", "b")
    results = asyncio.run(grade(where, found(where), judge, sub))
    assert [each.subanswer for each in results] == ["A", "B"]
    assert sub.asked == ["t"]
    assert judge.requests[1] == JudgeRequest(
        "Who?", ("x",), "b", "B", "<search>a</search>shown<search>b</search>shown", ("Title\ntext",)
    )


def test_one_failure_costs_one_search_and_a_bad_trajectory_its_own() -> None:
    where = [*places("t", "a", "b"), *places("bad", "c")]
    results = asyncio.run(grade(where, found(where), Judge(fails="b"), Sub()))
    assert [each.relevance for each in results] == [(50.0,), (None,), (None,)]
    assert [each.error for each in results] == ["", "refused", "nonsense"]


def test_only_failures_mean_that_the_server_is_down() -> None:
    few, many = places("t", *["b"] * 7), places("t", *["b"] * 8)
    assert len(asyncio.run(grade(few, found(few), Judge(fails="b"), Sub()))) == 7
    with pytest.raises(LLMError, match=r"8 of 8 requests of the judge failed.* refused; nothing"):
        asyncio.run(grade(many, found(many), Judge(fails="b"), Sub()))
    half, most = places("t", *"bbbb", *"aaaa"), places("t", *"bbbbb", *"aaaa")
    assert len(asyncio.run(grade(half, found(half), Judge(fails="b"), Sub()))) == 8
    with pytest.raises(LLMError, match="5 of 9 requests of the judge failed"):
        asyncio.run(grade(most, found(most), Judge(fails="b"), Sub()))


def test_what_would_fail_again_does_not_mean_that_the_server_is_down() -> None:
    class Unreadable(Sub):
        async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
            raise JudgeError("miscounted twice")

    where = [place for name in "abcdefghij" for place in places(name, "a")]
    results = asyncio.run(grade(where, found(where), Judge(), Unreadable()))
    assert {each.error for each in results} == {"miscounted twice"}


def test_a_judge_that_miscounts_is_a_bug_and_connections_are_closed() -> None:
    judge, where = Judge(scores=(1.0, 2.0)), places("t", "a")
    with pytest.raises(ValueError, match="got 2 scores, expected 1"):
        graded(where, found(where), judge, Sub())
    assert judge.closed == 1


def test_one_outage_stops_everything() -> None:
    class Down(Judge):
        async def relevance(self, request: JudgeRequest) -> list[float | None]:
            if request.query == "b":
                raise OutageError("no connection")
            return await super().relevance(request)

    where = places("t", "a", "b")
    with pytest.raises(OutageError, match="no connection"):
        graded(where, found(where), Down(), Sub())


def test_calls_are_counted_for_the_search_that_caused_them() -> None:
    class Counting(Judge):
        async def relevance(self, request: JudgeRequest) -> list[float | None]:
            for _ in range(2 if request.query == "b" else 1):
                count("judge")
            return await super().relevance(request)

    class Asked(Sub):
        async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
            count("subanswers")
            return await super().subanswers(trajectory)

    where = [*places("t", "a", "b"), *places("bad", "c"), *places("u", "b")]
    results = asyncio.run(grade(where, found(where), Counting(), Asked()))
    assert [each.judge_calls for each in results] == [1, 2, 0, 2]
    assert [each.subanswer_calls for each in results] == [1, 0, 1, 1]
    assert results[2].error == "nonsense", "a call that failed was made all the same"


def test_only_a_judge_that_reads_annotation_is_told_ids_and_metadata() -> None:
    class Gold(Judge):
        async def annotated(
            self, question: Question, request: JudgeRequest, ids: tuple[str, ...]
        ) -> list[float | None]:
            assert question.metadata == {"hops": ["secret"]}
            return [100.0 if id == "gold-7" else 0.0 for id in ids]

    where = places("t", "a")
    assert asyncio.run(grade(where, found(where), Gold(), Sub()))[0].relevance == (100.0,)


def test_the_reasoning_is_what_stands_before_the_query_in_its_turn() -> None:
    turns = (
        Turn("<think> first who </think> <search> who </search>", "search", (Search("who", "s"),)),
        Turn(
            "<think> x </think> <search>a; b</search>",
            "search",
            (Search("a", "s"), Search("b", "s")),
        ),
        Turn("odd", "search", (Search("gone", "s"),)),
    )
    trajectory = Trajectory("t", Question("q", "Who?", ("x",)), turns)
    assert [reasoning(trajectory, n) for n in range(4)] == ["first who", "x", "x a;", "odd"]
    with pytest.raises(IndexError, match="has 4 searches"):
        reasoning(trajectory, 4)
