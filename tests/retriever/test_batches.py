from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.data.corpus import Corpus
from agentic_r.errors import DataError
from agentic_r.retriever.batches import Batch, Batches, one_positive_each, same_passages_once
from agentic_r.types import Example, Passage


def example(
    question: str, query: str, positives: tuple[str, ...], negatives: tuple[str, ...]
) -> Example:
    return Example("d", question, query, positives, negatives)


def only(examples: list[Example]) -> Batch:
    (batch,) = Batches(examples, len(examples), 0).epoch(0)
    return batch


def negatives(batch: Batch, query: str) -> set[str]:
    row = batch.queries.index(query)
    mask = batch.allowed[row] & ~batch.positive[row]
    return {id for id, on in zip(batch.passages, mask.tolist(), strict=True) if on}


def test_a_passage_is_in_a_batch_once() -> None:
    batch = only([example("1", "a", ("x",), ("n", "m")), example("2", "b", ("y",), ("n", "x"))])
    assert sorted(batch.passages) == ["m", "n", "x", "y"]
    assert batch.positive.sum(1).tolist() == [1, 1]


def test_passages_of_other_queries_are_negatives() -> None:
    batch = only([example("1", "a", ("x",), ("n",)), example("2", "b", ("y",), ("m",))])
    assert negatives(batch, "a") == {"n", "m", "y"}
    assert negatives(batch, "b") == {"n", "m", "x"}


def test_no_positive_of_the_same_query_is_a_negative() -> None:
    # Two trajectories sent one string; y, useful in one, was even measured useless in the other.
    rows = [example("1", "a", ("x",), ("y", "n")), example("1", "a", ("y",), ("m",))]
    batch = only([*rows, example("2", "b", ("z",), ("k",))])
    for row, query in enumerate(batch.queries):
        if query == "a":
            mask = (batch.allowed[row] & ~batch.positive[row]).tolist()
            found = {id for id, on in zip(batch.passages, mask, strict=True) if on}
            assert found == {"n", "m", "z", "k"}


def test_positives_of_an_example_in_another_batch_count_too() -> None:
    rows = [example("1", "a", ("x",), ("n",)), example("1", "a", ("y",), ("x", "m"))]
    for batch in Batches(rows, 1, 0).epoch(0):
        assert not (batch.allowed & ~batch.positive)[0, batch.passages.index("x")]


def test_another_hop_of_the_question_is_a_negative_only_where_measured() -> None:
    rows = [example("1", "a", ("x",), ("n",)), example("1", "b", ("y",), ("x",))]
    batch = only(rows)
    assert negatives(batch, "a") == {"n"}
    assert negatives(batch, "b") == {"x", "n"}


def test_epochs_are_seeded_complete_and_different() -> None:
    rows = [example(str(i), f"q{i}", (f"p{i}",), ("n",)) for i in range(20)]
    batches = Batches(rows, 6, 3)
    assert len(batches) == 4
    first, second = ([x.queries for x in batches.epoch(number)] for number in (0, 1))
    assert sorted(q for x in first for q in x) == sorted(q for x in second for q in x)
    assert first != second
    assert [x.queries for x in Batches(rows, 6, 3).epoch(0)] == first
    assert [x.queries for x in Batches(rows, 6, 4).epoch(0)] != first
    assert [x.queries for x in batches.epoch(0, start=2)] == first[2:]


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match="no training examples"):
        Batches([], 4, 0)
    with pytest.raises(DataError, match="without positives"):
        Batches([example("1", "a", (), ("n",))], 4, 0)


def test_negatives_are_drawn_anew_each_epoch() -> None:
    rows = [example("1", "a", ("x",), tuple(f"n{i}" for i in range(15)))]
    batches = Batches(rows, 1, 0, negatives=4)
    drawn = [next(batches.epoch(number)).passages for number in (0, 1, 0)]
    assert [len(passages) for passages in drawn] == [5, 5, 5]
    assert drawn[0] == drawn[2] != drawn[1]
    assert all(passages[0] == "x" for passages in drawn)


