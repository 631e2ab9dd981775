"""Upstream's files of one agent and data set (contracts B1 to B5), from ours and to ours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agentic_r.errors import DataError
from agentic_r.exchange.ids import Id, as_text, is_number
from agentic_r.io import read_json_list
from agentic_r.metrics import score_question
from agentic_r.types import Hit, Passage, Question, Search, Status, Stop, Trajectory, Turn, Utility
from agentic_r.utility.labelled import Labelled
from agentic_r.utility.rules.upstream import UpstreamRule
from agentic_r.utility.select import by_search

OPENING = "<|im_start|>assistant\n"
"""Where the agent's own text begins in a prompt; the last one counts."""

STOPS: dict[str, Stop] = {
    "Finished": "answered",
    "Reach max retrieval number": "budget",
    "Query instruction error": "invalid",
    "Normal finish without answer pattern": "invalid",
}
REASONS = {stop: reason for reason, stop in STOPS.items()}
NO_ANSWER = "No valid answer found"
NOT_SURE = "Not Sure"
UNNEEDED = "not needed"

TRAJECTORY_FILE = "questions with output.prompt and output.retrieval_results"
"""What a trajectory file is, for error messages."""

UNEQUAL = "trajectories with another number of </search> than of retrieval results"

_BLOCK = re.compile(r"\s*<information>.*?</information>\s*", re.DOTALL)


class Document(msgspec.Struct):
    """A corpus row as it stands in a trajectory."""

    id: str | int
    contents: str


class Retrieved(msgspec.Struct):
    """What one search was given."""

    query: str
    query_for_retrieval: str
    docs: tuple[Document, ...]


class Output(msgspec.Struct):
    """What the agent did."""

    prompt: str
    finish_flag: bool
    retrieval_results: dict[str, Retrieved]
    retrieved_times: int
    pred: str
    finish_reason: str
    metric_score: dict[str, float]


class Item(msgspec.Struct, omit_defaults=True):
    """One question of `intermediate_data.json`."""

    id: Id
    question: str
    golden_answers: tuple[str, ...]
    output: Output
    metadata: dict[str, Any] = {}

    def __post_init__(self) -> None:
        as_text(self, "id")


class QuerySubAnswer(msgspec.Struct):
    """One search and what it ought to have found."""

    query: str
    subanswer: str


class SubAnswerLine(msgspec.Struct):
    """The sub-answers of one trajectory, one a search."""

    id: Id
    question: str
    golden_answers: tuple[str, ...]
    query_subanswer_list: tuple[QuerySubAnswer, ...]

    def __post_init__(self) -> None:
        as_text(self, "id")


class Read(NamedTuple):
    """Trajectories, and what was left out, by reason."""

    trajectories: list[Trajectory]
    dropped: dict[str, int]


def read_trajectories(path: Path | str, dataset: str = "") -> Read:
    """Read upstream's trajectories; the data set is by default the file's name.

    One whose searches and retrieval results do not go together is left out and counted, as
    upstream's second step does. Raises DataError where the file is malformed.
    """
    path = Path(path)
    items = read_json_list(path, Item, TRAJECTORY_FILE)
    found, dropped = [], Counter[str]()
    for item in items:
        wrong = [key for key in item.output.retrieval_results if not is_number(key)]
        if wrong:
            raise DataError(
                f"{path}: question {item.id!r}: got the key {wrong[0]!r} in retrieval_results, "
                "expected the searches by number, from 0"
            )
        turns = _turns(item)
        if turns is None:
            dropped[UNEQUAL] += 1
            continue
        name = dataset or path.name.split(".")[0]
        question = Question(item.id, item.question, item.golden_answers, name, item.metadata)
        stop = STOPS.get(item.output.finish_reason, "error")
        why = f"upstream: {item.output.finish_reason}" if stop == "error" else ""
        found.append(Trajectory(item.id, question, turns, stop, why))
    return Read(found, dict(dropped))


