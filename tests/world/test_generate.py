from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentic_r.world
from agentic_r.data.questions import hop_asked, hops
from agentic_r.io import fingerprint
from agentic_r.metrics import answer_in
from agentic_r.types import Question
from agentic_r.world import HELD_OUT, Sizes, World, generate
from agentic_r.world.generate import SPLITS, Fact, chain_of
from agentic_r.world.relations import FILLERS, RELATIONS, RUMOURS, seen

from .conftest import Worlds, quickstart_sizes

SOURCE = str(Path(agentic_r.world.__file__).parents[2])
SMALL = Sizes(20, 12, 12, 12, 12, 40, 10, 30)

IN_ANOTHER_PROCESS = """
import sys
from agentic_r.io import fingerprint
from agentic_r.world import Sizes, generate
world = generate(int(sys.argv[1]), Sizes(20, 12, 12, 12, 12, 40, 10, 30))
print(world.corpus.digest, fingerprint(world.questions))
"""


def digests(world: World) -> tuple[str, str]:
    return world.corpus.digest, fingerprint(world.questions)


def everything(world: World) -> list[tuple[str, Question]]:
    return [(split, question) for split in SPLITS for question in world.questions[split]]


def first_upper(text: str) -> str:
    return text[0].upper() + text[1:]


def renderings(chain: Sequence[Fact], known: bool) -> set[str]:
    """Every wording of the question for a chain, by all phrasings or by the seen ones alone."""

    def choices(templates: Sequence[str]) -> Sequence[str]:
        return seen(templates) if known else templates

    phrases = {f"the {chain[0].entity.descriptor} {chain[0].entity.name}"}
    for fact in chain[:-1]:
        assert fact.target is not None
        phrases = {
            template.replace("{X}", phrase).replace("{D}", fact.target.descriptor)
            for template, phrase in itertools.product(choices(fact.relation.phrases), phrases)
        }
    asked = choices(chain[-1].relation.questions)
    return {t.replace("{X}", phrase) for t, phrase in itertools.product(asked, phrases)}


def clauses(fact: Fact, known: bool, value: str) -> list[str]:
    """Every wording of a fact's clause with some value."""
    templates = fact.relation.passages
    subject = f"the {fact.entity.descriptor} {fact.entity.name}"
    return [
        template.replace("{S}", subject).replace("{V}", value)
        for template in (seen(templates) if known else templates)
    ]


@pytest.mark.parametrize("hash_seed", ["1", "77"])
def test_the_same_seed_gives_the_same_world_in_another_process(hash_seed: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, "5"],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        check=True,
    )
    assert tuple(found.stdout.split()) == digests(generate(5, SMALL))


def test_the_seed_and_the_pool_move_everything() -> None:
    made = [digests(generate(seed, SMALL, pool)) for seed in (0, 1) for pool in ("agent", HELD_OUT)]
    assert len({corpus for corpus, _ in made}) == len({asked for _, asked in made}) == 4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_quickstart_world_is_as_large_as_promised(worlds: Worlds, seed: int) -> None:
    world, sizes = worlds(seed), quickstart_sizes()
    assert len(world.corpus) >= 1500
    assert len(world.questions["test"]) == sizes.test_questions >= 400
    assert len({question.metadata["root"] for question in world.questions["test"]}) >= 100
    for split in SPLITS:
        assert len(world.questions[split]) == sizes.questions(split)
        counted = Counter(question.metadata["hop_count"] for question in world.questions[split])
        assert set(counted) == {1, 2, 3}
        assert min(counted.values()) >= len(world.questions[split]) // 4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_splits_share_no_root_no_hop_and_no_question(worlds: Worlds, seed: int) -> None:
    world = worlds(seed)
    roots, entities, answers = defaultdict(set), defaultdict(set), defaultdict(set)
    for split, question in everything(world):
        chain = chain_of(question, world)
        roots[split].add(question.metadata["root"])
        entities[split] |= {fact.entity.id for fact in chain}
        entities[split] |= {fact.target.id for fact in chain if fact.target}
        answers[split] |= {fact.passage_id for fact in chain}
        assert question.metadata["root"] == chain[0].entity.id
    for held in (roots, entities, answers):
        for one, other in itertools.combinations(SPLITS, 2):
            assert held[one] & held[other] == set()
    texts = [question.text for _, question in everything(world)]
    assert len(set(texts)) == len(texts)
    names = {
        split: {entity.name for entity in world.entities if entity.split == split}
        for split in SPLITS
    }
    assert names["train"] & names["test"] == names["dev"] & names["test"] == set()


def test_a_third_of_the_phrasings_is_held_out() -> None:
    for relation in RELATIONS:
        for templates in (relation.questions, relation.phrases, relation.passages):
            unseen = templates[len(seen(templates)) :]
            assert len(unseen) * 3 == len(templates)
            assert not set(unseen) & set(seen(templates))


