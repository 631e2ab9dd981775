"""A few questions side by side, before and after training, with the labels that taught it.

Which questions are shown is decided by a rule and a seed, not by hand: mostly questions that
became right, and always one that became wrong where there is one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import msgspec

from agentic_r.evaluation.benchmark import by_key, record
from agentic_r.types import Example, Passage, Question, Search, Trajectory, Utility


class ShownHit(msgspec.Struct, frozen=True):
    """One passage as the agent was shown it."""

    title: str
    """The passage's title, empty where it has none."""
    text: str
    """The passage's text."""
    gold: bool | None = None
    """Whether it is the annotated passage of the hop asked; None where no hop is asked."""


class ShownSearch(msgspec.Struct, frozen=True):
    """One search of a trajectory."""

    query: str
    """What the agent wrote as its query."""
    hits: list[ShownHit] = []
    """What the retriever returned, best first."""


class Side(msgspec.Struct, frozen=True):
    """One trajectory, laid out for reading."""

    name: str
    """Which retriever the agent searched with: the name of a row."""
    answer: str | None
    """The agent's final answer; None where it gave none."""
    correct: bool
    """Whether the answer counts as right (exact match)."""
    stop: str
    """Why the trajectory ended: answered, budget, invalid, length or error."""
    searches: list[ShownSearch] = []
    """Its searches in order."""


class LabelledPassage(msgspec.Struct, frozen=True):
    """One candidate passage of a labelled search, and what became of it."""

    title: str
    """The passage's title."""
    text: str
    """The passage's text."""
    rank: int
    """Its rank among the candidates, from 0."""
    relevance: float | None
    """The judge's score 0-100; None where it could not be had."""
    correctness: float | None
    """The reward of the agent's answer when it went on from here; None where not measured."""
    verdict: str
    """"positive", "hard negative" or "not used"."""
    reason: str
    """Why, in one sentence."""


class LabelledSearch(msgspec.Struct, frozen=True):
    """One search of a training question and the labels of its most telling candidates."""

    query: str
    """What the agent wrote as its query."""
    sent: str
    """The exact string the retriever was sent, which is what it learns from."""
    passages: list[LabelledPassage] = []
    """Positives first, then hard negatives, then the rest, each in rank order."""
    outcome: str = ""
    """What came of the search as a whole: whether it taught anything, and how much."""
    search: int = 0
    """Which search of the trajectory, from 0."""


class Case(msgspec.Struct, frozen=True):
    """One question before and after."""

    question: str
    """The question."""
    answers: list[str]
    """Every answer that counts."""
    split: str
    """Where it is from: "test" (held out) or "training"."""
    why: str
    """Why this question is shown."""
    before: Side
    """The trajectory with the earlier retriever."""
    after: Side
    """The trajectory with the later retriever."""
    labels: list[LabelledSearch] = []
    """For a training question: how the searches of `before` were labelled."""


def side(
    trajectory: Trajectory,
    name: str,
    gold: Callable[[Question, Search], str | None] | None = None,
    shown: int = 3,
) -> Side:
    """Lay out one trajectory; `gold` names the gold passage id of a search, None for no hop."""
    searches = []
    for search in trajectory.searches:
        wanted = gold(trajectory.question, search) if gold else None
        hits = [
            ShownHit(
                title=hit.passage.title,
                text=hit.passage.text,
                gold=None if wanted is None else hit.passage.id == wanted,
            )
            for hit in search.hits[:shown]
        ]
        searches.append(ShownSearch(search.query, hits))
    return Side(
        name=name,
        answer=trajectory.answer,
        correct=record(trajectory).em == 1.0,
        stop=trajectory.stop or "unfinished",
        searches=searches,
    )


def labelled_searches(
    trajectory: Trajectory,
    utilities: Sequence[Utility],
    examples: Sequence[Example],
    passage: Callable[[str], Passage],
    threshold: float = 60.0,
    shown: int = 5,
) -> list[LabelledSearch]:
    """Explain the labels of one trajectory's searches.

    `utilities` and `examples` may be those of a whole run; rows of other trajectories are left
    out. `passage` looks a passage up by its id (`Corpus.get`). `threshold` is the relevance
    below which a passage cannot be a positive (`utility.relevance`).
    """
    own: dict[int, list[Utility]] = {}
    for utility in utilities:
        if utility.trajectory_id == trajectory.id:
            own.setdefault(utility.search, []).append(utility)
    taught = {e.query: e for e in examples if (e.dataset, e.question_id) == trajectory.question.key}
    return [
        _labelled(n, search, own[n], taught.get(search.sent), passage, threshold, shown)
        for n, search in enumerate(trajectory.searches)
        if n in own
    ]


