"""Makes a world from a seed: entities, one passage a fact with its decoys, multi-hop questions.

Similar does not mean useful here. Two or three entities of a kind share a name, so that a bare
sub-query is ambiguous and only the descriptor in the question tells them apart; for every fact
there are passages that repeat the words of a query and do not answer it, and some that give a
plausible wrong value. Train, dev and test questions start from disjoint entities, and what they
lead to is disjoint too; all passages lie in one corpus. The last third of the phrasings of each
relation is used for the test split only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agentic_r.data.corpus import Corpus
from agentic_r.types import Passage, Question
from agentic_r.world.kinds import DESCRIPTORS, KINDS, Kind
from agentic_r.world.names import HELD_OUT, Namer, Pool
from agentic_r.world.relations import (
    ASIDES,
    FILLERS,
    RELATION,
    RELATIONS,
    RUMOURS,
    TRAPS,
    Relation,
    seen,
)

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
SHARE: dict[Split, float] = {"train": 0.5, "dev": 0.12, "test": 0.38}
Role = Literal["fact", "trap", "rumour", "aside"]


@dataclass(frozen=True)
class Sizes:
    """How many entities of each kind a world has, and how many questions each split."""

    people: int = 110
    companies: int = 70
    cities: int = 70
    films: int = 60
    novels: int = 60
    train_questions: int = 700
    dev_questions: int = 120
    test_questions: int = 440

    def of(self, kind: Kind, split: Split) -> int:
        """Return the number of entities of a kind whose questions belong to a split."""
        total = {
            "person": self.people,
            "company": self.companies,
            "city": self.cities,
            "film": self.films,
            "novel": self.novels,
        }[kind]
        return max(3, round(total * SHARE[split]))

    def questions(self, split: Split) -> int:
        """Return how many questions a split shall have."""
        return {
            "train": self.train_questions,
            "dev": self.dev_questions,
            "test": self.test_questions,
        }[split]


@dataclass(frozen=True)
class Entity:
    """Somebody or something with a name that others may share and a descriptor that they don't."""

    id: str
    kind: Kind
    name: str
    descriptor: str
    split: Split

    @property
    def label(self) -> str:
        """Descriptor and name: what identifies the entity in the text of the world."""
        return f"{self.descriptor} {self.name}"


@dataclass(frozen=True)
class Statement:
    """What a passage is: a fact, a trap, a rumour or an aside about an entity."""

    entity: Entity
    role: Role
    relation: Relation | None
    passage_id: str


@dataclass(frozen=True)
class Fact:
    """One true value, the passage that states it, and the entity it leads to, if any."""

    entity: Entity
    relation: Relation
    value: str
    target: Entity | None
    passage_id: str
    seen: bool


@dataclass(frozen=True)
class World:
    """A corpus, its questions by split, and what its passages really are."""

    seed: int
    corpus: Corpus
    questions: dict[Split, list[Question]]
    facts: dict[tuple[str, str], Fact]
    statements: dict[str, Statement]
    entities: list[Entity]


def generate(seed: int, sizes: Sizes | None = None, pool: Pool = HELD_OUT) -> World:
    """Make the world of a seed; the same seed, sizes and pool give the same world anywhere."""
    sizes = sizes or Sizes()
    rng = random.Random(f"world:{seed}:{pool}")
    namer = Namer(pool, rng)
    countries = [namer.draw(1) for _ in range(12)]
    entities = [e for split in SPLITS for e in _entities(split, sizes, namer, rng)]
    writer = _Writer(rng)
    facts: dict[tuple[str, str], Fact] = {}
    for entity in entities:
        peers = [e for e in entities if e.split == entity.split]
        for fact in _facts(entity, peers, countries, namer, writer, rng):
            facts[entity.id, fact.relation.noun] = fact
        writer.write(entity, "aside", None, rng.choice(ASIDES).format(S=f"the {entity.label}"))
    passages, names = writer.shuffled()
    facts = {key: replace(f, passage_id=names[f.passage_id]) for key, f in facts.items()}
    renamed = [replace(s, passage_id=names[s.passage_id]) for s in writer.statements]
    statements = {statement.passage_id: statement for statement in renamed}
    questions = {
        split: _questions(split, sizes.questions(split), entities, facts, rng) for split in SPLITS
    }
    return World(seed, Corpus(passages), questions, facts, statements, entities)