@pytest.mark.parametrize("seed", [0, 1])
def test_unseen_wordings_of_questions_are_asked_in_test_only(worlds: Worlds, seed: int) -> None:
    world = worlds(seed)
    unseen = 0
    for split, question in everything(world):
        chain = chain_of(question, world)
        known = question.text in renderings(chain, known=True)
        assert question.text in renderings(chain, known=False)
        assert question.metadata["seen"] == (known and all(fact.seen for fact in chain))
        if split != "test":
            assert question.metadata["seen"]
        unseen += not known
    tested = world.questions["test"]
    assert len(tested) / 4 < unseen < len(tested)
    assert sum(question.metadata["seen"] for question in tested) > 20


@pytest.mark.parametrize("seed", [0, 1])
def test_unseen_wordings_of_passages_are_about_test_entities_only(
    worlds: Worlds, seed: int
) -> None:
    world = worlds(seed)
    endings = ["", *(f" {filler}" for filler in FILLERS)]
    unseen = 0
    for fact in world.facts.values():
        text = world.corpus.get(fact.passage_id).text
        forms = {
            known: {
                f"{first_upper(clause)}.{ending}"
                for clause in clauses(fact, known, fact.value)
                for ending in endings
            }
            for known in (True, False)
        }
        assert text in forms[False]
        assert (text in forms[True]) == fact.seen
        assert fact.seen or fact.entity.split == "test"
        unseen += not fact.seen
    assert unseen > 20


def test_rumours_claim_in_seen_wordings_outside_test(world: World) -> None:
    claims = 0
    for statement in world.statements.values():
        if statement.role != "rumour" or statement.entity.split == "test":
            continue
        assert statement.relation is not None
        fact = world.facts[statement.entity.id, statement.relation.noun]
        text = world.corpus.get(statement.passage_id).text
        known = [
            re.escape(first_upper(rumour.replace("{C}", clause))).replace("VALUE", r"[\w ]+")
            for rumour in RUMOURS
            for clause in clauses(fact, True, "VALUE")
        ]
        assert any(re.fullmatch(pattern, text) for pattern in known), text
        claims += 1
    assert claims > 50


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gold_passages_answer_their_hop_and_are_the_only_ones(worlds: Worlds, seed: int) -> None:
    world = worlds(seed)
    keys = Counter(
        (fact.entity.name, fact.entity.descriptor, fact.relation.noun)
        for fact in world.facts.values()
    )
    assert set(keys.values()) == {1}
    assert len({fact.passage_id for fact in world.facts.values()}) == len(world.facts)
    for _, question in everything(world):
        chain = chain_of(question, world)
        found = hops(question)
        assert len(found) == len(chain) == question.metadata["hop_count"]
        assert question.answers == (chain[-1].value,)
        for hop, fact in zip(found, chain, strict=True):
            passage = world.corpus.get(hop.passage_id)
            assert answer_in(passage.text, hop.answer)
            assert fact.entity.label in passage.text
            assert passage.title == fact.entity.name
            assert world.statements[hop.passage_id].role == "fact"
            for query in fact.relation.queries:
                asked = hop_asked(question, query.format(N=fact.entity.name))
                assert asked is not None
                assert asked.passage_id == hop.passage_id
        for fact, following in itertools.pairwise(chain):
            assert fact.target == following.entity
            assert fact.value == following.entity.name


@pytest.mark.parametrize("seed", range(6))
def test_traps_rumours_and_asides_never_hold_the_true_value(worlds: Worlds, seed: int) -> None:
    world = worlds(seed)
    roles: Counter[str] = Counter()
    values: dict[str, list[str]] = defaultdict(list)
    for fact in world.facts.values():
        values[fact.entity.id].append(fact.value)
    for statement in world.statements.values():
        roles[statement.role] += 1
        text = world.corpus.get(statement.passage_id).text
        if statement.role == "fact":
            continue
        assert statement.entity.label in text
        if statement.relation is None:
            true = values[statement.entity.id]
        else:
            true = [world.facts[statement.entity.id, statement.relation.noun].value]
        assert not any(answer_in(text, value) for value in true), text
    assert sum(roles.values()) == len(world.corpus)
    assert min(roles.values()) > 200


def test_a_bare_name_is_ambiguous_and_ids_tell_nothing(world: World) -> None:
    named: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entity in world.entities:
        named[entity.kind, entity.name].append(entity.descriptor)
    assert all(len(set(found)) == len(found) for found in named.values())
    shared = sum(len(found) for found in named.values() if len(found) > 1)
    assert shared / len(world.entities) > 0.9
    ids = [passage.id for passage in world.corpus]
    assert ids == [f"w{row:05d}" for row in range(len(ids))]
    facts = sorted(world.corpus.row(fact.passage_id) for fact in world.facts.values())
    middle = facts[len(facts) // 2] / len(ids)
    assert 0.4 < middle < 0.6


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.tuples(*[st.integers(10, 25)] * 5))
def test_any_size_the_config_allows_makes_a_world(seed: int, sizes: tuple[int, ...]) -> None:
    world = generate(seed, Sizes(*sizes, 20, 5, 15))
    assert [len(world.questions[split]) for split in SPLITS] == [20, 5, 15]
    for fact in world.facts.values():
        assert (fact.target is None) or fact.target.name == fact.value
        assert answer_in(world.corpus.get(fact.passage_id).text, fact.value)


def test_questions_survive_json(world: World) -> None:
    for _, question in everything(world)[:50]:
        assert json.loads(json.dumps(question.metadata)) == question.metadata
