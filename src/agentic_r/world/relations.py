"""What can be said in the world: relations, and every way to phrase them.

In the templates `{S}` is a passage's subject ("the sculptor Halsen Mirov"), `{V}` the value,
`{X}` the noun phrase that a question is about, `{D}` the descriptor of what is looked for
("harbour city") and `{N}` a bare name. The last third of the phrasings of questions, noun
phrases and passages is kept for the test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentic_r.world.kinds import KINDS, Kind

Value = Literal["person", "company", "city", "country", "name", "year"]


@dataclass(frozen=True)
class Relation:
    """One relation: whose it is, what its value is, and how people put it."""

    noun: str
    subject: Kind
    value: Value
    questions: tuple[str, ...]
    phrases: tuple[str, ...]
    passages: tuple[str, ...]
    queries: tuple[str, str]

    @property
    def leads_on(self) -> bool:
        """Whether the value is an entity of the world, so that another hop can follow."""
        return self.value in KINDS


def seen(templates: Sequence[str]) -> Sequence[str]:
    """Return the phrasings that training and dev may use: all but the last third."""
    return templates[: len(templates) - len(templates) // 3]


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "birthplace",
        "person",
        "city",
        (
            "Where was {X} born?",
            "In which city was {X} born?",
            "What is the birthplace of {X}?",
            "Which place saw the birth of {X}?",
            "Where did {X} come into the world?",
            "What is the native city of {X}?",
        ),
        (
            "the {D} where {X} was born",
            "the {D} that is the birthplace of {X}",
            "the {D} of which {X} is a native",
        ),
        (
            "{S} was born in {V}",
            "{S} is a native of {V}",
            "{V} is the birthplace of {S}",
            "{S} first saw daylight in {V}",
            "{S} came into the world in {V}",
            "the cradle of {S} stood in {V}",
        ),
        ("Where was {N} born?", "What is the birthplace of {N}?"),
    ),
    Relation(
        "employer",
        "person",
        "company",
        (
            "Which company employs {X}?",
            "Where does {X} work?",
            "Who is the employer of {X}?",
            "Which firm pays the wages of {X}?",
            "On whose payroll is {X}?",
            "Which company did {X} join?",
        ),
        (
            "the {D} that employs {X}",
            "the {D} where {X} works",
            "the {D} that {X} joined",
        ),
        (
            "{S} works for {V}",
            "{V} employs {S}",
            "{S} has a post at {V}",
            "{S} earns a living with {V}",
            "{S} is on the payroll of {V}",
            "{V} hired {S}",
        ),
        ("Which company employs {N}?", "Who is the employer of {N}?"),
    ),
    Relation(
        "teacher",
        "person",
        "name",
        (
            "Who taught {X}?",
            "Who was the teacher of {X}?",
            "Under whom did {X} study?",
            "Who gave lessons to {X}?",
            "Whose pupil was {X}?",
            "Who trained {X}?",
        ),
        (),
        (
            "{S} was taught by {V}",
            "{V} was the teacher of {S}",
            "{S} studied under {V}",
            "{V} gave lessons to {S}",
            "{S} was a pupil of {V}",
            "{V} trained {S}",
        ),
        ("Who taught {N}?", "Who was the teacher of {N}?"),
    ),
    Relation(
        "headquarters",
        "company",
        "city",
        (
            "Where is {X} based?",
            "In which city is {X} based?",
            "Where are the headquarters of {X}?",
            "Which city is the seat of {X}?",
            "From where is {X} run?",
            "Where does {X} have its main office?",
        ),
        (
            "the {D} where {X} is based",
            "the {D} that is the seat of {X}",
            "the {D} from which {X} is run",
        ),
        (
            "{S} is based in {V}",
            "{S} has its headquarters in {V}",
            "{V} is the seat of {S}",
            "the head office of {S} stands in {V}",
            "{S} is run from {V}",
            "the directors of {S} meet in {V}",
        ),
        ("Where is {N} based?", "Where are the headquarters of {N}?"),
    ),
    Relation(
        "founder",
        "company",
        "person",
        (
            "Who founded {X}?",
            "Who was the founder of {X}?",
            "Who set up {X}?",
            "Who established {X}?",
            "Who brought {X} into being?",
            "Who started {X}?",
        ),
        (
            "the {D} who founded {X}",
            "the {D} who set up {X}",
            "the {D} who started {X}",
        ),
        (
            "{S} was founded by {V}",
            "{V} is the founder of {S}",
            "{V} set up {S}",
            "{S} was established by {V}",
            "{V} brought {S} into being",
            "{S} owes its start to {V}",
        ),
        ("Who founded {N}?", "Who was the founder of {N}?"),
    ),
    Relation(
        "year",
        "company",
        "year",
        (
            "In which year did {X} open?",
            "When did {X} open?",
            "In what year did {X} begin trading?",
            "When did {X} begin trading?",
            "Since when has {X} existed?",
            "From which year does {X} date?",
        ),
        (),
        (
            "{S} opened in {V}",
            "{S} began trading in {V}",
            "{V} is the year in which {S} opened",
            "{S} took its first order in {V}",
            "{S} has existed since {V}",
            "{S} dates from {V}",
        ),
        ("When did {N} open?", "In which year did {N} begin trading?"),
    ),
    Relation(
        "country",
        "city",
        "country",
        (
            "Which country is {X} in?",
            "In which country does {X} lie?",
            "What country does {X} belong to?",
            "To which country does {X} belong?",
            "Which nation governs {X}?",
            "Inside whose borders is {X}?",
        ),
        (),
        (
            "{S} lies in {V}",
            "{S} belongs to {V}",
            "{S} is in the country of {V}",
            "{V} counts {S} as its own",
            "{S} is governed by {V}",
            "the borders of {V} enclose {S}",
        ),
        ("Which country is {N} in?", "What country does {N} belong to?"),
    ),
    Relation(
        "mayor",
        "city",
        "name",
        (
            "Who is the mayor of {X}?",
            "Who governs {X} as mayor?",
            "Who was elected mayor of {X}?",
            "Who leads the council of {X}?",
            "Who holds the highest office in {X}?",
            "Who runs the town hall of {X}?",
        ),
        (),
        (
            "{V} is the mayor of {S}",
            "{S} elected {V} as mayor",
            "the mayor of {S} is {V}",
            "{V} leads the council of {S}",
            "{V} holds the highest office in {S}",
            "the town hall of {S} is run by {V}",
        ),
        ("Who is the mayor of {N}?", "Who was elected mayor of {N}?"),
    ),
    Relation(
        "director",
        "film",
        "person",
        (
            "Who directed {X}?",
            "Who was the director of {X}?",
            "Who made {X}?",
            "Under whose direction was {X} shot?",
            "Who was behind the camera for {X}?",
            "Who staged {X}?",
        ),
        (
            "the {D} who directed {X}",
            "the {D} who made {X}",
            "the {D} behind the camera of {X}",
        ),
        (
            "{S} was directed by {V}",
            "{V} is the director of {S}",
            "{V} made {S}",
            "{S} was shot under {V}",
            "{V} stood behind the camera for {S}",
            "{S} was staged by {V}",
        ),
        ("Who directed {N}?", "Who was the director of {N}?"),
    ),
    Relation(
        "studio",
        "film",
        "company",
        (
            "Which company produced {X}?",
            "Which studio produced {X}?",
            "What company paid for {X}?",
            "Which company released {X}?",
            "Who financed {X}?",
            "Which company brought {X} to the screen?",
        ),
        (
            "the {D} that produced {X}",
            "the {D} that released {X}",
            "the {D} that financed {X}",
        ),
        (
            "{S} was produced by {V}",
            "{V} produced {S}",
            "{V} released {S}",
            "{S} was paid for by {V}",
            "{V} financed {S}",
            "{S} reached the screen through {V}",
        ),
        ("Which company produced {N}?", "Which company released {N}?"),
    ),
    Relation(
        "author",
        "novel",
        "person",
        (
            "Who wrote {X}?",
            "Who is the author of {X}?",
            "Who penned {X}?",
            "By whom was {X} written?",
            "From whose pen is {X}?",
            "Who composed {X}?",
        ),
        (
            "the {D} who wrote {X}",
            "the {D} who penned {X}",
            "the {D} who composed {X}",
        ),
        (
            "{S} was written by {V}",
            "{V} is the author of {S}",
            "{V} penned {S}",
            "{S} is a work of {V}",
            "{S} is from the pen of {V}",
            "{V} composed {S}",
        ),
        ("Who wrote {N}?", "Who is the author of {N}?"),
    ),
    Relation(
        "setting",
        "novel",
        "city",
        (
            "Where is {X} set?",
            "In which city is {X} set?",
            "Where does the story of {X} unfold?",
            "Which city is the scene of {X}?",
            "Where does {X} take place?",
            "In which city do the events of {X} happen?",
        ),
        (
            "the {D} where {X} is set",
            "the {D} that is the scene of {X}",
            "the {D} in which {X} takes place",
        ),
        (
            "{S} is set in {V}",
            "the story of {S} unfolds in {V}",
            "{V} is the scene of {S}",
            "{S} plays out in {V}",
            "{S} takes place in {V}",
            "the events of {S} happen in {V}",
        ),
        ("Where is {N} set?", "Which city is the scene of {N}?"),
    ),
)

RELATION = {relation.noun: relation for relation in RELATIONS}

# Passages that repeat the words of a query and do not answer it ({Q} is the query itself).
TRAPS: tuple[str, ...] = (
    "{Q} The records on {S} do not say.",
    "{Q} Nobody who knew {S} could tell.",
    "The {R} of {S} is unknown, for the {R} was never written down.",
    "Many have asked about the {R} of {S}. No {R} was ever found.",
    "{Q} This old question about {S} is still open.",
    "A lecture on {S} asked about the {R}, and left the {R} open.",
)

# Passages that give a plausible wrong value ({C} is a passage clause with a wrong value in it).
RUMOURS: tuple[str, ...] = (
    "It was once claimed that {C}, which proved false.",
    "A forged letter says that {C}.",
    "An early guide wrongly states that {C}.",
    "Gossip had it that {C}, but that was a mistake.",
)

# Passages about an entity that answer nothing at all.
ASIDES: tuple[str, ...] = (
    "A stamp was printed in honour of {S}.",
    "A song about {S} is still heard today.",
    "An exhibition on {S} drew large crowds.",
    "A small archive keeps letters about {S}.",
)

# Sentences that follow a fact and say nothing.
FILLERS: tuple[str, ...] = (
    "Little else is on record.",
    "A plaque recalls this.",
    "Several almanacs repeat it.",
    "The matter is settled.",
    "Schoolbooks mention it.",
    "Registers confirm the entry.",
)
