"""Worked examples for the tiny agent: how to search in a world, step by step.

The teacher thinks the way that the tiny agent is to think. Before a search it says what it looks
for ("Now the painter Halsen Mirov, birthplace."). Shown passages, it names for each one whom it is
about and what it tells, and stops at the first that fits. Nothing found: it asks once more in
other words, then gives up. Retrieval is played: the gold passage is there or not, at a random
place, among passages that a similarity search could well return.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from agentic_r.types import Hit, Question, Search, Trajectory, Turn
from agentic_r.world.generate import Fact, Statement, World, chain_of

GIVEN_UP = "unknown"


@dataclass(frozen=True)
class Lesson:
    """What a worked example may contain.

    `ks` are the numbers of passages a turn may show, `gold` the chance that the right passage is
    among them, `hops` the longest question, `confusing` the share of the other passages that
    resemble the right one.
    """

    ks: tuple[int, ...] = (1, 2, 3)
    gold: float = 0.8
    hops: int = 3
    confusing: float = 0.85


class Teacher:
    """Plays an agent on the questions of one world, with its queries between `marks`."""

    def __init__(self, world: World, marks: tuple[str, str] = ("<search>", "</search>")) -> None:
        self.world = world
        self._marks = marks
        self._by_name: dict[str, list[Statement]] = defaultdict(list)
        self._by_relation: dict[str, list[Statement]] = defaultdict(list)
        self._all = list(world.statements.values())
        for statement in self._all:
            self._by_name[statement.entity.name].append(statement)
            if statement.relation:
                self._by_relation[statement.relation.noun].append(statement)
        self._naming: dict[str, list[Statement]] = defaultdict(list)
        for fact in world.facts.values():
            self._naming[fact.value].append(world.statements[fact.passage_id])

    def trajectory(self, question: Question, lesson: Lesson, rng: random.Random) -> Trajectory:
        """Return one worked example; it ends with the right answer or with giving up."""
        chain = chain_of(question, self.world)
        k = rng.choice(lesson.ks)
        turns: list[Turn] = []
        think = _plan(chain)
        for position, fact in enumerate(chain):
            for attempt in (0, 1):
                query = fact.relation.queries[attempt].format(N=fact.entity.name)
                shown = k if rng.random() < 0.7 else rng.choice(lesson.ks)
                statements = self._shown(chain, position, shown, lesson, rng)
                turns.append(self._search_turn(f"{think} {_target(fact)}", query, statements))
                think, found = _reading(statements, fact)
                if found:
                    break
            else:
                return self._ended(question, turns, f"{think} Given up.", GIVEN_UP)
            if position + 1 == len(chain):
                return self._ended(question, turns, think, fact.value)
        raise AssertionError("a chain of facts is never empty")

    def _search_turn(self, think: str, query: str, statements: Sequence[Statement]) -> Turn:
        passages = [self.world.corpus.get(s.passage_id) for s in statements]
        search = Search(query, query, tuple(Hit(passage, 1.0) for passage in passages))
        start, end = self._marks
        text = f"<think> {think} </think>\n{start} {query} {end}"
        return Turn(text, "search", (search,))

    def _ended(self, question: Question, turns: list[Turn], think: str, answer: str) -> Trajectory:
        text = f"<think> {think} </think>\n<answer> {answer} </answer>"
        last = Turn(text, "answer", answer=answer)
        return Trajectory(question.id, question, (*turns, last), "answered")

    def _shown(
        self, chain: Sequence[Fact], position: int, k: int, lesson: Lesson, rng: random.Random
    ) -> list[Statement]:
        """Draw `k` different passages, as an imperfect retriever might return them."""
        gold = self.world.statements[chain[position].passage_id]
        drawn = {gold.passage_id: gold} if rng.random() < lesson.gold else {}
        taboo = gold.passage_id
        while len(drawn) < k:
            statement = rng.choice(self._pool(chain, position, lesson, rng))
            if statement.passage_id != taboo:
                drawn[statement.passage_id] = statement
        shown = list(drawn.values())
        rng.shuffle(shown)
        return shown

    def _pool(
        self, chain: Sequence[Fact], position: int, lesson: Lesson, rng: random.Random
    ) -> list[Statement]:
        """Choose where the next wrong passage comes from.

        The question is part of what a retriever is sent, so passages of its other hops come
        back as well, those that were read before among them.
        """
        fact = chain[position]
        if rng.random() >= lesson.confusing:
            return self._by_relation[fact.relation.noun] if rng.random() < 0.6 else self._all
        others = [other for other in chain if other is not fact]
        if others and rng.random() < 0.4:
            other = rng.choice(others)
            again = [self.world.statements[other.passage_id]]
            return again if rng.random() < 0.6 else self._by_name[other.entity.name]
        naming = self._naming[fact.entity.name]
        if naming and rng.random() < 0.1:
            return naming
        namesakes = self._by_name[fact.entity.name]
        same = [s for s in namesakes if s.relation is fact.relation]
        return same if len(same) > 4 and rng.random() < 0.75 else namesakes


def _plan(chain: Sequence[Fact]) -> str:
    steps = [f"the {chain[0].entity.label}, {chain[0].relation.noun}"]
    steps += [f"the {fact.entity.descriptor}, {fact.relation.noun}" for fact in chain[1:]]
    return f"Plan: {'; '.join(steps)}."


def _target(fact: Fact) -> str:
    return f"Now the {fact.entity.label}, {fact.relation.noun}."


def _reading(statements: Sequence[Statement], wanted: Fact) -> tuple[str, bool]:
    """Say of each passage whom it is about and what it tells, until one fits."""
    said: list[str] = []
    for number, statement in enumerate(statements, 1):
        told = {"fact": "", "trap": "nothing", "rumour": "rumour", "aside": "nothing"}
        noun = statement.relation.noun if statement.relation else ""
        what = told[statement.role] or noun
        opening = f"Doc {number} the {statement.entity.label}, {what}"
        if statement.passage_id == wanted.passage_id:
            said.append(f"{opening}, yes, {wanted.value}.")
            return " ".join(said), True
        said.append(f"{opening}, no.")
    return " ".join(said), False
