"""Two judges on a sample of a run's searches: which one to trust, before paying for all."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from agentic_r.errors import DataError
from agentic_r.parts import judge_cache, open_judge
from agentic_r.protocols import AnnotatedJudge, Judge
from agentic_r.steps import Loop, Retrieval
from agentic_r.types import Trajectory
from agentic_r.utility.agreement import Agreement, Shuffled, compare_judges
from agentic_r.utility.candidates import candidates_at
from agentic_r.utility.judges import named_judge


def judges_compared(
    loop: Loop,
    trajectories: Sequence[Trajectory],
    retrieval: Retrieval,
    names: tuple[str, str],
    *,
    sample: int = 100,
    shuffle: bool = False,
) -> Agreement:
    """Let two judges, by name, score the candidates of `sample` searches drawn by the run's seed.

    With `shuffle` the second is shown the passages in another order, and neither takes what it
    said before from the cache. Raises ConfigError for a judge that is none, DataError where there
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
    _, subanswers = open_judge(config, loop.data)
    return compare_judges(
        places,
        candidates_at(places, retrieval.retriever, config.utility.candidates),
        (first, _shuffled(second, config.seed) if shuffle else second),
        subanswers,
        threshold=config.utility.relevance,
    )


def _shuffled(judge: Judge, seed: int) -> Judge:
    """A judge that reads annotation is told ids, and no order can move it."""
    return judge if isinstance(judge, AnnotatedJudge) else Shuffled(judge, seed)
