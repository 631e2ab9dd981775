from __future__ import annotations

import random

import pytest

from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.data.questions import hop_asked, hops
from agentic_r.protocols import Completion
from agentic_r.types import Question, Trajectory
from agentic_r.world import AGENT, Sizes, World, generate
from agentic_r.world.teacher import GIVEN_UP, Lesson, Teacher

LESSONS = [
    Lesson(),
    Lesson(ks=(1,), gold=1.0),
    Lesson(ks=(3,), gold=0.5),
    Lesson(ks=(1, 2), gold=0.0),
    Lesson(ks=(2,), gold=0.9, confusing=0.0),
]


@pytest.fixture(scope="module")
def world() -> World:
    return generate(11, Sizes(30, 20, 20, 16, 16, 80, 10, 60), AGENT)


def examples(world: World, lesson: Lesson, seed: int = 0) -> list[tuple[Question, Trajectory]]:
    teacher, rng = Teacher(world), random.Random(seed)
    questions = [question for part in world.questions.values() for question in part]
    return [(question, teacher.trajectory(question, lesson, rng)) for question in questions]


def right(question: Question, trajectory: Trajectory) -> bool:
    """Walk the hops as an agent would: does every hop get its gold passage in two attempts?"""
    steps, at, missed = hops(question), 0, 0
    for search in trajectory.searches:
        asked = hop_asked(question, search.query)
        assert asked is not None
        assert asked.passage_id == steps[at].passage_id
        if steps[at].passage_id in [hit.passage.id for hit in search.hits]:
            at, missed = at + 1, 0
        else:
            missed += 1
        assert missed < 2 or search is trajectory.searches[-1]
    assert at == len(steps) or missed == 2
    return at == len(steps)


@pytest.mark.parametrize("lesson", LESSONS)
def test_it_ends_right_exactly_when_every_gold_passage_was_shown(
    world: World, lesson: Lesson
) -> None:
    answered = []
    for question, trajectory in examples(world, lesson):
        answered.append(right(question, trajectory))
        assert trajectory.stop == "answered"
        assert trajectory.answer == (question.answers[0] if answered[-1] else GIVEN_UP)
        assert trajectory.question is question
    if lesson.gold in (0.0, 1.0):
        assert set(answered) == {bool(lesson.gold)}
    else:
        assert 0.1 < sum(answered) / len(answered) < 1.0


@pytest.mark.parametrize("lesson", LESSONS)
def test_what_is_shown_is_k_different_passages(world: World, lesson: Lesson) -> None:
    places = []
    for question, trajectory in examples(world, lesson):
        gold = {hop.passage_id for hop in hops(question)}
        for search in trajectory.searches:
            ids = [hit.passage.id for hit in search.hits]
            assert len(ids) in lesson.ks
            assert len(set(ids)) == len(ids)
            places += [ids.index(id) for id in ids if id in gold]
    if lesson.ks == (3,):
        assert set(places) == {0, 1, 2}


def test_turns_are_what_the_dialect_reads(world: World) -> None:
    dialect = SearchR1("Question: {question}\n")
    for _, trajectory in examples(world, Lesson())[:60]:
        for turn in trajectory.turns:
            payload = turn.answer if turn.status == "answer" else turn.searches[0].query
            read = dialect.read(Completion(turn.text, "stop"), trajectory)
            found = read.answer if read.status == "answer" else read.searches[0].query
            assert (read.status, found) == (turn.status, payload)


def test_it_says_yes_to_the_gold_passage_alone(world: World) -> None:
    for question, trajectory in examples(world, Lesson(gold=0.9)):
        thoughts = " ".join(turn.text for turn in trajectory.turns)
        steps = hops(question)
        shown = {hit.passage.id for search in trajectory.searches for hit in search.hits}
        assert thoughts.count(", yes, ") == sum(hop.passage_id in shown for hop in steps)


def test_the_generator_alone_moves_it(world: World) -> None:
    first = [trajectory for _, trajectory in examples(world, Lesson(), 1)]
    assert first == [trajectory for _, trajectory in examples(world, Lesson(), 1)]
    assert first != [trajectory for _, trajectory in examples(world, Lesson(), 2)]
