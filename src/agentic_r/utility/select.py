"""From utilities to training examples: what the rule keeps, drawn with a seed and counted."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import groupby

from agentic_r.types import Example, Utility
from agentic_r.utility.rules.graded import GradedRule
from agentic_r.utility.rules.upstream import UPSTREAM, UpstreamRule
from agentic_r.utility.rules.verdict import (
    ANSWERED,
    NO_CORRECT,
    NO_RELEVANT,
    NOT_MEASURED,
    OVER_CAP,
    REASONS,
    TOO_FEW,
    Rule,
    Verdict,
    levels,
)

__all__ = [
    "ANSWERED",
    "NOT_MEASURED",
    "NO_CORRECT",
    "NO_RELEVANT",
    "OVER_CAP",
    "REASONS",
    "TOO_FEW",
    "UPSTREAM",
    "GradedRule",
    "Rule",
    "UpstreamRule",
    "Verdict",
    "by_search",
    "levels",
    "select",
]


def select(
    dataset: str,
    question_id: str,
    utilities: Sequence[Utility],
    *,
    rule: Rule = UPSTREAM,
    seed: int = 0,
) -> tuple[list[Example], dict[str, int]]:
    """Turn the utilities of one question into training examples, at most one a search.

    An example holds the first `max_positives` positives of the verdict, and `negatives` of its
    pool: those that the rule wants first, then a draw in candidate-rank order by a generator
    keyed by (seed, dataset, question, trajectory, search), so that it depends on nothing else.
    Of more than `per_question` examples a draw by (seed, dataset, question) remains. Returned
    beside the examples: how many searches were dropped for each reason. A search whose utilities
    do not suffice for this rule (measured lazily for another one) counts as "not measured".
    """
    examples: list[Example] = []
    dropped = dict.fromkeys(REASONS, 0)
    for (trajectory_id, search), rows in by_search(utilities):
        verdict = rule.verdict(rows)
        if verdict.needed or verdict.reason:
            dropped[verdict.reason or NOT_MEASURED] += 1
            continue
        key = json.dumps([seed, dataset, question_id, trajectory_id, search])
        examples.append(_example(dataset, question_id, rows, verdict, rule, key))
    if 0 < rule.per_question < len(examples):
        draw = random.Random(json.dumps([seed, dataset, question_id]))
        chosen = sorted(draw.sample(range(len(examples)), rule.per_question))
        dropped[OVER_CAP] += len(examples) - len(chosen)
        examples = [examples[at] for at in chosen]
    return examples, {reason: count for reason, count in dropped.items() if count}


def _example(
    dataset: str,
    question_id: str,
    rows: Sequence[Utility],
    verdict: Verdict,
    rule: Rule,
    key: str,
) -> Example:
    first = verdict.first[: rule.negatives]
    rest = [rank for rank in verdict.pool if rank not in first]
    count = min(rule.negatives - len(first), len(rest))
    negatives = sorted([*first, *random.Random(key).sample(rest, count)])
    positives = verdict.positives[: rule.max_positives]
    ranks = [*positives, *negatives]
    return Example(
        dataset,
        question_id,
        rows[0].sent,
        tuple(rows[rank].passage_id for rank in positives),
        tuple(rows[rank].passage_id for rank in negatives),
        tuple(verdict.targets[rank] for rank in ranks) if verdict.targets else None,
    )


def by_search(utilities: Sequence[Utility]) -> list[tuple[tuple[str, int], list[Utility]]]:
    """Group utilities by (trajectory, search), in that order, each group by candidate rank."""
    ordered = sorted(utilities, key=lambda row: (row.trajectory_id, row.search, row.rank))
    groups = groupby(ordered, key=lambda row: (row.trajectory_id, row.search))
    return [(key, list(rows)) for key, rows in groups]