def _turns(item: Item) -> tuple[Turn, ...] | None:
    """Cut the agent's text into turns, None where the numbers of searches differ."""
    text = item.output.prompt.rpartition(OPENING)[2]
    results = [item.output.retrieval_results[key] for key in _in_order(item)]
    turns: list[Turn] = []
    for result in results:
        head, end, rest = text.partition("</search>")
        if not end:
            return None
        hits = tuple(Hit(_passage(each), 0.0) for each in result.docs)
        search = Search(result.query, result.query_for_retrieval, hits)
        block = _BLOCK.match(rest)
        turns.append(Turn(head + end, "search", (search,), observation=_shown(block)))
        text = rest[block.end() :] if block else rest
    if "</search>" in text:
        return None
    if text.strip():
        answered = item.output.finish_reason == "Finished"
        status: Status = "answer" if answered else "invalid"
        turns.append(Turn(text, status, answer=item.output.pred if answered else None))
    return tuple(turns)


def _in_order(item: Item) -> list[str]:
    return sorted(item.output.retrieval_results, key=lambda key: int(key))


def _shown(block: re.Match[str] | None) -> str:
    return block.group() if block else ""


def _passage(document: Document) -> Passage:
    title, newline, text = document.contents.partition("\n")
    if not newline:
        return Passage(str(document.id), document.contents)
    return Passage(str(document.id), text, title)


def trajectory_file(trajectories: Sequence[Trajectory]) -> bytes:
    """Return trajectories as upstream's evaluator writes them."""
    return _indented(list(map(_item, trajectories)))


