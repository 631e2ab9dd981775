from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.data.copies import content_key
from agentic_r.data.corpus import Corpus
from agentic_r.retriever.batches import Batches, same_passages_once
from agentic_r.retriever.mining import mine
from agentic_r.types import Example, Passage

TEXTS = ["a", "b", "B ", "c", "d", "e", "f", "E"]
CORPUS = Corpus([Passage(f"p{i}", text) for i, text in enumerate(TEXTS)])


def by_score(scores: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(1, 1), torch.tensor([[score] for score in scores])


def test_the_best_scored_passages_that_are_not_useful_are_taken() -> None:
    batches = Batches(
        [Example("d", "1", "q", ("p0",), ("p3",)), Example("d", "1", "r", ("p1",), ())], 2, 0
    )
    _, passages = by_score([0.9, 0.8, 0.8, 0.7, 0.6, 0.5, 0.4, 0.5])
    found = mine(batches, CORPUS, torch.ones(2, 1), passages, count=2, margin=1.0)
    # p1 and its copy p2 answer another search of the question, p3 is there already, p7 copies p5.
    assert found == [("p4", "p5"), ("p3", "p4")]


def test_what_scores_like_a_positive_is_left_out() -> None:
    batches = Batches([Example("d", "1", "q", ("p0",), ())], 1, 0)
    queries, passages = by_score([0.8, 0.79, 0.79, 0.6, 0.5, 0.2, 0.1, 0.0])
    found = mine(batches, CORPUS, queries, passages, count=9, margin=0.75)
    assert found[0][:2] == ("p3", "p4")
    assert "p1" not in found[0]


IDS = st.sampled_from([f"p{i}" for i in range(len(TEXTS))])


@given(
    st.lists(st.floats(-1, 1, width=16), min_size=8, max_size=8),
    st.lists(IDS, min_size=1, max_size=2, unique=True),
    st.lists(IDS, max_size=3, unique=True),
    st.integers(1, 8),
)
def test_mined_negatives_obey_the_rules(
    scores: list[float], positives: list[str], negatives: list[str], count: int
) -> None:
    (example,) = same_passages_once(
        CORPUS, [Example("d", "1", "q", tuple(positives), tuple(negatives))]
    )
    (found,) = mine(Batches([example], 1, 0), CORPUS, *by_score(scores), count=count, margin=0.9)
    value = dict(zip((p.id for p in CORPUS), scores, strict=True))
    keys = [content_key(CORPUS.get(id).contents) for id in found]
    assert len(found) <= count
    assert len(set(keys)) == len(keys)
    lowest = min(value[id] for id in example.positives)
    assert all(value[id] <= 0.9 * lowest or id in ("p1", "p5") for id in found)
    named = {content_key(CORPUS.get(id).contents) for id in (*positives, *negatives)}
    assert not named & set(keys)
