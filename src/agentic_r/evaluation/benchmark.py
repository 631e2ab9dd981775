"""Finished trajectories -> one benchmark row, and one record a question to compare systems by.

A record holds sums, not averages, so rows can be recomputed and runs pooled from records alone.
Nothing here knows a retriever's or an agent's inside, and nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from agentic_r.data.datasets import gold
from agentic_r.data.questions import hop_asked, hops
from agentic_r.errors import DataError
from agentic_r.evaluation.measures import mean
from agentic_r.metrics import any_answer_in, can_be_found, score_question
from agentic_r.protocols import Retriever
from agentic_r.types import Hit, Trajectory

DEPTH = 3
"""How many hits hit@3 looks at, whatever number of passages the agent was shown."""


class Record(msgspec.Struct, frozen=True):
    """What one system did on one question; the key is (dataset, id)."""

    dataset: str
    """The data set of the question."""
    id: str
    """The question's id in that data set."""
    root: str
    """The cluster of the bootstrap: the entity the question starts from, else the question."""
    em: float
    """1 where the answer is one of the question's answers after normalisation, else 0."""
    f1: float
    """Word overlap of the answer and the best matching answer of the question, 0-1."""
    searches: int
    """How many searches the agent made."""
    asked: int | None = None
    """How many of them ask an annotated hop; None where the top 3 was not looked at."""
    hits: int | None = None
    """How many of the asked ones have the hop's passage in the top 3; None as `asked`."""
    hops: int | None = None
    """How many annotated hops the question has; None where it has no annotation."""
    seen: bool | None = None
    """Whether training held every phrasing of the question; None where nobody says."""
    failed: bool = False
    """Whether the language model failed on the way; the question then counts as wrong."""
    acc: float | None = None
    """1 where an answer is a piece of what was answered (upstream's cover EM), else 0."""
    precision: float | None = None
    """Share of the answer's words that the best matching answer has, 0-1."""
    recall: float | None = None
    """Share of the best matching answer's words that the answer has, 0-1."""
    answer_searches: int | None = None
    """How many searches could have shown the answer: all, but none for a "yes" or "no"."""
    answer_hits: int | None = None
    """How many of them showed a passage that holds an answer, among the k shown."""
    gold: int | None = None
    """How many passages are known to be relevant to the question; None where nobody says."""
    found: int | None = None
    """How many of those some search showed; None as `gold`."""
    tokens: int | None = None
    """Tokens that the model wrote; None where the model does not count them."""
    prompt_tokens: int | None = None
    """Tokens that the model was given in all calls together; None as `tokens`."""
    cost: float | None = None
    """What the tokens cost by agent.price; None without a price."""
    stop: str | None = None
    """Why the trajectory ended: answered, budget, invalid, length or error."""
    invalid_turns: int | None = None
    """How many turns could not be read."""

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the question."""
        return (self.dataset, self.id)


class Row(msgspec.Struct, frozen=True):
    """One line of the benchmark table; all rates are fractions 0-1, None is "not measured"."""

    name: str
    """The system: unique in a table, for instance `untouched question+query, k=2`."""
    k: int
    """How many passages the agent was shown a search."""
    em: float
    """Mean exact match."""
    f1: float
    """Mean word overlap F1."""
    hit_at_3: float | None
    """Share of searches asking an annotated hop that have its passage in the top 3."""
    searches: float
    """Mean number of searches a question."""
    seconds: float
    """Wall-clock seconds that the whole row took."""
    n: int
    """How many questions."""
    em_seen: float | None = None
    """Exact match over the questions whose phrasings all occur in training."""
    em_unseen: float | None = None
    """Exact match over the questions with a phrasing that training never showed."""
    em_by_hops: dict[str, float] = {}
    """Exact match by number of hops ("1", "2", ...)."""
    n_seen: int = 0
    """Questions behind `em_seen`."""
    n_unseen: int = 0
    """Questions behind `em_unseen`."""
    n_by_hops: dict[str, int] = {}
    """Questions behind each entry of `em_by_hops`."""
    asked: int = 0
    """Searches behind `hit_at_3`."""
    failed: int = 0
    """Questions on which the language model failed; they count as wrong."""
    acc: float | None = None
    """Mean cover match: an answer is a piece of what was answered."""
    precision: float | None = None
    """Mean word precision."""
    recall: float | None = None
    """Mean word recall."""
    answer_recall: float | None = None
    """Share of searches that showed a passage holding an answer, where a passage could."""
    gold_recall: float | None = None
    """Share of the passages known to be relevant that some search of their question showed."""
    tokens: float | None = None
    """Mean number of tokens that the model wrote for a question."""
    prompt_tokens: float | None = None
    """Mean number of tokens that the model was given for a question, in all calls together."""
    cost: float | None = None
    """What the tokens of 1,000 questions cost, in the unit of agent.price."""
    unfinished: float | None = None
    """Share of questions that ended without an answer."""
    invalid: float | None = None
    """Share of questions with a turn that could not be read."""
    agent: str = ""
    """The agent's label in a grid."""
    retriever: str = ""
    """The retriever's label in a grid."""
    dataset: str = ""
    """The data set's name in a grid; "" for an average over data sets."""
    intervals: dict[str, tuple[float, float]] = {}
    """95 % interval of each measure, by its name here; bootstrap clustered by root."""