def _entities(split: Split, sizes: Sizes, namer: Namer, rng: random.Random) -> Iterator[Entity]:
    """Yield a split's entities kind by kind, two or three of a kind to a name."""
    for kind in KINDS:
        left = sizes.of(kind, split)
        number = 0
        while left:
            group = min(left, rng.choice((2, 2, 3)))
            name = namer.draw(1 if kind == "city" else 2)
            for descriptor in rng.sample(DESCRIPTORS[kind], group):
                yield Entity(f"{split}-{kind}-{number}", kind, name, descriptor, split)
                number += 1
            left -= group


class _Writer:
    """Collects passages; ids are given after a shuffle, so that they tell nothing."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._texts: list[tuple[str, str]] = []
        self.statements: list[Statement] = []

    def write(self, entity: Entity, role: Role, relation: Relation | None, text: str) -> str:
        """Add one passage about `entity` and return its provisional id."""
        provisional = str(len(self._texts))
        self._texts.append((entity.name, text[0].upper() + text[1:]))
        self.statements.append(Statement(entity, role, relation, provisional))
        return provisional

    def shuffled(self) -> tuple[list[Passage], dict[str, str]]:
        """Return the passages in random order and the map of provisional to final ids."""
        order = list(range(len(self._texts)))
        self._rng.shuffle(order)
        names = {str(old): f"w{new:05d}" for new, old in enumerate(order)}
        return [
            Passage(names[str(old)], self._texts[old][1], self._texts[old][0]) for old in order
        ], names


def _facts(
    entity: Entity,
    peers: Sequence[Entity],
    countries: Sequence[str],
    namer: Namer,
    writer: _Writer,
    rng: random.Random,
) -> Iterator[Fact]:
    """Write an entity's facts with their traps and rumours."""
    subject = f"the {entity.label}"
    for relation in RELATIONS:
        if relation.subject != entity.kind:
            continue
        known = seen(relation.passages)
        templates = relation.passages if entity.split == "test" else known
        value, target = _value(relation, entity, peers, countries, namer, rng)
        template = rng.choice(templates)
        clause = template.format(S=subject, V=value)
        filler = f" {rng.choice(FILLERS)}" if rng.random() < 0.5 else ""
        passage_id = writer.write(entity, "fact", relation, f"{clause}.{filler}")
        for trap in rng.sample(TRAPS, rng.choice((1, 2, 2, 3))):
            query = rng.choice(relation.queries).format(N=entity.name)
            text = trap.format(Q=query, S=subject, R=relation.noun)
            writer.write(entity, "trap", relation, text)
        if rng.random() < 0.5:
            wrong, _ = _value(relation, entity, peers, countries, namer, rng, wrong_for=value)
            claim = rng.choice(templates).format(S=subject, V=wrong)
            writer.write(entity, "rumour", relation, rng.choice(RUMOURS).format(C=claim))
        yield Fact(entity, relation, value, target, passage_id, template in known)


def _value(
    relation: Relation,
    entity: Entity,
    peers: Sequence[Entity],
    countries: Sequence[str],
    namer: Namer,
    rng: random.Random,
    wrong_for: str = "",
) -> tuple[str, Entity | None]:
    """Draw a value of a relation, another one than `wrong_for`."""
    if relation.value == "year":
        return str(rng.choice([y for y in range(1801, 1960) if str(y) != wrong_for])), None
    if relation.value == "country":
        return rng.choice([c for c in countries if c != wrong_for]), None
    if relation.value == "name":
        return namer.draw(2), None
    # A value that is a word of its subject's name would stand in every passage about the subject.
    taken = (wrong_for, *entity.name.split())
    targets = [e for e in peers if e.kind == relation.value and e.name not in taken]
    if not targets:  # the few entities of a very small world may share one name
        return namer.draw(1 if relation.value == "city" else 2), None
    target = rng.choice(targets)
    return target.name, target


