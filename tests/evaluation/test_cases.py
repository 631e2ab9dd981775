from __future__ import annotations

import msgspec

from agentic_r.evaluation.cases import choose, explain, labelled_searches, side
from agentic_r.types import (
    Example,
    Hit,
    Passage,
    Question,
    Search,
    Trajectory,
    Turn,
    Utility,
)


def run(id: str, answer: str | None, searches: int = 1) -> Trajectory:
    asked = Question(id, f"question {id}", ("right",), "made")
    hits = tuple(Hit(Passage(f"p{n}", f"text {n}", f"title {n}"), 1.0) for n in range(4))
    turns = [
        Turn("s", "search", (Search(f"query {n}", f"sent {id} {n}", hits),), observation="o")
        for n in range(searches)
    ]
    return Trajectory(f"made/{id}", asked, (*turns, Turn("a", "answer", answer=answer)), "answered")


def utility(rank: int, relevance: float | None, correctness: float | None, why: str) -> Utility:
    return Utility("made/q", 1, "sent q 1", f"p{rank}", rank, relevance, correctness, why)


def test_a_side_shows_what_was_asked_found_and_answered() -> None:
    shown = side(
        run("q", "Right.", 2), "untouched", lambda q, s: "p1" if s.query[-1] == "0" else None
    )
    assert shown.correct and shown.answer == "Right." and shown.stop == "answered"
    assert [s.query for s in shown.searches] == ["query 0", "query 1"]
    assert [hit.gold for hit in shown.searches[0].hits] == [False, True, False]
    assert [hit.gold for hit in shown.searches[1].hits] == [None, None, None]


def test_labels_are_explained_positives_first() -> None:
    utilities = [
        utility(0, 30, None, "not needed"),
        utility(1, 95, 0.0, "measured"),
        utility(2, 90, 1.0, "measured"),
        utility(3, None, None, "failed: unreadable"),
    ]
    example = Example("made", "q", "sent q 1", ("p2",), ("p1", "p0"))
    other = [msgspec.structs.replace(u, trajectory_id="made/else") for u in utilities]
    passages = {f"p{n}": Passage(f"p{n}", f"text {n}", f"title {n}") for n in range(4)}
    (found,) = labelled_searches(
        run("q", "wrong", 2), utilities + other, [example], passages.__getitem__
    )
    assert (found.search, found.query, found.sent) == (1, "query 1", "sent q 1")
    assert [(p.rank, p.verdict) for p in found.passages] == [
        (2, "positive"),
        (0, "hard negative"),
        (1, "hard negative"),
        (3, "not used"),
    ]
    assert "1 of 4 candidates as positives, 2 as hard negatives" in found.outcome
    assert found.passages[0].reason.endswith("the agent's final answer was right.")
    (dropped,) = labelled_searches(run("q", "wrong", 2), utilities, [], passages.__getitem__)
    assert dropped.outcome.startswith("Not used") and dropped.passages[0].verdict == "not used"


def test_every_verdict_has_its_own_reason() -> None:
    reasons = [
        explain(utility(0, 95, 1.0, "measured"), "positive"),
        explain(utility(0, 95, 0.0, "measured"), "hard negative"),
        explain(utility(0, 20, None, "not needed"), "hard negative"),
        explain(utility(0, 70, None, "not needed"), "hard negative"),
        explain(utility(0, 70, None, "not needed"), "not used"),
        explain(utility(0, 70, None, "failed: server down"), "not used"),
        explain(utility(0, None, None, "failed: unreadable"), "not used"),
    ]
    assert len(set(reasons)) == 7
    wrong = explain(utility(0, 95, 0.0, "measured"), "positive")
    assert wrong.endswith("was wrong, as it was whatever was tried: relevance alone decided.")
    assert explain(utility(0, 95, None, "not needed"), "positive").endswith("decided, not tried.")
    assert "worth 0.50 of 1" in explain(utility(0, 95, 0.5, "measured"), "positive")
    shown = msgspec.structs.replace(utility(0, 95, None, "not needed"), read=True)
    assert "an earlier search had shown it" in explain(shown, "hard negative")
    assert "under the threshold of 60" in reasons[2] and "server down" in reasons[5]


def test_cases_are_chosen_by_rule_with_one_that_became_wrong() -> None:
    before = [run(f"b{n}", "no") for n in range(6)] + [run("w", "right"), run("same", "no")]
    after = [run(f"b{n}", "right", searches=n + 1) for n in range(6)]
    after += [run("w", "no"), run("same", "no")]
    chosen = choose(before, after, 4, seed=1)
    assert [b.question.id for b, _, _ in chosen] == ["b5", "b4", "b3", "w"]
    assert all(b.question.id == a.question.id for b, a, _ in chosen)
    assert chosen[-1][2] == "became wrong after training"
    assert choose(before, after, 4, seed=1) == chosen
    only = choose(before, after, 4, labelled={("made", "b1"): 2})
    assert [b.question.id for b, _, _ in only] == ["b1"]
    assert [b.question.id for b, _, _ in choose(before[6:], after[6:], 4)] == ["w", "same"]
    assert choose([], [], 4) == []
