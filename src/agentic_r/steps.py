"""The stages of the loop, one function each: roll out, label, train, index, measure.

Every function opens its stage, returns at once what a finished one left, and otherwise carries
on from the rows or the checkpoint that are there. What a stage depends on is named in its
settings and inputs, so that a stage is never reused for something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace as replace_fields

from agentic_r.agent.agent import SearchAgent
from agentic_r.changes import lasting
from agentic_r.config import Config
from agentic_r.data.corpus import Corpus
from agentic_r.data.questions import Questions
from agentic_r.evaluation.benchmark import Record, Row, score, top3
from agentic_r.evaluation.table import with_intervals
from agentic_r.given import Given
from agentic_r.io import digest_file, fingerprint, write_atomic, write_jsonl
from agentic_r.metrics import score_question
from agentic_r.parts import Data, open_judge
from agentic_r.protocols import LLM, Retriever
from agentic_r.retriever.dense import DenseRetriever
from agentic_r.retriever.encoder import Encoder
from agentic_r.stage import ANSWERS, Run, Stage
from agentic_r.types import Passage, Question, Trajectory
from agentic_r.utility.judges import chat_of, forget_models
from agentic_r.utility.label import label
from agentic_r.utility.labelled import Costs, Labelled, Labels
from agentic_r.utility.subanswers import KnownSubAnswers


@dataclass(frozen=True)
class Workspace:
    """What a stage without an agent needs: the run, its config and the data."""

    run: Run
    config: Config
    data: Data

    def settings(self, table: str) -> dict[str, Any]:
        """Return the settings of one table of the config that results depend on."""
        return settings_of(self.config, table)


@dataclass(frozen=True)
class Loop(Workspace):
    """What all stages share: a workspace, and the agent's language model."""

    llm: LLM
    llm_key: str

    def agent(self, retriever: Retriever, *, k: int | None = None, form: str = "") -> SearchAgent:
        """Return the agent searching with a retriever."""
        return SearchAgent.from_config(
            self.config.agent,
            retriever,
            llm=self.llm,
            k=k or self.config.retriever.k,
            form=form or self.config.retriever.input,
            seed=self.config.seed,
        )

    def agent_settings(self) -> dict[str, Any]:
        """Return the agent's settings that a rollout depends on."""
        return by_content(self.settings("agent"))

    def with_llm(self, llm: LLM, key: str) -> Loop:
        """Return the same loop with another language model for the agent."""
        return replace(self, llm=llm, llm_key=key)


def by_content(settings: dict[str, Any]) -> dict[str, Any]:
    """Put the digest of a file in place of its name, where a setting names one."""
    return {
        key: digest_file(Path(value)) if key.endswith("_file") and value else value
        for key, value in settings.items()
    }


def settings_of(config: Config, table: str) -> dict[str, Any]:
    """Return the settings of one table of a config that results depend on."""
    found = {}
    for key, value in lasting(config).items():
        head, _, name = key.rpartition(".")
        if head == table:
            found[name] = value
    return found


@dataclass(frozen=True)
class Retrieval:
    """A retriever and what identifies it among a stage's inputs."""

    retriever: Retriever
    key: str


@dataclass(frozen=True)
class System:
    """What a row of the table measures: a retriever, how much it shows and what it is sent."""

    about: str
    retrieval: Retrieval
    k: int
    form: str

    @property
    def name(self) -> str:
        """The name of its row."""
        return f"{self.about}, k={self.k}"


def write_data(loop: Loop) -> None:
    """Keep the corpus (a large file: its name and digest) and the questions, as FlashRAG does."""
    stage = loop.run.stage("data", {"source": loop.config.data.source}, loop.data.digests)
    if stage.done:
        return
    corpus = loop.data.corpus
    if corpus.source is None:
        write_jsonl(stage.folder / "corpus.jsonl", map(_flashrag_passage, corpus))
    else:  # gigabytes, perhaps: the digest says which file it was
        at = {"path": str(corpus.source), "digest": corpus.digest, "passages": len(corpus)}
        write_atomic(stage.folder / "corpus.json", msgspec.json.encode(at))
    counts = {"passages": len(corpus)}
    for name in ("train", "dev", "test"):
        questions: Questions = getattr(loop.data, name)
        write_jsonl(stage.folder / f"{name}.jsonl", [_flashrag(q) for q in questions])
        counts[name] = len(questions)
    stage.finish(counts)


def _flashrag_passage(passage: Passage) -> dict[str, Any]:
    titled = f'"{passage.title}"\n{passage.text}' if passage.title else passage.text
    return {"id": passage.id, "contents": titled}


