from __future__ import annotations

import pytest

from agentic_r.errors import DataError
from agentic_r.retriever.batches import Batch, Batches
from agentic_r.types import Example


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
