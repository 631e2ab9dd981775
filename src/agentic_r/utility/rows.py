"""The rows that labelling starts from: candidates judged, nothing continued yet."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_r.data.copies import content_key
from agentic_r.metrics import answer_in, normalise_answer
from agentic_r.types import Candidate, Trajectory, Utility
from agentic_r.utility.relevance import Graded
from agentic_r.utility.subanswers import sure

_SAYS_NOTHING = frozenset({"yes", "no", "noanswer"})
"""Answers whose occurrence in a passage means nothing."""


def unmeasured(
    trajectory: Trajectory, search: int, candidates: Sequence[Candidate], graded: Graded
) -> tuple[Utility, ...]:
    """Make one row per candidate of a search; correctness is "not needed" until it is measured."""
    read = {hit.passage.id for each in trajectory.searches[:search] for hit in each.hits}
    wanted = [
        answer
        for answer in (sure(graded.subanswer), *trajectory.question.answers)
        if answer is not None and normalise_answer(answer) not in _SAYS_NOTHING
    ]
    unread = f"failed: {graded.error or 'the relevance could not be read'}"
    return tuple(
        Utility(
            trajectory.id,
            search,
            trajectory.searches[search].sent,
            candidate.passage.id,
            candidate.rank,
            relevance,
            None,
            unread if relevance is None else "not needed",
            holds=any(answer_in(candidate.passage.contents, answer) for answer in wanted),
            read=candidate.passage.id in read,
            content=content_key(candidate.passage.contents).hex()[:16],
        )
        for candidate, relevance in zip(candidates, graded.relevance, strict=True)
    )