def _chains(
    entity: Entity, facts: dict[tuple[str, str], Fact], hops: int
) -> Iterator[tuple[Fact, ...]]:
    """Yield every chain of `hops` facts that starts at an entity and comes to no name twice.

    Two hops about one name could have the same query, which would then have two gold passages.
    """
    for relation in RELATIONS:
        fact = facts.get((entity.id, relation.noun))
        if fact is None:
            continue
        if hops == 1:
            yield (fact,)
        elif fact.target is not None:
            for rest in _chains(fact.target, facts, hops - 1):
                if all(later.entity.name != entity.name for later in rest):
                    yield (fact, *rest)


def _questions(
    split: Split,
    count: int,
    entities: Sequence[Entity],
    facts: dict[tuple[str, str], Fact],
    rng: random.Random,
) -> list[Question]:
    """Draw questions of 1, 2 and 3 hops in turn, spread evenly over the root entities."""
    roots = [entity for entity in entities if entity.split == split]
    pools: dict[int, list[tuple[Fact, ...]]] = {}
    for hops in (1, 2, 3):
        by_root = [list(_chains(root, facts, hops)) for root in roots]
        for chains in by_root:
            rng.shuffle(chains)
        rng.shuffle(by_root)
        depth = max((len(chains) for chains in by_root), default=0)
        pools[hops] = [chains[i] for i in range(depth) for chains in by_root if i < len(chains)]
        pools[hops].reverse()
    made: list[Question] = []
    texts: set[str] = set()
    while len(made) < count and any(pools.values()):
        hops = len(made) % 3 + 1
        while hops and not pools[hops]:
            hops = hops % 3 + 1
        question = _question(f"{split}-{len(made)}", pools[hops].pop(), split, rng)
        if question.text not in texts:
            texts.add(question.text)
            made.append(question)
    return made


def _question(id: str, chain: tuple[Fact, ...], split: Split, rng: random.Random) -> Question:
    """Word a chain of facts as one nested question, with its gold hops as metadata."""
    phrase = f"the {chain[0].entity.label}"
    known = all(fact.seen for fact in chain)
    for fact in chain[:-1]:
        choices = fact.relation.phrases if split == "test" else seen(fact.relation.phrases)
        template = rng.choice(choices)
        known = known and template in seen(fact.relation.phrases)
        assert fact.target is not None  # only relations that lead on stand inside a chain
        phrase = template.format(X=phrase, D=fact.target.descriptor)
    last = chain[-1].relation
    template = rng.choice(last.questions if split == "test" else seen(last.questions))
    known = known and template in seen(last.questions)
    hops = [
        {
            "entity": fact.entity.name,
            "descriptor": fact.entity.descriptor,
            "relation": fact.relation.noun,
            "question": fact.relation.queries[0].format(N=fact.entity.name),
            "queries": [query.format(N=fact.entity.name) for query in fact.relation.queries],
            "answer": fact.value,
            "passage_id": fact.passage_id,
        }
        for fact in chain
    ]
    metadata = {"hops": hops, "root": chain[0].entity.id, "hop_count": len(chain), "seen": known}
    return Question(id, template.format(X=phrase), (chain[-1].value,), "world", metadata)


def chain_of(question: Question, world: World) -> tuple[Fact, ...]:
    """Return the facts that a question of this world asks for, in order."""
    by_passage = {fact.passage_id: fact for fact in world.facts.values()}
    return tuple(by_passage[hop["passage_id"]] for hop in question.metadata["hops"])


__all__ = [
    "RELATION",
    "SPLITS",
    "Entity",
    "Fact",
    "Sizes",
    "Split",
    "World",
    "chain_of",
    "generate",
]
