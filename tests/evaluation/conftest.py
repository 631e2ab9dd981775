"""A made-up run, complete enough to fill every part of the report."""

from __future__ import annotations

import random

import pytest

from agentic_r.evaluation.benchmark import Row
from agentic_r.evaluation.cases import (
    Case,
    LabelledPassage,
    LabelledSearch,
    ShownHit,
    ShownSearch,
    Side,
)
from agentic_r.evaluation.compare import Compared
from agentic_r.evaluation.costs import Spent
from agentic_r.evaluation.report import (
    Curve,
    DevMeasurement,
    Gain,
    Labelling,
    Point,
    Report,
    Setup,
    StageTime,
)

BEFORE = "untouched question+query, k=2"
AFTER = "iteration 2, k=2"


def made_row(name: str, k: int, em: float, seconds: float = 31.4) -> Row:
    """A row whose parts follow from its EM."""
    return Row(
        name=name,
        k=k,
        em=em,
        f1=min(1.0, em + 0.021),
        hit_at_3=min(1.0, em + 0.16),
        searches=2.07,
        seconds=seconds,
        n=440,
        em_seen=min(1.0, em + 0.02),
        em_unseen=em - 0.04,
        em_by_hops={"1": min(1.0, em + 0.15), "2": em, "3": em - 0.14},
        n_seen=293,
        n_unseen=147,
        n_by_hops={"1": 150, "2": 170, "3": 120},
        asked=902,
        tokens=147.2,
        prompt_tokens=1304.6,
        cost=0.28402,
    )


def made_curve(iteration: int) -> Curve:
    """A falling, noisy loss, and what is measured beside it."""
    generator = random.Random(f"curve:{iteration}")
    points = []
    for step in range(1, 121):
        loss = 2.4 / (1 + step / 30) + 0.25 * generator.random()
        right = round(16 * max(0.0, 1 - loss / 3)) / 16
        points.append(Point(step, loss, step / 60, 4e-5, step * 0.7, right))
    dev = [DevMeasurement(step, 0.338 + step / 600, 0.295 + step / 700) for step in (0, 60, 120)]
    return Curve(iteration, 960 + 40 * iteration, points, dev, dev_k=3)


def made_reranker_curve(iteration: int) -> Curve:
    """A short training without a measurement on dev."""
    points = [Point(step, 3.1 / step, 0, 1e-5, step * 1.9, 0.5) for step in range(1, 9)]
    return Curve(iteration, 960 + 40 * iteration, points)


def made_case(text: str = "Maro Veltan (born 1961) is a film director from Ostrel.") -> Case:
    """One training question that became right, with labels."""
    wrong = ShownHit("Maro Veltan", "Maro Veltan is a novelist. He was born in Quillon.", False)
    right = ShownHit("Maro Veltan (director)", text, True)
    return Case(
        question="In which city was the director of The Glass Harbour born?",
        answers=["Ostrel"],
        split="training",
        why="became right after training",
        before=Side(
            "untouched",
            "Quillon",
            False,
            "answered",
            [
                ShownSearch("director of The Glass Harbour", [right, wrong]),
                ShownSearch("where was Maro Veltan born", [wrong]),
            ],
        ),
        after=Side(
            "iteration 1",
            "Ostrel",
            True,
            "answered",
            [ShownSearch("where was Maro Veltan born", [right])],
        ),
        labels=[
            LabelledSearch(
                "where was Maro Veltan born",
                "In which city was the director of The Glass Harbour born? [SEP] where was Maro "
                "Veltan born",
                [
                    LabelledPassage(
                        right.title, text, 6, 92.0, 1.0, "positive", "Judged 92 of 100; right."
                    ),
                    LabelledPassage(
                        wrong.title, wrong.text, 0, 34.0, None, "hard negative", "Judged 34."
                    ),
                    LabelledPassage("Ostrel", "A city.", 3, None, None, "not used", "Unread."),
                ],
                "Used for training: 1 of 20 candidates as positives, 15 as hard negatives.",
                search=1,
            )
        ],
    )


def made_report() -> Report:
    """A report with every field filled."""
    rows = [
        made_row("BM25, k=2", 2, 0.332, 12.1),
        *(
            made_row(f"untouched {form}, k={k}", k, em)
            for form, values in (
                ("query", (0.291, 0.345, 0.318)),
                ("question+query", (0.352, 0.412, 0.377)),
            )
            for k, em in zip((1, 2, 3), values, strict=True)
        ),
        made_row("iteration 1, k=2", 2, 0.548),
        made_row(AFTER, 2, 0.586),
        made_row("oracle, k=2", 2, 0.731),
    ]
    compared = [
        Compared("BM25, k=2", BEFORE, "em", -0.080, -0.127, -0.034, 440, 118),
        Compared("iteration 1, k=2", BEFORE, "em", 0.136, 0.089, 0.182, 440, 118),
        Compared(AFTER, BEFORE, "em", 0.174, 0.129, 0.221, 440, 118),
        Compared("oracle, k=2", BEFORE, "em", 0.319, 0.270, 0.366, 440, 118),
    ]
    stages = [StageTime("world", 1.2), StageTime("index", 14.8), StageTime("dev", 38.0)]
    for iteration in (1, 2):
        stages += [
            StageTime("rollouts", 71.3, iteration),
            StageTime("labels", 148.2 / iteration, iteration),
            StageTime("retriever", 96.1, iteration),
            StageTime("index", 14.9, iteration),
        ]
    stages.append(StageTime("evaluation", 139.4))
    return Report(
        name="quickstart",
        seed=0,
        setup=Setup(
            agent="tiny, 2.1 M parameters",
            retriever="all-MiniLM-L6-v2",
            judge="offline rule",
            corpus="a generated world of invented people, companies, cities and films",
            passages=1612,
            train=700,
            dev=120,
            test=440,
            roots=118,
            k=2,
            input="question+query",
        ),
        rows=rows,
        gain=Gain(0.174, 0.129, 0.221, AFTER, BEFORE),
        comparisons=compared,
        labelling=[
            Labelling(1391, 604, 2213, 27820, judge_calls=1402, subanswer_calls=410),
            Labelling(1502, 811, 2598, 30040, judge_calls=1511),
        ],
        drops=[
            {"no relevant candidate": 512, "no correct candidate": 270, "too few negatives": 5},
            {"no relevant candidate": 430, "no correct candidate": 261},
        ],
        failures=[
            {
                "relevance failed: the relevance could not be read": 37,
                "correctness failed: HTTP 500": 4,
            },
            {},
        ],
        curves=[made_curve(1), made_curve(2)],
        rerankers=[made_reranker_curve(2)],
        spent=[
            Spent("agent", 41_873, 18_204_118, 2_310_455, reused=12, cost=4.1169),
            Spent("judge", 9_120, 7_001_242, 182_400, untold=3),
        ],
        stages=stages,
        cases=[made_case()],
        gap_closed=0.545,
        settings={"seed": "0", "retriever.base": "all-MiniLM-L6-v2", "retriever.k": "2"},
        machine="2 CPU cores",
        limits=["The world is invented: real text is harder in other ways."],
    )


@pytest.fixture
def report() -> Report:
    """A fresh made-up report."""
    return made_report()