def _flashrag(question: Question) -> dict[str, Any]:
    return {
        "id": question.id,
        "question": question.text,
        "golden_answers": list(question.answers),
        "metadata": question.metadata,
    }


def index(loop: Loop, name: str, encoder: Encoder) -> Retrieval:
    """Encode the loop's corpus with an encoder, or open the index that is there."""
    return index_corpus(loop.run, loop.config, loop.data.corpus, name, encoder)


def index_corpus(
    run: Run, config: Config, corpus: Corpus, name: str, encoder: Encoder
) -> Retrieval:
    """Encode a corpus with an encoder, or open the index that is there; needs no question."""
    if encoder.passage_side != encoder.fingerprint:
        name = "base/index"  # the query side alone was trained: passages are where they were
    stage = run.stage(
        name,
        settings_of(config, "retriever.index"),
        {"corpus": corpus.digest, "encoder": encoder.passage_side},
    )
    folder = stage.folder / "index"
    if stage.done:
        return Retrieval(DenseRetriever.open(encoder, corpus, folder), encoder.fingerprint)
    settings = config.retriever.index
    if settings.ready and name == "base/index":
        from agentic_r.retriever.imported import adopt

        found = adopt(Path(settings.ready), folder, encoder, corpus)
        retriever = DenseRetriever(encoder, found, corpus)
    else:
        retriever = DenseRetriever.build(encoder, corpus, folder, settings)
    made = retriever.index.manifest
    stage.finish({"passages": len(corpus)}, engine=made.engine, recall=made.recall)
    return Retrieval(retriever, encoder.fingerprint)


def rollouts(
    loop: Loop,
    name: str,
    questions: Questions,
    retrieval: Retrieval,
    *,
    k: int | None = None,
    form: str = "",
    describe: str = "rolling out",
    given: Sequence[Trajectory] = (),
) -> list[Trajectory]:
    """Let the agent answer questions; what has ended is kept when the run is resumed.

    It is not asked the questions of `given` trajectories, which stand in place of its own.
    """
    agent = loop.agent(retrieval.retriever, k=k, form=form)
    settings = {
        "agent": loop.agent_settings(),
        "k": agent.k,
        "input": agent.form,
        "seed": loop.config.seed,
    }
    inputs = {
        "questions": fingerprint(list(questions)),
        "agent": loop.llm_key,
        "retriever": retrieval.key,
        **({"given": fingerprint(list(given))} if given else {}),
    }
    stage = loop.run.stage(name, settings, inputs)
    taken = {each.question.key for each in given}
    with stage.rows("trajectories.jsonl", Trajectory) as rows:
        if stage.done:
            return _in_order(rows.rows, questions)
        kept = {row.question.key for row in rows.rows}
        rows.extend([each for each in given if each.question.key not in kept])
        done = kept - taken
        agent.run(
            agent.owed([each for each in questions if each.key not in taken], done),
            on_rows=lambda new: rows.extend(r for r in new if r.question.key not in done),
            progress=describe,
        )
        trajectories = _in_order(rows.rows, questions)
        rows.close(order=lambda row: (row.question.key, row.id))
    stops = [row.stop or "unfinished" for row in trajectories]
    counts = {"questions": len(questions), "searches": sum(len(t.searches) for t in trajectories)}
    stage.finish(
        counts | ({"given": len(given)} if given else {}),
        {stop: stops.count(stop) for stop in sorted(set(stops)) if stop != "answered"},
        **spent(agent=loop.llm),
    )
    return trajectories


def _in_order(rows: Sequence[Trajectory], questions: Questions) -> list[Trajectory]:
    place = {question.key: number for number, question in enumerate(questions)}
    return sorted(rows, key=lambda row: place[row.question.key])


