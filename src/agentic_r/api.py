"""Labelling in one line of Python: the parts of `utility`, put together for an agent.

`agentic_r.label` and `agentic_r.select` are these functions; the loop joins the same parts from
its config.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path

from agentic_r.agent.agent import SearchAgent
from agentic_r.config import UtilityConfig
from agentic_r.data.questions import hops
from agentic_r.errors import ConfigError
from agentic_r.metrics import score_question
from agentic_r.protocols import Judge, Reward, SubAnswers
from agentic_r.types import Example, Question, Trajectory
from agentic_r.utility.judge import LLMJudge
from agentic_r.utility.label import label as label_searches
from agentic_r.utility.labelled import Labels, collect
from agentic_r.utility.select import Rule
from agentic_r.utility.store import CacheableJudge, CachedJudge, CachedSubAnswers, Store
from agentic_r.utility.subanswers import HopSubAnswers, LLMSubAnswers, subanswers_of


def label(
    trajectories: Sequence[Trajectory],
    agent: SearchAgent,
    *,
    judge: Judge,
    subanswers: SubAnswers | None = None,
    reward: Reward | None = None,
    settings: UtilityConfig | None = None,
    seed: int = 0,
    progress: bool = True,
    cache: str | Path = "",
) -> Labels:
    """Measure what passages are worth to `agent` at each search of its trajectories.

    Candidates are what the agent's retriever finds for the string it was sent, relevance comes
    from `judge`, correctness from continuing the agent, by default scored by exact match. What a
    search should have found is the answer of the annotated hop that it asks, else what the
    judge's chat model says. `settings` are those of the table `utility` of a config, less what
    makes a judge, which is given. `cache` is a file that keeps what a judge with a model has said,
    so that nothing is asked twice, in this call or a later one. Raises ConfigError where a question
    has no hops and the judge no chat model, and where a model that is to be cached does not say
    which it is, LLMError where a server is down, DataError where the cache cannot be used.
    """
    settings = settings or UtilityConfig()
    if settings.samples > 1 and agent.sampling.temperature <= 0:
        raise ConfigError(
            f"utility.samples: got {settings.samples} with an agent that decodes greedily, which "
            "gives the same run each time; expected an agent with temperature above 0"
        )
    if settings.judge_prompt_file:
        raise ConfigError(
            "utility.judge_prompt_file: this judge is made already; give the file to it, as in "
            "LLMJudge(..., prompt_file=FILE)"
        )
    with closing(Store(cache)) if cache else nullcontext() as store:
        return label_searches(
            trajectories,
            retriever=agent.retriever,
            continue_=agent.continue_,
            judge=_kept(judge, store),
            subanswers=subanswers or _subanswers(trajectories, judge, settings, store),
            reward=reward or _exact_match,
            settings=settings,
            seed=seed,
            progress="labelling" if progress else None,
        )


def select(labels: Labels, *, rule: Rule | None = None, seed: int = 0) -> list[Example]:
    """Return the retriever's training examples.

    Without a rule these are the examples selected while labelling. With one, such as
    `agentic_r.utility.select.UpstreamRule(threshold=80)`, they are selected anew from what was
    measured; nothing is measured again.
    """
    chosen = labels if rule is None else collect(labels.rows, rule=rule, seed=seed)
    return list(chosen.examples)


class HopOrLLMSubAnswers:
    """Sub-answers from annotated hops, and from a chat model for searches that ask none."""

    def __init__(self, model: LLMSubAnswers | CachedSubAnswers) -> None:
        self._hops = HopSubAnswers()
        self._model = model

    async def subanswers(self, trajectory: Trajectory) -> list[str | None]:
        """Return one sub-answer a search. Raises LLMError when the model cannot be reached."""
        known = await self._hops.subanswers(trajectory)
        if None not in known:
            return known
        said = await self._model.subanswers(trajectory)
        return [a if a is not None else b for a, b in zip(known, said, strict=True)]

    async def aclose(self) -> None:
        """Close the model's connections; the next call opens new ones."""
        await self._model.aclose()


def _kept(judge: Judge, store: Store | None) -> Judge:
    """Have what a judge says kept, where there is a store and the judge has a model."""
    if store is None or not isinstance(judge, CacheableJudge):
        return judge
    return CachedJudge(judge, store)


def _subanswers(
    trajectories: Sequence[Trajectory], judge: Judge, settings: UtilityConfig, store: Store | None
) -> SubAnswers:
    if isinstance(judge, LLMJudge):
        asked = subanswers_of(judge.chat, settings)
        return HopOrLLMSubAnswers(asked if store is None else CachedSubAnswers(asked, store))
    bare = next((t.question for t in trajectories if not hops(t.question)), None)
    if bare is not None:
        raise ConfigError(
            f"question {bare.id!r} has no metadata.hops, so nothing says what its searches should "
            f"have found and {type(judge).__name__} cannot be asked; annotate the questions, or "
            'use judge=LLMJudge("http://..."), or give subanswers='
        )
    return HopSubAnswers()


def _exact_match(question: Question, answer: str | None) -> float:
    return score_question(question, answer).em
