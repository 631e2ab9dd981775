"""What the agent asks on dev questions, and the passages that each search should find.

The retriever's training is watched on these queries and the re-ranker weighed on them. They are
the agent's own, as the retriever is sent them, the reasoning included.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentic_r.agent.query import ruler_of, sent, sent_anew
from agentic_r.config import Config
from agentic_r.data.questions import hop_asked, hops
from agentic_r.parts import gold_known
from agentic_r.retriever.oracle import OracleRetriever
from agentic_r.steps import Loop, Retrieval, rollouts
from agentic_r.types import Example, Question, Search, Trajectory, Turn


def asks_dev(config: Config) -> bool:
    """Say whether anything is measured on what the agent asks on dev questions."""
    train, rerank = config.retriever.train, config.retriever.rerank
    return bool(rerank.epochs or (train.evaluations and not train.hold_out))


def dev_asked(loop: Loop, name: str, untouched: Retrieval) -> list[Example]:
    """Let the agent answer dev questions with the right passages at hand; returns its searches.

    So it gets to every hop, whatever the retriever under training would have found. What asks no
    annotated hop is answered by the untouched retriever. Empty where no dev question names the
    passage of a hop.
    """
    data, seed = loop.data, loop.config.seed
    if not gold_known(data.dev):
        return []
    oracle = OracleRetriever(data.dev, untouched.retriever, data.corpus, place="random", seed=seed)
    trajectories = rollouts(
        loop,
        name,
        data.dev,
        Retrieval(oracle, f"oracle:{seed}:{untouched.key}"),
        form="question+query",
        describe="asking dev questions",
    )
    agent = loop.agent(untouched.retriever)
    ruler = ruler_of(untouched.retriever)
    again = (sent_anew(each, agent.dialect, agent.form, ruler) for each in trajectories)
    return [example for each in again for example in asked(each)]


def asked(trajectory: Trajectory) -> list[Example]:
    """Turn each search into an example without negatives: the passages that it should find.

    That of the hop that it asks word for word; else those of the question that it had not been
    shown before. A search that should find none is left out, as is one that was made before.
    """
    question = trajectory.question
    left = {hop.passage_id for hop in hops(question) if hop.passage_id}
    found: dict[str, Example] = {}
    for search in trajectory.searches:
        hop = hop_asked(question, search.query)
        good = sorted(left) if hop is None else [hop.passage_id] if hop.passage_id else []
        if good:
            example = Example(question.dataset, question.id, search.sent, tuple(good), ())
            found.setdefault(search.sent, example)
        left -= {hit.passage.id for hit in search.hits}
    return list(found.values())


def asked_hops(questions: Sequence[Question], form: str) -> list[Example]:
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