def measured(
    loop: Loop, questions: Questions, system: System, folder: str = "evaluation"
) -> tuple[Row, list[Record], list[Trajectory]]:
    """Measure one system on questions: its row of the table, records and trajectories."""
    name = f"{folder}/{_slug(system.name)}"
    trajectories = rollouts(
        loop,
        f"{name}/rollouts",
        questions,
        system.retrieval,
        k=system.k,
        form=system.form,
        describe=f"evaluating {system.name}",
    )
    seconds = stage_seconds(loop.run.folder / name)[f"{name}/rollouts"]
    stage = loop.run.stage(
        f"{name}/scores", {"name": system.name}, {"trajectories": fingerprint(trajectories)}
    )
    if stage.done:
        row = msgspec.json.decode((stage.folder / "row.json").read_bytes(), type=Row)
        with stage.rows("records.jsonl", Record) as rows:
            return row, list(rows.rows), trajectories
    top = top3(trajectories, system.retrieval.retriever)
    price = loop.config.agent.price
    row, records = score(trajectories, system.name, system.k, seconds, top, price)
    row = with_intervals(row, records, loop.config.evaluation.bootstrap, loop.config.seed)
    write_jsonl(stage.folder / "records.jsonl", records)
    write_atomic(stage.folder / "row.json", msgspec.json.encode(row))
    stage.finish({"questions": row.n, "failed": row.failed})
    return row, records, trajectories


def _slug(name: str) -> str:
    """Turn a row's name into a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def labels(
    loop: Loop,
    name: str,
    trajectories: Sequence[Trajectory],
    retrieval: Retrieval,
    given: Given | None = None,
) -> Labels:
    """Judge and continue the candidates of every search, and select training examples.

    Candidates and sub-answers that are `given` are neither searched nor asked for.
    """
    given = given or Given()
    utility = loop.config.utility
    agent = loop.agent(retrieval.retriever)
    if utility.samples > 1:
        agent.sampling = replace_fields(agent.sampling, temperature=utility.temperature)
    stage = _labels_stage(loop, name, agent, fingerprint(list(trajectories)), retrieval, given)
    judge, subanswers = open_judge(
        loop.config, loop.data, loop.run.folder / ANSWERS / "judge.jsonl"
    )
    if given.subanswers:
        subanswers = KnownSubAnswers(given.subanswers, subanswers)
    forget = getattr(loop.llm, "forget", lambda: None)
    with stage.rows("labels.jsonl", Labelled) as rows:

        def keep(new: list[Labelled]) -> None:
            """Write down a chunk; the next one must not depend on what this one left behind."""
            rows.extend(new)
            forget()

        forget()
        found = label(
            trajectories,
            retriever=retrieval.retriever,
            continue_=partial(agent.continue_, forget=False),
            judge=judge,
            subanswers=subanswers,
            reward=lambda question, answer: score_question(question, answer).em,
            settings=utility,
            seed=loop.config.seed,
            known=given.candidates,
            chunk=agent.chunk,
            done=list(rows.rows),
            on_rows=keep,
            progress=None if stage.done else "labelling",
        )
        if stage.done:
            return found
        rows.close(order=lambda row: row.key)
    write_jsonl(stage.folder / "utilities.jsonl", found.utilities)
    write_jsonl(stage.folder / "examples.jsonl", found.examples)
    used = spent(agent=loop.llm, judge=chat_of(judge))
    forget_models()
    stage.finish(_counts(found.costs), found.report | found.failures, **used)
    return found


def _labels_stage(
    loop: Loop,
    name: str,
    agent: SearchAgent,
    trajectories: str,
    retrieval: Retrieval,
    given: Given,
) -> Stage:
    """Open the stage of labels of trajectories, given by their digest."""
    settings = {
        "utility": by_content(loop.settings("utility")),
        "sub_answers": loop.config.data.sub_answers,
        "agent": loop.agent_settings(),
        "k": agent.k,
        "input": agent.form,
        "seed": loop.config.seed,
    }
    inputs = {"trajectories": trajectories, "agent": loop.llm_key, "retriever": retrieval.key}
    return loop.run.stage(name, settings, inputs | given.digests)


def spent(**models: object) -> dict[str, Any]:
    """Say what the run has asked of servers up to now, by role; nothing where there are none."""
    used = {role: getattr(model, "usage", None) for role, model in models.items()}
    told = {role: usage for role, usage in used.items() if usage is not None}
    return {"spent": msgspec.to_builtins(told)} if told else {}


def _counts(costs: Costs) -> dict[str, int]:
    counts: dict[str, int] = msgspec.to_builtins(costs)
    return counts


class Nothing:
    """A retriever that is never asked: the dialect alone is wanted."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Any]]:
        """Find nothing."""
        return [[] for _ in queries]


def stage_seconds(folder: Path) -> Mapping[str, float]:
    """Return the seconds of every finished stage of a run, in the order in which they ran."""
    found = []
    for path in folder.rglob("manifest.json"):
        manifest = msgspec.json.decode(path.read_bytes())
        if "stage" in manifest:
            found.append((manifest["order"], manifest["stage"], float(manifest["seconds"])))
    return {name: seconds for _, name, seconds in sorted(found)}
