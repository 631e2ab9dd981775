"""Two judges on a sample of a run's searches: which one to trust, before paying for all."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from agentic_r.config import Config
from agentic_r.errors import ConfigError, DataError, LLMError
from agentic_r.parts import TRIAL, judge_cache, open_judge
from agentic_r.protocols import AnnotatedJudge, Judge
from agentic_r.steps import Loop, Retrieval
from agentic_r.types import Trajectory
from agentic_r.utility.agreement import Shuffled, agreement
from agentic_r.utility.candidates import candidates_at
from agentic_r.utility.judge import LLMJudge
from agentic_r.utility.judges import forget_models, named_judge
from agentic_r.utility.prompting import close
from agentic_r.utility.relevance import graded
from agentic_r.waiting import wait

RULES = ("offline", "containment", "gold")
"""Judges that have no model."""


def check_judges(config: Config, names: Sequence[str]) -> None:
    """Open judges by name, and try servers, before the searches are made that they judge.

    Raises ConfigError for one that is none, that lacks its model, or that has none to name, and
    LLMError for a server that is down.
    """
    for name in names:
        kind, named, _ = name.partition("=")
        if named and kind in RULES:
            raise ConfigError(
                f"--compare-judges: got {name!r}, but the judge {kind} is a rule and has no model; "
                f"write {kind}"
            )
        judge = named_judge(config.utility, name)
        if isinstance(judge, LLMJudge):
            wait(_tried(name, judge))
    forget_models()  # the rollouts that come first may want the memory


async def _tried(name: str, judge: Judge) -> None:
    """Ask it once; how well it judges is what the comparison is to show."""
    try:
        await judge.relevance(TRIAL)
    except LLMError as error:
        raise type(error)(f"--compare-judges {name}: {error}") from error
    finally:
        await close(judge)


def judges_compared(
    loop: Loop,
    trajectories: Sequence[Trajectory],
    retrieval: Retrieval,
    names: tuple[str, str],
    *,
    sample: int = 100,
    shuffle: bool = False,
) -> list[str]:
    """Let two judges, by name, score the candidates of `sample` searches drawn by the run's seed.

    Returns in lines how far they agree, and why the first failed answer of each failed. With
    `shuffle` the second is shown the passages in another order, and neither takes what it said
    before from the cache. Raises ConfigError for a judge that is none, DataError where there
    are no searches, LLMError where a server is down.
    """
    config = loop.config
    places = [(each, n) for each in trajectories for n in range(len(each.searches))]
    if not places:
        raise DataError("no trajectory has a search; let the agent answer other questions")
    draw = random.Random(json.dumps([config.seed, "judges"]))
    chosen = sorted(draw.sample(range(len(places)), min(sample, len(places))))
    places = [places[at] for at in chosen]
    store = None if shuffle else judge_cache(config)
    first, second = (named_judge(config.utility, name, store=store) for name in names)
    if shuffle:
        second, mark = _shuffled(second, config.seed)
        names = (names[0], f"{names[1]} ({mark})")
    _, subanswers = open_judge(config, loop.data)
    found = candidates_at(places, retrieval.retriever, config.utility.candidates)
    said = [graded(places, found, judge, subanswers) for judge in (first, second)]
    scores = [[each.relevance for each in side] for side in said]
    lines = agreement(*scores, threshold=config.utility.relevance).lines(names)
    for name, side in zip(names, said, strict=True):
        reasons = [each.error for each in side if each.error]
        if reasons:
            lines.append(f"  {name}: {len(reasons):,} searches failed, the first: {reasons[0]}")
    return lines


def _shuffled(judge: Judge, seed: int) -> tuple[Judge, str]:
    """A judge that reads annotation is told ids, and no order can move it."""
    if isinstance(judge, AnnotatedJudge):
        return judge, "not shuffled, for it goes by annotation"
    return Shuffled(judge, seed), "shuffled"