def top3(trajectories: Sequence[Trajectory], retriever: Retriever) -> list[list[list[Hit]]]:
    """Search the top 3 of every search, as `top_hits` does."""
    return top_hits(trajectories, retriever, DEPTH)


def top_hits(
    trajectories: Sequence[Trajectory], retriever: Retriever, depth: int
) -> list[list[list[Hit]]]:
    """Search the best hits of every search of every trajectory anew, in one batched call.

    The string is the one the agent's retriever was sent, so `retriever` has to be the one that
    the trajectories were rolled out with, or a stand-in that reads the same strings. Returns a
    list a trajectory of a list a search of at most `depth` hits.
    """
    sent = [search.sent for trajectory in trajectories for search in trajectory.searches]
    unique = list(dict.fromkeys(sent))
    found = dict(zip(unique, retriever.search(unique, depth), strict=True)) if unique else {}
    return [
        [found[search.sent][:depth] for search in trajectory.searches]
        for trajectory in trajectories
    ]


def record(
    trajectory: Trajectory,
    top: Sequence[Sequence[Hit]] | None = None,
    price: tuple[float, float] = (0.0, 0.0),
) -> Record:
    """Measure one trajectory; `top` holds the top hits of each of its searches, in order.

    `price` is per million tokens given and written.
    Raises DataError where `top` has not one list a search.
    """
    question = trajectory.question
    meta = question.metadata
    said, seen = meta.get("hop_count"), meta.get("seen")
    count = said if type(said) is int else len(hops(question))
    root = meta.get("root")
    asked, hits = (None, None) if top is None else _gold_hits(trajectory, top)
    scores = score_question(question, trajectory.answer)
    could, did = _answer_hits(trajectory)
    relevant, found = _gold_shown(trajectory)
    given, written = _given(trajectory), _tokens(trajectory)
    return Record(
        dataset=question.dataset,
        id=question.id,
        root=question.id if root is None else str(root),
        em=scores.em,
        f1=scores.f1,
        searches=len(trajectory.searches),
        asked=asked,
        hits=hits,
        hops=count or None,
        seen=seen if isinstance(seen, bool) else None,
        failed=trajectory.stop == "error",
        acc=scores.acc,
        precision=scores.precision,
        recall=scores.recall,
        answer_searches=could,
        answer_hits=did,
        gold=relevant,
        found=found,
        tokens=written,
        prompt_tokens=given,
        cost=_cost(given, written, price),
        stop=trajectory.stop,
        invalid_turns=sum(turn.status == "invalid" for turn in trajectory.turns),
    )


def _answer_hits(trajectory: Trajectory) -> tuple[int, int]:
    """Count the searches that could have shown the answer, and those that did."""
    question = trajectory.question
    patterns = question.metadata.get("patterns") is True
    if patterns or not can_be_found(question.answers):
        return 0, 0
    shown = [[hit.passage.contents for hit in search.hits] for search in trajectory.searches]
    did = sum(any(any_answer_in(t, question.answers) for t in texts) for texts in shown)
    return len(shown), did


def _gold_shown(trajectory: Trajectory) -> tuple[int | None, int | None]:
    """Count the passages known to be relevant, and those of them that were shown."""
    known = gold(trajectory.question)
    if not known:
        return None, None
    shown = {hit.passage.id for search in trajectory.searches for hit in search.hits}
    return len(known), len(known.keys() & shown)


