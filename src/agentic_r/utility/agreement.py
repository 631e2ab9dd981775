"""How far two judges agree on the same candidates, or one judge with itself in another order."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from statistics import mean, stdev

import msgspec

from agentic_r.protocols import Judge, JudgeRequest
from agentic_r.types import Trajectory
from agentic_r.utility.prompting import close

Place = tuple[Trajectory, int]
Scores = Sequence[float | None]


class Agreement(msgspec.Struct, frozen=True):
    """What two judges said of the same searches.

    `correlation` is the mean over searches of Kendall's tau-b between their scores, ties counted,
    with the half width of its 95 % interval; NaN where no search has two different scores from
    both. `ordered` is the number of searches that it is over. `first` and `second` count the
    passages that each puts on top at or above the threshold, `both` those that are common, and
    `kept` the searches where each has such a passage. `unread` are scores that could not be read.
    """

    searches: int
    passages: int
    ordered: int
    correlation: float
    half: float
    first: int
    second: int
    both: int
    kept: tuple[int, int]
    unread: tuple[int, int]

    def lines(self, names: tuple[str, str]) -> list[str]:
        """Say it in plain lines."""
        either = self.first + self.second - self.both
        share = f"{self.both / either:.0%}" if either else "none"
        said = [
            f"{self.searches:,} search{'es' * (self.searches != 1)}, {self.passages:,} passages",
            self._correlated(),
            f"positives in common {self.both:,} of {either:,} ({share})",
        ]
        for name, tops, kept, unread in zip(
            names, (self.first, self.second), self.kept, self.unread, strict=True
        ):
            said.append(
                f"  {name}: {tops:,} positive{'s' * (tops != 1)} in {kept:,} "
                f"search{'es' * (kept != 1)}, {unread:,} score{'s' * (unread != 1)} unread"
            )
        return said

    def _correlated(self) -> str:
        """The correlation, with its interval where there is more than one search."""
        if not self.ordered:
            return "rank correlation: none, for no search is ordered by both judges"
        told = f"rank correlation (Kendall's tau-b) {self.correlation:.3f}"
        if self.ordered == 1:
            return f"{told}, over 1 search that both judges order"
        return f"{told} ± {self.half:.3f}, over {self.ordered:,} searches that both judges order"


class Shuffled:
    """A judge that is shown the passages in another order, drawn by (seed, question, query)."""

    def __init__(self, judge: Judge, seed: int = 0) -> None:
        self._judge = judge
        self._seed = seed

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Score each passage of the request, in the order of the request."""
        order = list(range(len(request.passages)))
        random.Random(json.dumps([self._seed, request.question, request.query])).shuffle(order)
        shown = tuple(request.passages[place] for place in order)
        said = await self._judge.relevance(msgspec.structs.replace(request, passages=shown))
        scores: list[float | None] = [None] * len(order)
        for place, score in zip(order, said, strict=True):
            scores[place] = score
        return scores

    async def aclose(self) -> None:
        """Close the judge's connections."""
        await close(self._judge)


def agreement(
    first: Sequence[Scores], second: Sequence[Scores], *, threshold: float = 60.0
) -> Agreement:
    """Compare two judges' scores, one list a search, both in the same order."""
    taus = [
        value
        for value in (tau_b(a, b) for a, b in zip(first, second, strict=True))
        if not math.isnan(value)
    ]
    tops = [[top(scores, threshold) for scores in side] for side in (first, second)]
    return Agreement(
        searches=len(first),
        passages=sum(map(len, first)),
        ordered=len(taus),
        correlation=mean(taus) if taus else math.nan,
        half=1.96 * stdev(taus) / math.sqrt(len(taus)) if len(taus) > 1 else math.nan,
        first=sum(map(len, tops[0])),
        second=sum(map(len, tops[1])),
        both=sum(len(a & b) for a, b in zip(*tops, strict=True)),
        kept=(sum(map(bool, tops[0])), sum(map(bool, tops[1]))),
        unread=(_unread(first), _unread(second)),
    )


def top(scores: Scores, threshold: float) -> set[int]:
    """Return the places of the best score, all of them, where it reaches the threshold."""
    best = max((score for score in scores if score is not None), default=-1.0)
    return {n for n, score in enumerate(scores) if score == best} if best >= threshold else set()


def tau_b(first: Scores, second: Scores) -> float:
    """Return Kendall's tau-b over the passages that both scored; NaN where one has no order."""
    from scipy.stats import kendalltau

    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if len({a for a, _ in pairs}) < 2 or len({b for _, b in pairs}) < 2:
        return math.nan
    return float(kendalltau([a for a, _ in pairs], [b for _, b in pairs]).statistic)


def _unread(side: Sequence[Scores]) -> int:
    return sum(score is None for scores in side for score in scores)