def _labelled(
    n: int,
    search: Search,
    utilities: Sequence[Utility],
    example: Example | None,
    passage: Callable[[str], Passage],
    threshold: float,
    shown: int,
) -> LabelledSearch:
    order = {"positive": 0, "hard negative": 1, "not used": 2}
    judged = sorted(
        ((u, _verdict(u, example)) for u in utilities),
        key=lambda pair: (order[pair[1]], pair[0].rank),
    )
    positives = [pair for pair in judged if pair[1] == "positive"]
    rest = [pair for pair in judged if pair[1] != "positive"]
    rows = []
    for utility, verdict in [*positives, *rest[: max(1, shown - len(positives))]]:
        found = passage(utility.passage_id)
        rows.append(
            LabelledPassage(
                title=found.title,
                text=found.text,
                rank=utility.rank,
                relevance=utility.relevance,
                correctness=utility.correctness,
                verdict=verdict,
                reason=explain(utility, verdict, threshold),
            )
        )
    return LabelledSearch(search.query, search.sent, rows, _outcome(example, len(utilities)), n)


def _outcome(example: Example | None, candidates: int) -> str:
    if example is None:
        return f"Not used for training: none of its {candidates} candidates made an example."
    return (
        f"Used for training: {len(example.positives)} of {candidates} candidates as positives, "
        f"{len(example.negatives)} as hard negatives."
    )


def _verdict(utility: Utility, example: Example | None) -> str:
    if example is not None and utility.passage_id in example.positives:
        return "positive"
    if example is not None and utility.passage_id in example.negatives:
        return "hard negative"
    return "not used"


def explain(utility: Utility, verdict: str, threshold: float = 60.0) -> str:
    """Say in one sentence why a candidate got its verdict."""
    if utility.relevance is None:
        return "The judge's score could not be read, so it is neither positive nor negative."
    score = f"Judged {utility.relevance:g} of 100"
    if utility.correctness is not None:
        told = f"{score}; going on from it, the agent's final answer was {_end(utility)}"
        if verdict == "positive" and not utility.gain:
            return f"{told}, as it was whatever was tried: relevance alone decided."
        return f"{told}."
    if utility.read:
        return f"{score}; an earlier search had shown it, so it adds nothing: not tried."
    if verdict == "positive":
        return f"{score}; relevance alone decided, not tried."
    if utility.why.startswith("failed"):
        return f"{score}; the agent could not be continued from it ({utility.why})."
    if utility.relevance < threshold:
        return f"{score}, under the threshold of {threshold:g}: cannot be a positive, not tried."
    if verdict == "hard negative":
        return f"{score}; a better judged passage already led to the right answer, not tried."
    return f"{score}; trying it could no longer change the labels."


def _end(utility: Utility) -> str:
    """What the agent's answer was worth; an average of several lies between right and wrong."""
    value = utility.correctness or 0.0
    if 0.0 < value < 1.0:
        return f"worth {value:.2f} of 1"
    return "right" if value else "wrong"


def choose(
    before: Sequence[Trajectory],
    after: Sequence[Trajectory],
    count: int = 4,
    seed: int = 0,
    labelled: Mapping[tuple[str, str], int] | None = None,
) -> list[tuple[Trajectory, Trajectory, str]]:
    """Choose the questions to show: (before, after, why), by a rule and a seed.

    One question that became wrong, where there is one, and for the rest questions that became
    right, those with the most searches first, then one that stayed wrong. With `labelled`
    (question key -> labelled searches), only questions that have a labelled search are taken.
    """
    later = by_key([record(t) for t in after], "after")
    ends = {t.question.key: t for t in after}
    kinds: dict[str, list[Trajectory]] = {"better": [], "worse": [], "still": []}
    for trajectory in before:
        key = trajectory.question.key
        if key not in later or (labelled is not None and not labelled.get(key)):
            continue
        change = later[key].em - record(trajectory).em
        if change:
            kinds["better" if change > 0 else "worse"].append(trajectory)
        elif not later[key].em:
            kinds["still"].append(trajectory)
    for name, found in kinds.items():
        random.Random(f"{seed}:cases:{name}").shuffle(found)
        found.sort(key=lambda t: -len(ends[t.question.key].searches))
    worse = [(t, "became wrong after training") for t in kinds["worse"][:1]]
    better = [(t, "became right after training") for t in kinds["better"]]
    still = [(t, "stayed wrong after training") for t in kinds["still"][:1]]
    picked = better[: max(0, count - len(worse))] + worse
    picked += still[: max(0, count - len(picked))]
    return [(t, ends[t.question.key], why) for t, why in picked]