def _indented(items: Sequence[Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(items))


def _item(trajectory: Trajectory) -> Item:
    question = trajectory.question
    said = "".join(turn.text + (turn.observation or "") for turn in trajectory.turns)
    results = {
        str(number): Retrieved(
            search.query,
            search.sent,
            tuple(Document(hit.passage.id, hit.passage.contents) for hit in search.hits),
        )
        for number, search in enumerate(trajectory.searches)
    }
    stop = trajectory.stop or "error"
    raw = trajectory.turns[-1].text if trajectory.turns else ""
    answer = trajectory.answer if trajectory.answer is not None else raw
    output = Output(
        prompt=f"<|im_start|>user\nQuestion: {question.text}<|im_end|>\n{OPENING}{said}",
        finish_flag=True,
        retrieval_results=results,
        retrieved_times=len(results),
        pred=NO_ANSWER if stop == "budget" else answer,
        finish_reason=REASONS.get(stop, "Normal finish without answer pattern"),
        metric_score=score_question(question, trajectory.answer)._asdict(),
    )
    return Item(question.id, question.text, question.answers, output, dict(question.metadata))


def label_files(
    trajectories: Sequence[Trajectory], labelled: Sequence[Labelled]
) -> tuple[dict[str, bytes], dict[str, int]]:
    """Return candidates, sub-answers, relevance and correctness of one data set of an iteration.

    Each is a file, named by upstream's folder for it (`step_path` says where that is). Upstream's
    last step wants both signals of every candidate, so a correctness that was not needed is written
    as 0 and marked `"why": "not needed"` (a key that upstream does not read): the same searches,
    positives and pools come of it by upstream's rule where that labelled them, or everything was
    measured. The default rule measures nothing that an earlier search has shown; searches of which
    upstream's would want to know more are counted. What failed is left out. Searches inside
    continuations have no place there. Beside the files: how much of each there was, of what there
    was at all.
    """
    own = {each.id: each for each in trajectories}
    said = {
        (each.trajectory_id, each.search): each.text for row in labelled for each in row.subanswers
    }
    counts: Counter[str] = Counter()
    items: dict[str, dict[str, Any]] = {}
    local, global_ = [], []
    searches = [found for row in labelled for found in by_search(row.utilities)]
    for (trajectory_id, search), rows in searches:
        trajectory = own.get(trajectory_id)
        if trajectory is None:
            counts["searches inside continuations left out"] += 1
            continue
        item = items.setdefault(trajectory_id, _candidate_item(trajectory))
        item["trajectory"].append(_candidates(trajectory, search, rows))
        local.append(_local(trajectory, search, rows))
        global_.append(_global(trajectory, search, rows))
        counts["candidates whose correctness was not needed, written as 0"] += sum(
            row.why == UNNEEDED for row in rows
        )
        failed = [row for row in rows if row.failed]
        unjudged = sum(row.relevance is None for row in failed)
        counts["candidates whose relevance failed, left out"] += unjudged
        counts["candidates whose correctness failed, left out"] += len(failed) - unjudged
        counts["searches of which upstream's rule wants to know more than was measured"] += bool(
            UpstreamRule().verdict(rows).needed
        )
        counts["searches written"] += 1
    lines = msgspec.json.Encoder().encode_lines
    files = {
        "passage_candidates": _indented(list(items.values())),
        "trajectory_subanswer": lines([_subanswers(own[id], said) for id in items]),
        "local_utility": lines(local),
        "global_utility": lines(global_),
    }
    return files, {what: count for what, count in counts.items() if count}


def step_path(step: str, dataset: str, agent: str = "") -> Path:
    """Return where a file of upstream's steps stands in its training_data.

    Upstream has a level for the agent (contracts B1 to B5), which an empty name leaves out.
    """
    ending = "json" if step in ("trajectory", "passage_candidates") else "jsonl"
    return Path(step, agent, f"{dataset}.{ending}")


def _candidate_item(trajectory: Trajectory) -> dict[str, Any]:
    item = msgspec.to_builtins(_item(trajectory))
    output = {key: value for key, value in item["output"].items() if key != "retrieval_results"}
    kept = {key: item[key] for key in ("id", "question", "golden_answers")}
    return {**kept, "trajectory": [], "output": output}


def _candidates(trajectory: Trajectory, search: int, rows: Sequence[Utility]) -> dict[str, Any]:
    return {
        "round_index": search + 1,
        "reasoning_context": _context(trajectory, search),
        "current_query": trajectory.searches[search].query,
        "candidate_passage_ids": [row.passage_id for row in rows],
    }


def _context(trajectory: Trajectory, search: int) -> str:
    """The agent's text and evidence up to and with the search."""
    said, seen = "", 0
    for turn in trajectory.turns:
        said += turn.text
        seen += len(turn.searches)
        if seen > search:
            break
        said += turn.observation or ""
    return said.strip()


def _local(trajectory: Trajectory, search: int, rows: Sequence[Utility]) -> dict[str, Any]:
    scores = {row.passage_id: row.relevance for row in rows if row.relevance is not None}
    whole = {id: int(score) if score == int(score) else score for id, score in scores.items()}
    return {"id": trajectory.question.id, "round_index": search + 1, "docid_score": whole}


def _global(trajectory: Trajectory, search: int, rows: Sequence[Utility]) -> dict[str, Any]:
    return {
        "id": trajectory.question.id,
        "question": trajectory.question.text,
        "round_index": search + 1,
        "history_queries": [each.query for each in trajectory.searches[:search]],
        "current_query": trajectory.searches[search].query,
        "docid_score": {row.passage_id: _outcome(row) for row in rows if not row.failed},
    }


def _outcome(row: Utility) -> dict[str, Any]:
    """What came of continuing from a passage; see `label_files` for what was not continued."""
    mark = {} if row.correctness is not None else {"why": UNNEEDED}
    return {
        "metric_score": {"em": row.correctness or 0.0},
        "retrieved_times": int(row.further or 0),
        **mark,
    }


def _subanswers(
    trajectory: Trajectory, said: Mapping[tuple[str, int], str | None]
) -> SubAnswerLine:
    question = trajectory.question
    pairs = tuple(
        QuerySubAnswer(search.query, said.get((trajectory.id, number)) or NOT_SURE)
        for number, search in enumerate(trajectory.searches)
    )
    return SubAnswerLine(question.id, question.text, question.answers, pairs)


def datasets(trajectories: Sequence[Trajectory]) -> Iterator[str]:
    """Yield the data sets in the order of their first question."""
    yield from dict.fromkeys(each.question.dataset for each in trajectories)
