from __future__ import annotations

import pytest
import torch

from agentic_r.data.corpus import Corpus
from agentic_r.retriever.development import DevScore, hold_out, make_dev, measure
from agentic_r.types import Example, Passage

CORPUS = Corpus([Passage(f"p{i}", f"text {i}") for i in range(30)])
DEV = [Example("d", "1", "a", ("p1", "p2"), ("p3",)), Example("d", "2", "b", ("p4",), ())]
TRAINED = [Example("d", "9", "c", ("p8",), ("p9", "p10", "p1"))]


def test_the_pool_has_what_is_wanted_then_what_is_trained_on_then_others() -> None:
    dev = make_dev(CORPUS, DEV, TRAINED, 7, 0)
    assert dev is not None
    assert set(dev.pool[:4]) == {"p1", "p2", "p3", "p4"}
    assert len(dev.pool) == len(set(dev.pool)) == 7
    assert set(dev.pool[4:]) == {"p8", "p9", "p10"}
    wide = make_dev(CORPUS, DEV, TRAINED, 12, 0)
    assert wide is not None and len(set(wide.pool)) == 12
    whole = make_dev(CORPUS, DEV, TRAINED, 99, 0)
    assert whole is not None and set(whole.pool) == {p.id for p in CORPUS}
    assert make_dev(CORPUS, DEV, TRAINED, 12, 0) == wide != make_dev(CORPUS, DEV, TRAINED, 12, 1)
    assert make_dev(CORPUS, [], TRAINED, 7, 0) is None


def test_hit_and_reciprocal_rank_are_counted_by_hand() -> None:
    dev = make_dev(CORPUS, DEV, [], 4, 0)
    assert dev is not None
    score = {"p1": 0.1, "p2": 0.8, "p3": 0.9, "p4": 0.2}
    passages = torch.tensor([[score[id]] for id in dev.pool])
    found = measure(dev, lambda queries, ids: (torch.ones(2, 1), passages), k=2)
    # a: p2 is second; b: p4 is third.
    assert found == DevScore(0.5, pytest.approx((1 / 2 + 1 / 3) / 2))
    assert measure(dev, lambda queries, ids: (torch.ones(2, 1), passages), k=3).hit == 1.0


def test_whole_questions_are_held_out() -> None:
    examples = [Example("d", str(i // 3), f"q{i}", ("p1",), ()) for i in range(30)]
    kept, held = hold_out(examples, 0.2, 0)
    assert len(kept) == 24 and len(held) == 6
    assert not {x.question_id for x in kept} & {x.question_id for x in held}
    assert hold_out(examples, 0.2, 0) == (kept, held) != hold_out(examples, 0.2, 1)
    assert hold_out(examples, 0.0, 0) == (examples, [])
