"""Measure agents x retrievers x data sets: every cell a pair of stages that resume.

grid/indexes/ENCODER                    the corpus encoded, once for each encoder
grid/AGENT/RETRIEVER/DATASET/rollouts   the agent answers the data set's questions
grid/AGENT/RETRIEVER/DATASET/scores     row, records and TREC files
rows.jsonl                              the table so far, a row a cell, then the averages
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agentic_r.config import Config, flat
from agentic_r.data.datasets import load_dataset, sampled
from agentic_r.data.questions import Questions
from agentic_r.errors import DataError
from agentic_r.evaluation.benchmark import Record, Row, score, top_hits
from agentic_r.evaluation.plan import Agent, Cell, Plan, slug
from agentic_r.evaluation.plan import Retriever as PlannedRetriever
from agentic_r.evaluation.table import Measured, averages, with_intervals
from agentic_r.evaluation.trec import write_trec
from agentic_r.io import fingerprint, write_atomic, write_jsonl
from agentic_r.parts import (
    Data,
    agent_key,
    check_gold,
    check_servers,
    gold_known,
    open_agent,
    open_corpus,
    open_data,
    open_encoder,
)
from agentic_r.protocols import LLM, Completion, Retriever, Sampling
from agentic_r.retriever.bm25 import BM25Retriever
from agentic_r.retriever.oracle import OracleRetriever
from agentic_r.settings.retriever import SEARCH_ONLY
from agentic_r.stage import ANSWERS, Run
from agentic_r.steps import Loop, Retrieval, index, rollouts, stage_seconds
from agentic_r.types import Hit

ORACLE_READER = "oracle-reader"
"""The agent that is made for the questions it is asked, so anew for each data set."""


@dataclass
class Grid:
    """A run of the grid: what its cells share, opened when first needed."""

    run: Run
    config: Config
    plan: Plan
    data: Data
    questions: dict[str, Questions]
    models: dict[str, tuple[LLM, str]] = field(default_factory=dict)

    def loop(self, cell: Cell) -> Loop:
        """Return what the stages of one cell share; the model is opened if there is work for it."""
        config = msgspec.structs.replace(
            self.config, agent=cell.agent.config, retriever=cell.retriever.config
        )
        data = self.cell_data(cell)
        if self.answered(cell) and cell.agent.config.model != ORACLE_READER:
            return Loop(self.run, config, data, Unopened(), agent_key(config))
        return Loop(self.run, config, data, *self._model(cell.agent, config, data))

    def answered(self, cell: Cell) -> bool:
        """Say whether every question of a cell is answered."""
        return (self.run.folder / cell.folder / "rollouts" / "manifest.json").is_file()

    def cell_data(self, cell: Cell) -> Data:
        """Return the corpus with the questions of one cell, which are all held out."""
        none = Questions()
        return Data(self.data.corpus, none, none, self.questions[cell.source.name], self.data.about)

    def _model(self, agent: Agent, config: Config, data: Data) -> tuple[LLM, str]:
        if config.agent.model == ORACLE_READER:
            return open_agent(config, data)
        if agent.label not in self.models:
            log = self.run.folder / ANSWERS / f"agent-{slug(agent.label)}.jsonl"
            llm, key = open_agent(config, data, log)
            check_servers(config, data, llm, agent=True, judge=False)
            self.models[agent.label] = llm, key
        return self.models[agent.label]


class Unopened:
    """Stands in for the model of a cell whose questions are all answered."""

    async def complete(self, prompt: Any, sampling: Sampling) -> Completion:
        """Refuse: nobody asks where nothing is left to do."""
        raise AssertionError("a finished cell asked its model")


class Shared(NamedTuple):
    """What a planned retriever searches with on every data set, and what identifies it."""

    later: Later
    key: str


class Later:
    """A retriever that is opened by its first search, so that finished cells load no index."""

    def __init__(self, open: Callable[[], Retriever]) -> None:
        self._open = open

    @cached_property
    def _retriever(self) -> Retriever:
        return self._open()

    def opened(self) -> Retriever:
        """Open the retriever now, if it is not; returns it."""
        return self._retriever

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Search as the retriever behind it does."""
        return self._retriever.search(queries, k)


def open_grid(run: Run, config: Config, plan: Plan) -> Grid:
    """Read the corpus and every data set. Raises DataError where one is unusable."""
    if plan.own:
        data = open_data(config)
        (source,) = plan.sources
        questions = {source.name: sampled(data.test, source.sample, config.seed)}
    else:
        corpus, about = open_corpus(config)
        none = Questions()
        data = Data(corpus, none, none, none, about)
        questions = {source.name: load_dataset(source, config.seed) for source in plan.sources}
        for part in questions.values():
            check_gold(corpus, part)
    return Grid(run, config, plan, data, questions)


