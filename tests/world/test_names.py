from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.world import AGENT, HELD_OUT, Pool, World
from agentic_r.world.names import FIRST, SECOND, Namer, pool_of, words

from .conftest import Worlds

AGENT_WORDS = frozenset(words(AGENT))


def texts(world: World) -> list[str]:
    """Everything of a world that an agent or a retriever may read."""
    passages = [passage.contents for passage in world.corpus]
    questions = [question for part in world.questions.values() for question in part]
    hops = [hop for question in questions for hop in question.metadata["hops"]]
    return [
        *passages,
        *(question.text for question in questions),
        *(answer for question in questions for answer in question.answers),
        *(query for hop in hops for query in (hop["question"], *hop["queries"])),
    ]


def words_of(world: World) -> set[str]:
    return {word for text in texts(world) for word in re.findall(r"\w+", text)}


def names_of(world: World) -> set[str]:
    """The name words of a world: of its entities and of the values that are names."""
    named = [entity.name for entity in world.entities]
    named += [f.value for f in world.facts.values() if f.relation.value != "year"]
    return {word for name in named for word in name.split()}


def test_the_pools_share_no_word_and_leave_none_out() -> None:
    agent, held_out = set(words(AGENT)), set(words(HELD_OUT))
    assert agent & held_out == set()
    assert agent | held_out == {a + b for a in FIRST for b in SECOND}
    assert min(len(agent), len(held_out)) > 1400


@given(st.sampled_from(FIRST), st.sampled_from(SECOND))
def test_a_word_is_in_the_same_pool_however_it_is_written(first: str, second: str) -> None:
    word = first + second
    assert pool_of(word) == pool_of(word.upper()) == pool_of(word.lower())
    assert (word in AGENT_WORDS) == (pool_of(word) == AGENT)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_name_of_a_quickstart_world_occurs_in_any_world_of_the_agent(
    worlds: Worlds, seed: int
) -> None:
    quickstart = worlds(seed)
    names = names_of(quickstart)
    assert len(names) > 300
    # Not only these worlds: the agent's worlds draw from a list that has none of the words.
    assert names & set(words(AGENT)) == set()
    for other in range(3):
        lessons = worlds(1000 + other, AGENT)
        assert names & words_of(lessons) == set()
        assert names_of(lessons) & words_of(quickstart) == set()


@pytest.mark.parametrize("pool", [AGENT, HELD_OUT])
def test_no_word_of_the_other_pool_stands_anywhere_in_a_world(worlds: Worlds, pool: Pool) -> None:
    other = set(words(HELD_OUT if pool == AGENT else AGENT))
    found = words_of(worlds(3, pool))
    assert found & other == set()
    assert found & set(words(pool)) >= names_of(worlds(3, pool))


def test_a_name_is_drawn_once() -> None:
    namer = Namer(AGENT, random.Random(0))
    drawn = [namer.draw(1) for _ in range(600)] + [namer.draw(2) for _ in range(600)]
    assert len(set(drawn)) == len(drawn)
    assert {len(name.split()) for name in drawn} == {1, 2}
    assert {pool_of(word) for name in drawn for word in name.split()} == {AGENT}