def test_targets_follow_their_passages_and_the_rest_has_none() -> None:
    rows = [
        Example("d", "1", "a", ("x",), ("n", "m"), (0.9, 0.1, 0.2)),
        Example("d", "2", "b", ("y",), ("n",)),
    ]
    batch = only(rows)
    row = batch.queries.index("a")
    found = dict(zip(batch.passages, batch.targets[row].tolist(), strict=True))
    assert {id: round(v, 6) for id, v in found.items() if v == v} == {"x": 0.9, "n": 0.1, "m": 0.2}
    assert batch.targets[1 - row].isnan().all()


def test_targets_of_another_number_are_refused() -> None:
    with pytest.raises(DataError, match="got 2 targets for 3 passages"):
        Batches([Example("d", "1", "a", ("x",), ("n", "m"), (1.0, 0.0))], 1, 0)


def test_mined_negatives_are_drawn_with_the_measured_ones() -> None:
    rows = [example("1", "a", ("x",), ("n0", "n1"))]
    batches = Batches(rows, 1, 0, negatives=2).with_mined([("m0", "m1")])
    seen = {id for number in range(20) for id in next(batches.epoch(number)).passages}
    assert seen == {"x", "n0", "n1", "m0", "m1"}
    assert all(len(next(batches.epoch(number)).passages) == 3 for number in range(20))


def test_upstream_rows_have_one_positive_and_all_negatives() -> None:
    row = Example("d", "1", "a", ("x", "y"), ("n", "m"), (0.9, 0.8, 0.1, 0.2))
    first, second = one_positive_each([row])
    assert (first.positives, first.negatives, first.targets) == (
        ("x",),
        ("n", "m"),
        (0.9, 0.1, 0.2),
    )
    assert (second.positives, second.targets) == (("y",), (0.8, 0.1, 0.2))
    batch = next(Batches([first, second], 2, 0).epoch(0))
    assert [[batch.passages[at] for at in rows] for rows in batch.listed] in (
        [["x", "n", "m"], ["y", "n", "m"]],
        [["y", "n", "m"], ["x", "n", "m"]],
    )


CORPUS = Corpus(
    [
        Passage("x", "Hives is a novel.", "Hives"),
        Passage("copy", "hives is  a novel. ", "HIVES"),
        Passage("n", "Ulm is a city.", "Ulm"),
        Passage("twin", "Ulm is a\ncity.", "Ulm"),
        Passage("m", "Bread", "Bread"),
    ]
)


def test_copies_of_a_positive_are_no_negatives() -> None:
    rows = [
        Example("d", "1", "a", ("x",), ("copy", "n", "twin", "m"), (1.0, 0.7, 0.2, 0.3, 0.0)),
        Example("d", "2", "b", ("copy",), ("twin",)),
    ]
    first, second = same_passages_once(CORPUS, rows)
    assert (first.positives, first.negatives) == (("x",), ("n", "m"))
    assert first.targets == (1.0, 0.2, 0.0)
    assert (second.positives, second.negatives) == (("x",), ("n",))
    # Two questions with copies of one passage: neither is the other's negative.
    batch = only([first, second])
    assert negatives(batch, "b") == {"n", "m"}


IDS = st.sampled_from(["x", "copy", "n", "twin", "m"])


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from("12"),
            st.lists(IDS, min_size=1, max_size=3, unique=True),
            st.lists(IDS, max_size=4, unique=True),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_masks_say_what_the_rule_says(
    rows: list[tuple[str, str, list[str], list[str]]],
) -> None:
    examples = same_passages_once(
        CORPUS,
        [Example("d", question, query, tuple(p), tuple(n)) for query, question, p, n in rows],
    )
    contents = [CORPUS.get(id).contents for x in examples for id in (*x.positives, *x.negatives)]
    keys = {content.lower().replace("\n", " ").replace("  ", " ").strip() for content in contents}
    batch = only(examples)
    assert len(batch.passages) == len(keys)
    rows_of = list(range(len(examples)))
    for at in rows_of:
        same = [x for x in examples if x.query == batch.queries[at]]
        for place, id in enumerate(batch.passages):
            if any(id in x.positives for x in same):
                assert not (batch.allowed & ~batch.positive)[at, place]
    assert torch.equal(batch.positive.sum(1) > 0, torch.ones(len(examples), dtype=torch.bool))
