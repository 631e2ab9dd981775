"""TREC files out: a run, the judgements and the queries, one query id a search.

    NAME.run     QUERY Q0 PASSAGE RANK SCORE TAG
    NAME.qrels   QUERY 0 PASSAGE GRADE
    NAME.tsv     QUERY <tab> what the retriever was sent

A query's id is its trajectory's id, a colon and the number of the search, from 0. In every id and
tag white space, control characters and the percent sign are written as in an address (%20).
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import quote

import numpy as np

from agentic_r.data.datasets import gold
from agentic_r.data.questions import hop_asked
from agentic_r.errors import ConfigError, DataError, MissingExtraError
from agentic_r.evaluation.benchmark import top_hits
from agentic_r.io import write_atomic
from agentic_r.protocols import Retriever
from agentic_r.types import Hit, Question, Search, Trajectory, Turn

MEASURES = ("nDCG@10", "R@10", "RR@10", "Success@3")
"""What `measure_files` measures unless told otherwise, in the names of ir_measures."""

_UNFIT = re.compile(r"[%\s\x00-\x1f\x7f]")


def token(text: str) -> str:
    """Write a text as one column: what would end it or break the line is escaped."""
    return _UNFIT.sub(lambda match: quote(match.group(), safe=""), text) or "%00"


def run_lines(
    trajectories: Sequence[Trajectory], top: Sequence[Sequence[Sequence[Hit]]], tag: str
) -> Iterator[str]:
    """Write the hits of every search; `top` holds a list a search of a list a trajectory.

    Programs that read runs order them by score, as 32-bit floats, and not by rank: scores that do
    not fall are lowered by as little as keeps the order.
    """
    for trajectory, lists in zip(trajectories, top, strict=True):
        for number, hits in enumerate(lists):
            before = np.float32(np.inf)
            for rank, hit in enumerate(hits, 1):
                lowered = np.nextafter(before, np.float32(-np.inf), dtype=np.float32)
                before = min(np.float32(hit.score), lowered)
                yield (
                    f"{query_id(trajectory, number)} Q0 {token(hit.passage.id)} {rank} "
                    f"{before!s} {token(tag)}\n"
                )


def qrel_lines(trajectories: Sequence[Trajectory]) -> Iterator[str]:
    """Write what is known to be relevant for every search; nothing where nothing is known.

    For a search that asks an annotated hop that is the hop's passage, else every passage known
    to be relevant for its question.
    """
    for trajectory in trajectories:
        for number, search in enumerate(trajectory.searches):
            for id, grade in _relevant(trajectory, search).items():
                yield f"{query_id(trajectory, number)} 0 {token(id)} {grade}\n"


def query_lines(trajectories: Sequence[Trajectory]) -> Iterator[str]:
    """Write what the retriever was sent, on one line a search."""
    for trajectory in trajectories:
        for number, search in enumerate(trajectory.searches):
            yield f"{query_id(trajectory, number)}\t{' '.join(search.sent.split())}\n"


def query_id(trajectory: Trajectory, number: int) -> str:
    """Name a search, counted from 0."""
    return f"{token(trajectory.id)}:{number}"


def write_trec(
    folder: Path,
    name: str,
    trajectories: Sequence[Trajectory],
    top: Sequence[Sequence[Sequence[Hit]]],
    tag: str,
) -> tuple[Path, Path]:
    """Write NAME.run, NAME.qrels and NAME.tsv; returns the first two.

    The qrels file is empty where nothing is known to be relevant. Raises RunError where a file
    cannot be written.
    """
    run, qrels = folder / f"{name}.run", folder / f"{name}.qrels"
    write_atomic(run, "".join(run_lines(trajectories, top, tag)))
    write_atomic(qrels, "".join(qrel_lines(trajectories)))
    write_atomic(folder / f"{name}.tsv", "".join(query_lines(trajectories)))
    return run, qrels


def measure_files(run: Path, qrels: Path, names: Sequence[str] = MEASURES) -> dict[str, float]:
    """Measure a run file by its judgements with ir_measures: {measure: mean over queries}.

    A search without any hit counts as found nothing; one without judgements is left out. Raises
    MissingExtraError without ir_measures, ConfigError for an unknown measure, DataError where no
    query is judged.
    """
    with run.open(encoding="utf-8") as found, qrels.open(encoding="utf-8") as known:
        return _measured(found, known, names)


def measure_retriever(
    questions: Sequence[Question],
    retriever: Retriever,
    names: Sequence[str] = MEASURES,
    depth: int = 10,
) -> dict[str, float]:
    """Measure a retriever alone, each question being its own query: {measure: mean}.

    Questions without known relevant passages are left out; `depth` hits are looked at. Raises as
    `measure_files` does.
    """
    single = [
        Trajectory(
            token(f"{q.dataset}/{q.id}"), q, (Turn("", "search", (Search(q.text, q.text),)),)
        )
        for q in questions
        if gold(q)
    ]
    top = top_hits(single, retriever, depth)
    run, qrels = "".join(run_lines(single, top, "")), "".join(qrel_lines(single))
    return _measured(io.StringIO(run), io.StringIO(qrels), names)


def _measured(run: IO[str], qrels: IO[str], names: Sequence[str]) -> dict[str, float]:
    try:
        library = importlib.import_module("ir_measures")
    except ImportError:
        raise MissingExtraError("ir_measures", "trec") from None
    try:
        wanted = [library.parse_measure(name) for name in names]
    except (NameError, ValueError) as error:
        raise ConfigError(
            f"got measures {', '.join(names)} ({error}), expected names of ir_measures such as "
            f"{', '.join(MEASURES)}"
        ) from None
    judgements = list(library.read_trec_qrels(qrels))
    if not judgements:
        raise DataError("no search has a passage known to be relevant: nothing to measure")
    found = library.calc_aggregate(wanted, judgements, list(library.read_trec_run(run)))
    return {str(measure): float(found[measure]) for measure in wanted}


def _relevant(trajectory: Trajectory, search: Search) -> dict[str, int]:
    hop = hop_asked(trajectory.question, search.query)
    if hop is not None and hop.passage_id:
        return {hop.passage_id: 1}
    return gold(trajectory.question)
