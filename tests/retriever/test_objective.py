"""Upstream's recipe on an encoder: loss and gradients equal a literal re-implementation of it."""

from __future__ import annotations

import itertools

import msgspec
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from agentic_r.config import RetrieverTrainConfig
from agentic_r.data.corpus import Corpus
from agentic_r.retriever.batches import Batch, Batches, one_positive_each
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.objective import objective, places
from agentic_r.retriever.training import Training
from agentic_r.training.processes import Processes
from agentic_r.types import Example

IDS = [f"{kind}{i}" for kind in "br" for i in range(8)]


def rows(tied: bool) -> list[Example]:
    """Rows of 8 passages with utilities; rows of one search share all negatives."""
    found = []
    for number in range(3):
        ids = IDS[number : number + 9]
        utilities = [1.0, 1.0, 0.9, 0.9 if tied else 0.8, 0.5, 0.4, 0.2, 0.1, 0.0]
        found.append(Example("d", str(number), f"who {ids[0]}", ids[:2], ids[2:], tuple(utilities)))
    return one_positive_each(
        msgspec.structs.replace(x, positives=tuple(x.positives), negatives=tuple(x.negatives))
        for x in found
    )


def upstream(encoder: Encoder, corpus: Corpus, batch: Batch, examples: list[Example], rank: bool):
    """Contracts B7: every passage of every row forwarded, label i * 8, cosine / 0.01."""
    by_row = {(x.query, x.positives[0]): x for x in examples}
    order = [
        by_row[query, batch.passages[listed[0]]]
        for query, listed in zip(batch.queries, batch.listed, strict=True)
    ]
    queries = encoder.forward(encoder.tokens([x.query for x in order], "query"))
    flat = [id for x in order for id in (*x.positives, *x.negatives)]
    passages = encoder.forward(encoder.tokens([corpus.get(id).contents for id in flat], "passage"))
    cosines = queries @ passages.T
    each = len(flat) // len(order)
    loss = cross_entropy(cosines / 0.01, torch.arange(len(order)) * each)
    if not rank:
        return loss
    gaps, labels = [], []
    for i, x in enumerate(order):
        own = cosines[i, i * each : (i + 1) * each]
        truth: list[float] = []
        for position in range(each):
            tie = position and x.targets[position] == x.targets[position - 1]
            truth.append(truth[-1] if tie else 1 / (position + 1))
        for a, b in itertools.product(range(each), repeat=2):
            if truth[a] > truth[b]:
                gaps.append(own[a] - own[b])
                labels.append(1.0)
    pairs = binary_cross_entropy_with_logits(torch.stack(gaps), torch.tensor(labels))
    return 0.5 * loss + 0.5 * pairs


@pytest.mark.parametrize("loss", ["info-nce", "rank-net"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_upstream_recipe_is_upstream_loss_and_gradients(
    encoder: Encoder, corpus: Corpus, loss: str, tied: bool
) -> None:
    examples = rows(tied)
    settings = RetrieverTrainConfig(recipe="upstream", loss=loss, temperature=0.7, batch=6)
    batches = Batches(examples, 6, 0)
    batch = next(batches.epoch(0))
    training = Training(
        encoder.copy(), encoder, corpus, batches, settings, 0,
        bf16=False, dev=None, processes=Processes(),
    )  # fmt: skip
    value, _ = training.backward(batch)
    literal = encoder.copy()
    expected = upstream(literal, corpus, batch, examples, loss == "rank-net")
    expected.backward()
    # Relative: temperature .01 makes a float32 cosine's rounding a hundred times as large.
    assert value == pytest.approx(float(expected.detach()), rel=1e-5)
    theirs = {n: p.grad for n, p in literal.model.named_parameters() if p.grad is not None}
    ours = {n: p.grad for n, p in training.encoder.model.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    largest = max(float(grad.abs().max()) for grad in theirs.values())
    for name, grad in theirs.items():
        assert float((ours[name] - grad).abs().max()) < 1e-5 * max(1.0, largest)


def test_the_upstream_recipe_counts_what_the_default_masks(
    encoder: Encoder, corpus: Corpus
) -> None:
    # Faults C44: rows of one search have each other's positive as a negative, and 7 passages twice.
    batch = next(Batches(rows(True), 6, 0).epoch(0))
    vectors = torch.nn.functional.normalize(torch.randn(6, 8), dim=-1), torch.eye(8)
    passages = vectors[1][torch.arange(len(batch.passages)) % 8]
    masked, plain = (
        float(objective(batch, RetrieverTrainConfig(recipe=recipe, temperature=0.01),
                        torch.device("cpu"))(vectors[0], passages))
        for recipe in ("agentic-r", "upstream")
    )  # fmt: skip
    assert plain > masked


def test_places_are_shared_by_neighbours_of_equal_utility_alone() -> None:
    example = Example("d", "1", "q", ("a",), ("b", "c", "d"), (0.5, 0.5, 0.2, 0.5))
    batch = next(Batches([example], 1, 0).epoch(0))
    assert places(batch)[0].tolist() == pytest.approx([1, 1, 1 / 3, 1 / 4])
    plain = next(Batches([msgspec.structs.replace(example, targets=None)], 1, 0).epoch(0))
    assert places(plain)[0].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