def _tokens(trajectory: Trajectory) -> int | None:
    """Count what the model wrote; None where one turn does not say."""
    counts = [turn.new_tokens for turn in trajectory.turns]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _given(trajectory: Trajectory) -> int | None:
    """Count what the model was given; None where one turn does not say."""
    counts = [turn.prompt_tokens for turn in trajectory.turns]
    known = [count for count in counts if isinstance(count, int)]
    return sum(known) if known and len(known) == len(counts) else None


def _cost(given: int | None, written: int | None, price: tuple[float, float]) -> float | None:
    if given is None or written is None or not any(price):
        return None
    return (given * price[0] + written * price[1]) / 1e6


def _gold_hits(trajectory: Trajectory, top: Sequence[Sequence[Hit]]) -> tuple[int, int]:
    """Count the searches that ask an annotated hop, and those that found its passage."""
    searches = trajectory.searches
    if len(top) != len(searches):
        raise DataError(
            f"trajectory {trajectory.id}: got the top hits of {len(top)} searches, expected "
            f"{len(searches)}; make them with top3() from the same trajectories"
        )
    asked = hits = 0
    for search, found in zip(searches, top, strict=True):
        hop = hop_asked(trajectory.question, search.query)
        if hop is not None and hop.passage_id:
            asked += 1
            hits += any(hit.passage.id == hop.passage_id for hit in found[:DEPTH])
    return asked, hits


def summarise(records: Sequence[Record], name: str, k: int, seconds: float) -> Row:
    """Average records into one row of the table; raises DataError where there are none."""
    if not records:
        raise DataError(f"row {name!r}: got no questions, expected at least one to measure on")
    seen = [r.em for r in records if r.seen is True]
    unseen = [r.em for r in records if r.seen is False]
    by_hops = {
        str(count): [r.em for r in records if r.hops == count]
        for count in sorted({r.hops for r in records if r.hops is not None})
    }
    return Row(
        name=name,
        k=k,
        em=_mean(r.em for r in records),
        f1=_mean(r.f1 for r in records),
        hit_at_3=mean("hit_at_3", records),
        searches=_mean(float(r.searches) for r in records),
        seconds=seconds,
        n=len(records),
        em_seen=_mean(seen) if seen else None,
        em_unseen=_mean(unseen) if unseen else None,
        em_by_hops={count: _mean(values) for count, values in by_hops.items()},
        n_seen=len(seen),
        n_unseen=len(unseen),
        n_by_hops={count: len(values) for count, values in by_hops.items()},
        asked=sum(r.asked or 0 for r in records),
        failed=sum(r.failed for r in records),
        acc=mean("acc", records),
        precision=mean("precision", records),
        recall=mean("recall", records),
        answer_recall=mean("answer_recall", records),
        gold_recall=mean("gold_recall", records),
        tokens=mean("tokens", records),
        prompt_tokens=mean("prompt_tokens", records),
        cost=mean("cost", records),
        unfinished=mean("unfinished", records),
        invalid=mean("invalid", records),
    )


def _mean(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held)


def score(
    trajectories: Sequence[Trajectory],
    name: str,
    k: int,
    seconds: float,
    top3: Sequence[Sequence[Sequence[Hit]]] | None = None,
    price: tuple[float, float] = (0.0, 0.0),
) -> tuple[Row, list[Record]]:
    """Measure finished trajectories: the row of the table and one record a question.

    `top3` is what the function of that name returns, one entry a trajectory; without it hit@3
    is not measured. `price` is as in `record`. Raises DataError for no trajectories, for a
    question that comes twice, and for a `top3` of another shape.
    """
    if top3 is not None and len(top3) != len(trajectories):
        raise DataError(
            f"row {name!r}: got the top hits of {len(top3)} trajectories, expected "
            f"{len(trajectories)}"
        )
    records = [
        record(trajectory, None if top3 is None else top3[index], price)
        for index, trajectory in enumerate(trajectories)
    ]
    by_key(records, name)
    return summarise(records, name, k, seconds), records


def by_key(records: Sequence[Record], name: str) -> dict[tuple[str, str], Record]:
    """Index records by question; raises DataError where a question comes twice."""
    found: dict[tuple[str, str], Record] = {}
    for item in records:
        if item.key in found:
            raise DataError(
                f"{name}: got question {item.id!r} of data set {item.dataset!r} twice, "
                "expected each question once"
            )
        found[item.key] = item
    return found
