from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.errors import LLMError
from agentic_r.types import Candidate, Hit, Passage, Question, Search, Trajectory, Turn, Utility
from agentic_r.utility.continuation import Measurement, Scored, ScoredSearch, measure, next_level
from agentic_r.utility.select import UpstreamRule, select

RULE = UpstreamRule(negatives=5)
Table = list[tuple[float | None, float | None]]


def searched(table: Table, name: str = "t") -> ScoredSearch:
    """One search whose candidate of rank r has the relevance of table row r."""
    question = Question(name, "Who?", ("right",))
    turn = Turn(
        "<search>who</search>", "search", (Search("who", "who", (Hit(Passage("x", "old"), 1.0),)),)
    )
    scored = tuple(
        Scored(Candidate(name, 0, Passage(str(rank), "text"), rank), relevance)
        for rank, (relevance, _) in enumerate(table)
    )
    return ScoredSearch(Trajectory(name, question, (turn,), "answered"), 0, scored)


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


def table_utilities(search: ScoredSearch, of: Measurement) -> list[Utility]:
    rows = []
    for each in search.scored:
        rank = each.candidate.rank
        why = "failed: gone" if rank in of.failed else "measured or not needed"
        rows.append(
            Utility("t", 0, "who", str(rank), rank, each.relevance, of.measured.get(rank), why)
        )
    return rows


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
    full = measure(searches, TableAgent(named), reward, rule=RULE, exhaustive=True, outage=10**6)
    for search, some, every in zip(searches, lazy, full, strict=True):
        assert len(every.measured) == len(search.scored)
        assert some.continuations <= every.continuations
        assert all(every.measured[rank] == value for rank, value in some.measured.items())
        chosen = select("d", "q", table_utilities(search, some), rule=RULE)
        assert chosen == select("d", "q", table_utilities(search, every), rule=RULE)


def test_one_whole_level_at_a_time_from_the_top_until_a_correct_answer() -> None:
    table: Table = [(70, 1), (90, 0), (70, 0), (80, 0), (70, 1), (60, 1), (10, 1), (0, 0), (0, 0)]
    agent = TableAgent({"t": table})
    (result,) = measure([searched(table)], agent, reward, rule=UpstreamRule(negatives=3))
    assert agent.calls == [[("t", 1)], [("t", 3)], [("t", 0), ("t", 2), ("t", 4)]]
    assert result.measured == {1: 0.0, 3: 0.0, 0: 1.0, 2: 0.0, 4: 1.0}
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
    assert result.measured == {}


def test_next_level_is_a_pure_function_of_what_is_known() -> None:
    scored = searched([(90.0, 0.0), (80.0, 0.0), (90.0, 0.0), *[(0.0, 0.0)] * 5]).scored
    assert [each.rank for each in next_level(scored, {}, RULE)] == [0, 2]
    assert [each.rank for each in next_level(scored, {0: 0.0}, RULE)] == [2]
    assert [each.rank for each in next_level(scored, {0: 0.0, 2: 0.0}, RULE)] == [1]
    assert next_level(scored, {0: 1.0, 2: 0.0}, RULE) == []
    assert next_level(scored, {0: 1.0, 2: None}, RULE) == []


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
    assert result.measured == {0: 1.0, 1: 0.0}
    assert (result.failed, result.continuations) == ({}, 3)


def test_a_continuation_that_fails_twice_is_recorded_with_its_reason() -> None:
    table: Table = [(90.0, None), (90.0, 1.0), *[(0.0, 0.0)] * 6]
    (result,) = measure([searched(table)], TableAgent({"t": table}), reward, rule=RULE)
    assert result.failed == {0: "gone"}
    assert result.measured == {0: None, 1: 1.0}


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
