from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.errors import LLMError
from agentic_r.types import Candidate, Hit, Passage, Question, Search, Trajectory, Turn, Utility
from agentic_r.utility.continuation import (
    WITHOUT,
    Measurement,
    Protocol,
    ScoredSearch,
    measure,
    start,
)
from agentic_r.utility.select import UpstreamRule, select

RULE = UpstreamRule(negatives=5)
BASE = Protocol(baseline=True)
Table = list[tuple[float | None, float | None]]


def searched(table: Table, name: str = "t") -> ScoredSearch:
    """One search whose candidate of rank r has the relevance of table row r."""
    question = Question(name, "Who?", ("right",))
    turn = Turn(
        "<search>who</search>", "search", (Search("who", "who", (Hit(Passage("x", "old"), 1.0),)),)
    )
    candidates = tuple(
        Candidate(name, 0, Passage(str(rank), "text"), rank) for rank in range(len(table))
    )
    rows = tuple(
        Utility(name, 0, "who", str(rank), rank, relevance, None, "failed: unread")
        if relevance is None
        else Utility(name, 0, "who", str(rank), rank, relevance, None, "not needed")
        for rank, (relevance, _) in enumerate(table)
    )
    return ScoredSearch(Trajectory(name, question, (turn,), "answered"), 0, candidates, rows)


def measured(of: Measurement) -> dict[int, float | None]:
    """Correctness by rank of what was continued, None where that failed."""
    return {
        row.rank: row.correctness
        for row in of.rows
        if row.correctness is not None or (row.failed and row.relevance is not None)
    }


class TableAgent:
    """Ends every start with the correctness that the tables hold; None is a failure."""

    def __init__(self, tables: dict[str, Table]) -> None:
        self.tables = tables
        self.calls: list[list[tuple[str, int]]] = []

    def __call__(self, starts: Sequence[Trajectory]) -> list[Trajectory]:
        keys = [(start.question.id, int(start.searches[-1].hits[0].passage.id)) for start in starts]
        self.calls.append(keys)
        return [self.end(start, *key) for start, key in zip(starts, keys, strict=True)]

    def end(self, start: Trajectory, name: str, rank: int) -> Trajectory:
        value = self.tables[name][rank][1]
        if value is None:
            return msgspec.structs.replace(start, stop="error", error="gone")
        turn = Turn(str(value), "answer", answer=str(value))
        return msgspec.structs.replace(start, turns=(*start.turns, turn), stop="answered")


def reward(question: Question, answer: str | None) -> float:
    return float(answer or 0.0)


relevances = st.one_of(st.none(), st.sampled_from((0.0, 20.0, 59.0, 60.0, 75.0, 90.0, 100.0)))
outcomes = st.sampled_from((0.0, 0.0, 1.0, None))
graded = st.sampled_from((0.0, 0.0, 0.4, 0.7, 1.0, None))


