"""Fresh hard negatives: what the encoder being trained now finds and should not.

Measured negatives come from the retriever the agent searched with; the encoder soon ranks others
on top (ANCE, arXiv 2007.00808). Nobody measured those, so one that scores nearly as high as the
positive may be useful itself and is left out (positive-aware mining, arXiv 2407.15831).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from agentic_r.data.copies import content_key
from agentic_r.data.corpus import Corpus
from agentic_r.retriever.batches import Batches

_ROWS = 65_536
"""Passages scored at once."""


def mine(
    batches: Batches,
    corpus: Corpus,
    queries: torch.Tensor,
    passages: torch.Tensor,
    *,
    count: int,
    margin: float,
) -> list[tuple[str, ...]]:
    """Find up to `count` new negatives for each example, hardest first.

    queries [q, d] are unit rows in the order of the examples, passages [p, d] in that of the
    corpus. Left out are what the example names, what is useful to the same query or question,
    copies of those, and what scores above `margin` times the lowest of its positives.
    """
    rows = {passage.id: row for row, passage in enumerate(corpus)}
    keys = [content_key(passage.contents) for passage in corpus]
    copies: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        copies.setdefault(key, []).append(row)
    # Copies go by one name, the one that the examples use where they have the passage.
    named = [id for x in batches.examples for id in (*x.positives, *x.negatives)]
    names: dict[bytes, str] = {}
    for id in (*named, *rows):
        names.setdefault(keys[rows[id]], id)
    found = []
    for example, query in zip(batches.examples, queries, strict=True):
        useful = batches.useful(example)
        scores = torch.cat([part @ query for part in torch.split(passages, _ROWS)])
        lowest = min(float(scores[rows[id]]) for id in example.positives)
        taken = {keys[rows[id]] for id in (*useful, *example.negatives)}
        scores[scores > margin * lowest] = -torch.inf
        scores[[row for key in taken for row in copies[key]]] = -torch.inf
        top = scores.topk(min(len(scores), 2 * count))
        found.append(_fresh(top, keys, names, count))
    return found


def _fresh(
    top: torch.return_types.topk, keys: Sequence[bytes], names: Mapping[bytes, str], count: int
) -> tuple[str, ...]:
    best = zip(top.values.tolist(), top.indices.tolist(), strict=True)
    mined = [names[keys[row]] for score, row in best if score > -torch.inf]
    return tuple(dict.fromkeys(mined))[:count]