def run_grid(grid: Grid, say: Callable[[str], None] = lambda _: None) -> list[Measured]:
    """Measure every cell that is not measured yet; returns all, the averages last.

    rows.jsonl is written anew after every cell, so that a run cut short leaves its table.
    """
    done: list[Measured] = []
    path = grid.run.folder / "rows.jsonl"
    for planned in grid.plan.retrievers:
        shared: Shared | None = None
        for agent in grid.plan.agents:
            say(f"{agent.label} + {planned.label}")
            for cell in grid.plan.cells(agent, planned):
                loop = grid.loop(cell)
                shared = shared or _shared(loop, planned)
                done.append(_measured(grid, cell, loop, shared))
                write_jsonl(path, [held.row for held in done])
    done = _in_plan_order(grid.plan, done)
    samples, seed = grid.config.evaluation.bootstrap, grid.config.seed
    done += averages(done, samples, seed)
    write_jsonl(path, [held.row for held in done])
    return done


def _in_plan_order(plan: Plan, done: Sequence[Measured]) -> list[Measured]:
    """Order rows as a reader compares them: by data set, then agent, then retriever."""
    labels = [agent.label for agent in plan.agents], [r.label for r in plan.retrievers]
    names = [source.name for source in plan.sources]
    return sorted(
        done,
        key=lambda held: (
            names.index(held.row.dataset),
            labels[0].index(held.row.agent),
            labels[1].index(held.row.retriever),
        ),
    )


def _measured(grid: Grid, cell: Cell, loop: Loop, shared: Shared) -> Measured:
    """Measure one cell, or read what its stages hold."""
    questions, retrieval = grid.questions[cell.source.name], _retrieval(grid, cell, shared)
    if not grid.answered(cell):
        shared.later.opened()  # so that the row's seconds are for answering alone
    trajectories = rollouts(
        loop, f"{cell.folder}/rollouts", questions, retrieval, describe=cell.name
    )
    samples, depth = grid.config.evaluation.bootstrap, grid.config.evaluation.depth
    settings = {"name": cell.name, "depth": depth, "bootstrap": samples, "seed": grid.config.seed}
    inputs = {"trajectories": fingerprint(trajectories), "retriever": retrieval.key}
    stage = grid.run.stage(f"{cell.folder}/scores", settings, inputs)
    if not stage.done:
        seconds = stage_seconds(grid.run.folder / cell.folder)[f"{cell.folder}/rollouts"]
        # The oracle puts its passage anywhere among the hits: deeper ones say nothing.
        deep = max(3, cell.retriever.config.k) if cell.retriever.kind == "oracle" else depth
        top = top_hits(trajectories, retrieval.retriever, deep)
        k, price = cell.retriever.config.k, cell.agent.config.price
        row, records = score(trajectories, cell.name, k, seconds, top, price)
        row = msgspec.structs.replace(
            with_intervals(row, records, samples, grid.config.seed),
            agent=cell.agent.label,
            retriever=cell.retriever.label,
            dataset=cell.source.name,
        )
        write_jsonl(stage.folder / "records.jsonl", records)
        write_trec(stage.folder, "searches", trajectories, top, cell.name)
        write_atomic(stage.folder / "row.json", msgspec.json.encode(row))
        stage.finish({"questions": row.n, "failed": row.failed})
    row = msgspec.json.decode((stage.folder / "row.json").read_bytes(), type=Row)
    with stage.rows("records.jsonl", Record) as rows:
        return Measured(row, list(rows.rows), stage.folder)


def _shared(loop: Loop, planned: PlannedRetriever) -> Shared:
    """Name what a planned retriever searches with; its index is made or opened by need."""
    corpus = loop.data.corpus
    if planned.kind == "bm25":
        return Shared(Later(lambda: BM25Retriever(corpus)), f"bm25:{corpus.digest}")
    encoder = open_encoder(loop.config)
    key = f"{encoder.fingerprint}{_index_key(loop.config)}"
    folder = f"grid/indexes/{key}"
    return Shared(Later(lambda: index(loop, folder, encoder).retriever), key)


def _index_key(config: Config) -> str:
    """Return what tells indexes of one encoder apart: nothing for the default settings."""
    given, standard = flat(config), flat(Config())
    changed = {
        key: value
        for key, value in given.items()
        if key.startswith("retriever.index.") and key not in SEARCH_ONLY and value != standard[key]
    }
    return f"-{fingerprint(changed)}" if changed else ""


def _retrieval(grid: Grid, cell: Cell, shared: Shared) -> Retrieval:
    """Return the retriever of a cell: the shared one, or the oracle over it."""
    planned, seed = cell.retriever, grid.config.seed
    if planned.kind != "oracle":
        return Retrieval(shared.later, shared.key)
    questions = grid.questions[cell.source.name]
    if not gold_known(questions):
        raise DataError(
            f"retriever {planned.label!r}: no question of data set {cell.source.name!r} names the "
            "passage of a hop (metadata.hops), which the oracle shows; take another retriever"
        )
    oracle = OracleRetriever(questions, shared.later, grid.data.corpus, place="random", seed=seed)
    return Retrieval(oracle, f"oracle:{seed}:{shared.key}")


def trec_files(measured: Sequence[Measured]) -> Iterator[tuple[Row, Path, Path, Path]]:
    """List run, judgements and queries of every measured cell."""
    for held in measured:
        if held.folder is not None:
            files = (held.folder / f"searches.{kind}" for kind in ("run", "qrels", "tsv"))
            run, qrels, queries = files
            yield held.row, run, qrels, queries