@given(
    st.lists(
        st.one_of(
            st.lists(st.tuples(relevances, outcomes), max_size=20),
            st.lists(st.tuples(relevances, graded), max_size=20),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_lazy_measuring_selects_exactly_what_exhaustive_measuring_selects(
    tables: list[Table],
) -> None:
    searches = [searched(table, f"t{n}") for n, table in enumerate(tables)]
    named = {f"t{n}": table for n, table in enumerate(tables)}
    lazy = measure(searches, TableAgent(named), reward, rule=RULE, outage=10**6)
    every = Protocol(exhaustive=True)
    full = measure(searches, TableAgent(named), reward, rule=RULE, protocol=every, outage=10**6)
    for search, some, all_ in zip(searches, lazy, full, strict=True):
        assert len(all_.samples) == len(search.candidates)
        assert some.continuations <= all_.continuations
        assert all(measured(all_)[rank] == value for rank, value in measured(some).items())
        assert select("d", "q", some.rows, rule=RULE) == select("d", "q", all_.rows, rule=RULE)


def test_one_whole_level_at_a_time_from_the_top_until_a_correct_answer() -> None:
    table: Table = [(70, 1), (90, 0), (70, 0), (80, 0), (70, 1), (60, 1), (10, 1), (0, 0), (0, 0)]
    agent = TableAgent({"t": table})
    (result,) = measure([searched(table)], agent, reward, rule=UpstreamRule(negatives=3))
    assert agent.calls == [[("t", 1)], [("t", 3)], [("t", 0), ("t", 2), ("t", 4)]]
    assert measured(result) == {1: 0.0, 3: 0.0, 0: 1.0, 2: 0.0, 4: 1.0}
    assert sorted(result.ends) == [0, 4]
    assert result.continuations == 5


def test_levels_of_many_searches_share_their_batches() -> None:
    tables: dict[str, Table] = {
        f"t{n}": [(90.0, 0.0), (80.0, float(n % 2)), (70.0, 1.0), *[(0.0, 0.0)] * 5]
        for n in range(6)
    }
    agent = TableAgent(tables)
    measure([searched(table, name) for name, table in tables.items()], agent, reward, rule=RULE)
    assert [len(call) for call in agent.calls] == [6, 6, 3]


@pytest.mark.parametrize(
    "table",
    [
        [(59.9, 1.0)] * 10,
        [(90.0, 1.0)] * 5,
        [(90.0, 1.0), *[(None, 1.0)] * 9],
        [(None, 1.0)] * 10,
        [],
    ],
)
def test_a_search_that_is_certainly_lost_costs_nothing(table: Table) -> None:
    agent = TableAgent({"t": table})
    (result,) = measure([searched(table)], agent, reward, rule=RULE)
    assert agent.calls == []
    assert measured(result) == {}


def test_a_failed_continuation_is_tried_once_more() -> None:
    table: Table = [(90.0, 1.0), (90.0, 0.0), *[(0.0, 0.0)] * 6]
    agent = TableAgent({"t": table})

    def once(starts: Sequence[Trajectory]) -> list[Trajectory]:
        ends = agent(starts)
        if len(agent.calls) == 1:
            ends[0] = msgspec.structs.replace(starts[0], stop="error", error="gone")
        return ends

    (result,) = measure([searched(table)], once, reward, rule=RULE)
    assert agent.calls == [[("t", 0), ("t", 1)], [("t", 0)]]
    assert measured(result) == {0: 1.0, 1: 0.0}
    assert (result.rows[0].why, result.continuations) == ("measured", 3)


def test_a_continuation_that_fails_twice_is_recorded_with_its_reason() -> None:
    table: Table = [(90.0, None), (90.0, 1.0), *[(0.0, 0.0)] * 6]
    (result,) = measure([searched(table)], TableAgent({"t": table}), reward, rule=RULE)
    assert result.rows[0].why == "failed: gone"
    assert measured(result) == {0: None, 1: 1.0}


def test_a_round_of_failures_only_is_an_outage() -> None:
    table: Table = [(90.0, None)] * 8 + [(0.0, 0.0)] * 6
    with pytest.raises(LLMError, match="all 8 continuations of a round failed: gone"):
        measure([searched(table)], TableAgent({"t": table}), reward, rule=RULE)


def test_the_start_keeps_the_history_and_shows_the_candidate_alone() -> None:
    seen: list[Trajectory] = []
    table: Table = [(90.0, 1.0), *[(0.0, 0.0)] * 6]
    agent = TableAgent({"t": table})

    def spy(starts: Sequence[Trajectory]) -> list[Trajectory]:
        seen.extend(starts)
        return agent(starts)

    measure([searched(table)], spy, reward, rule=RULE)
    (start,) = seen
    assert start.id == "t+s0r0"
    assert start.stop is None
    assert start.turns[-1].observation is None
    assert [hit.passage.id for hit in start.searches[0].hits] == ["0"]


def test_a_wrong_number_of_ends_and_a_reward_outside_its_range_are_refused() -> None:
    table: Table = [(90.0, 2.0), *[(0.0, 0.0)] * 6]
    with pytest.raises(ValueError, match="got 0 trajectories, expected 1"):
        measure([searched(table)], lambda starts: [], reward, rule=RULE)
    with pytest.raises(ValueError, match=r"got 2\.0, expected a number between 0 and 1"):
        measure([searched(table)], TableAgent({"t": table}), reward, rule=RULE)


class Sampler(TableAgent):
    """Ends sample n of rank r with the n-th number of a list, and one more search each time."""

    def __init__(self, values: dict[int, list[float | None]]) -> None:
        super().__init__({})
        self.values = values
        self.names: list[str] = []

    def __call__(self, starts: Sequence[Trajectory]) -> list[Trajectory]:
        self.names += [start.id for start in starts]
        return [self.one(start) for start in starts]

    def one(self, start: Trajectory) -> Trajectory:
        place, _, number = start.id.partition("+s0")[2].partition(".")
        rank = WITHOUT if place == "b" else int(place[1:])
        value = self.values[rank][int(number or 0)]
        if value is None:
            return msgspec.structs.replace(start, stop="error", error="gone")
        more = Turn("<search>x</search>", "search", (Search("x", "x"),) * int(number or 0))
        turn = Turn(str(value), "answer", answer=str(value))
        return msgspec.structs.replace(start, turns=(*start.turns, more, turn), stop="answered")


def test_samples_are_averaged_and_a_lost_one_is_left_out() -> None:
    table: Table = [(90.0, 0.0), (80.0, 0.0), *[(0.0, 0.0)] * 6]
    agent = Sampler({0: [1.0, 0.0, 0.5], 1: [1.0, None, 1.0]})
    (result,) = measure([searched(table)], agent, reward, rule=RULE, protocol=Protocol(samples=3))
    assert agent.names[:3] == ["t+s0r0.0", "t+s0r0.1", "t+s0r0.2"]
    assert measured(result) == {0: 0.5, 1: 1.0}
    assert [row.further for row in result.rows[:2]] == [1.0, 1.0]
    assert result.continuations == 7, "the failed sample was tried twice"


def test_the_baseline_comes_first_and_can_decide_alone() -> None:
    table: Table = [(90.0, 0.0), *[(0.0, 0.0)] * 6]
    known = Sampler({WITHOUT: [1.0], 0: [1.0]})
    (result,) = measure(
        [searched(table)], known, reward, rule=RULE, protocol=Protocol(baseline=True)
    )
    assert known.names == ["t+s0b"]
    assert {row.baseline for row in result.rows} == {1.0}
    useful = Sampler({WITHOUT: [0.0], 0: [1.0]})
    (result,) = measure([searched(table)], useful, reward, rule=RULE, protocol=BASE)
    assert useful.names == ["t+s0b", "t+s0r0"]
    assert (result.rows[0].gain, result.continuations) == (1.0, 2)
    lost = Sampler({WITHOUT: [None], 0: [1.0]})
    (result,) = measure(
        [searched(table)], lost, reward, rule=RULE, protocol=Protocol(baseline=True)
    )
    assert lost.names == ["t+s0b", "t+s0b"]
    assert RULE.verdict(result.rows).reason == "not measured"


@given(
    st.lists(st.tuples(relevances, st.sampled_from((0.0, 0.4, 1.0, None))), max_size=12),
    st.sampled_from((0.0, 0.4, 1.0, None)),
)
def test_lazy_equals_exhaustive_with_a_baseline_too(table: Table, base: float | None) -> None:
    values = {rank: [value] for rank, (_, value) in enumerate(table)} | {WITHOUT: [base]}
    chosen = []
    for exhaustive in (False, True):
        how = Protocol(baseline=True, exhaustive=exhaustive)
        (of,) = measure(
            [searched(table)], Sampler(values), reward, rule=RULE, protocol=how, outage=10**6
        )
        chosen.append(select("d", "q", of.rows, rule=RULE))
    assert chosen[0] == chosen[1]


def shown(evidence: str, rank: int, *ids: str) -> list[str]:
    """What is shown for a candidate (its rank is its id) of a search that had found `ids`."""
    search = searched([(90.0, 0.0)] * 4)
    found = tuple(Hit(Passage(id, "text"), 1.0) for id in ids)
    where = msgspec.structs.replace(search, trajectory=search.trajectory.cut(0, found))
    how = Protocol(evidence="alone" if evidence == "alone" else "in-place")
    return [hit.passage.id for hit in start(where, rank, 0, how).searches[0].hits]


def test_evidence_is_the_passage_alone_or_in_place_of_the_top_hit() -> None:
    assert shown("alone", 2, "x", "y", "z") == ["2"]
    assert shown("alone", WITHOUT, "x", "y", "z") == []
    assert shown("in-place", 2, "x", "y", "z") == ["2", "y", "z"]
    assert shown("in-place", 2, "x", "y", "2") == ["2", "y", "x"], "the two change places"
    assert shown("in-place", 2, "2", "y", "z") == ["2", "y", "z"]
    assert shown("in-place", WITHOUT, "x", "y", "z") == ["y", "z"]
    assert shown("in-place", 2) == ["2"]


@pytest.mark.parametrize(
    ("protocol", "whole"),
    [(Protocol(), 20), (Protocol(samples=3), 60), (Protocol(samples=3, baseline=True), 63)],
)
def test_what_trying_all_takes_counts_samples_and_the_baseline(
    protocol: Protocol, whole: int
) -> None:
    assert (protocol.whole(20), protocol.whole(0)) == (whole, 0)
