"""Dev queries: what the agent asks on dev questions, and what each search should find.

The retriever's training is watched on them and the re-ranker weighed on them. They are the agent's
own, as the retriever is sent them, the reasoning included.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from agentic_r.agent.query import ruler_of, sent, sent_anew
from agentic_r.config import Config
from agentic_r.data.questions import Questions, hop_meant, hops
from agentic_r.parts import gold_known
from agentic_r.retriever.oracle import OracleRetriever
from agentic_r.steps import Loop, Retrieval, rollouts
from agentic_r.types import Example, Question, Search, Trajectory, Turn

DEV_QUESTIONS = 500
"""Dev questions that the agent is asked, at most."""


def needs_dev(config: Config) -> bool:
    """Say whether anything is measured on what the agent asks on dev questions."""
    train, rerank = config.retriever.train, config.retriever.rerank
    return bool(rerank.epochs or (train.evaluations and not train.hold_out))


def dev_searches(loop: Loop, name: str, untouched: Retrieval) -> list[Example]:
    """Let the agent answer dev questions with the right passages at hand; returns its searches.

    So it gets to every hop, whatever the retriever under training would have found: a search shows
    the passage of the hop that it asks, or seems to (`hop_meant`), else what the untouched
    retriever finds. Questions without the passage of a hop are not asked; empty where that is all.
    """
    data, seed = loop.data, loop.config.seed
    questions = _drawn(data.dev, seed)
    if not questions:
        return []
    inner = untouched.retriever
    oracle = OracleRetriever(questions, inner, data.corpus, place="random", seed=seed, meant=True)
    retrieval = Retrieval(oracle, f"oracle:meant:{seed}:{untouched.key}")
    said = "asking dev questions"
    trajectories = rollouts(loop, name, questions, retrieval, form="question+query", describe=said)
    agent, ruler = loop.agent(inner), ruler_of(inner)
    again = (sent_anew(each, agent.dialect, agent.form, ruler) for each in trajectories)
    return [example for each in again for example in to_find(each)]


def _drawn(dev: Questions, seed: int) -> Questions:
    """Draw at most DEV_QUESTIONS of those that name the passage of a hop, in their order."""
    useful = [each for each in dev if gold_known([each])]
    if len(useful) > DEV_QUESTIONS:
        drawn = random.Random(f"{seed}:dev questions").sample(range(len(useful)), DEV_QUESTIONS)
        useful = [useful[at] for at in sorted(drawn)]
    return Questions(useful)


def to_find(trajectory: Trajectory) -> list[Example]:
    """Turn each search into an example without negatives: the passages that it should find.

    That of the hop that it asks, or seems to; where it seems to ask none, those of the question
    that it had not been shown before. A search that should find none is left out, as is one that
    was made before.
    """
    question = trajectory.question
    left = {hop.passage_id for hop in hops(question) if hop.passage_id}
    found: dict[str, Example] = {}
    for search in trajectory.searches:
        hop = hop_meant(question, search.query)
        good = sorted(left) if hop is None else [hop.passage_id] if hop.passage_id else []
        if good:
            example = Example(question.dataset, question.id, search.sent, tuple(good), ())
            found.setdefault(search.sent, example)
        left -= {hit.passage.id for hit in search.hits}
    return list(found.values())


def dev_hops(questions: Sequence[Question], form: str) -> list[Example]:
    """Turn every annotated hop that names its passage into an example without negatives.

    For where there is no agent. The history of a hop is the hops before it; nothing was thought.
    """
    found = []
    for question in questions:
        before = Trajectory(f"{question.dataset}/{question.id}", question)
        for hop in hops(question):
            turn = Turn(hop.question, "search")
            query = sent(before, turn, hop.question, form)
            if hop.passage_id:
                key = (question.dataset, question.id)
                found.append(Example(*key, query, (hop.passage_id,), ()))
            searched = msgspec.structs.replace(turn, searches=(Search(hop.question, query),))
            before = msgspec.structs.replace(before, turns=(*before.turns, searched))
    return found
