"""The loop as a list of stages: roll out, label, train the retriever, measure, go round again.

data                      corpus and questions of the run
base/index                the untouched encoder's index
iteration-N/agent         the agent trained by reward, if wanted
iteration-N/rollouts      the agent answers the training questions
iteration-N/labels        relevance and correctness of candidates, training examples
iteration-N/dev           what the agent asks on dev questions, where training is watched on it
iteration-N/retriever     the encoder trained on them
iteration-N/index         the corpus encoded anew
iteration-N/reranker      a re-ranker that learned the same examples, if wanted
iteration-N/agent         or, here, the agent trained on its own correct trajectories
evaluation/ROW            every system on the test questions
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from agentic_r.agent.agent import SearchAgent
from agentic_r.config import Config
from agentic_r.dev import dev_searches, needs_dev
from agentic_r.errors import ConfigError, DataError
from agentic_r.evaluation.benchmark import Record, Row
from agentic_r.finding import compose, reranked_name
from agentic_r.given import Given, read_given
from agentic_r.learning import CurvePoint, check_training, refuse_choice, trained
from agentic_r.parts import (
    check_servers,
    gold_known,
    load_encoder,
    open_agent,
    open_data,
    open_encoder,
)
from agentic_r.practice import agent_trained, refuse_unfit, reinforced
from agentic_r.protocols import Retriever
from agentic_r.reranking import reranked, reranker_trained, weighed
from agentic_r.retriever.bm25 import BM25Retriever
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.objective import GRADED_LOSSES
from agentic_r.retriever.oracle import OracleRetriever
from agentic_r.stage import ANSWERS, Run
from agentic_r.steps import (
    Loop,
    Nothing,
    Retrieval,
    System,
    index,
    labels,
    measured,
    rollouts,
    write_data,
)
from agentic_r.types import Example, Trajectory
from agentic_r.utility.labelled import Labels

NO_GOLD = "no dev question names the passage of a hop, so that nothing tells what is best"


@dataclass(frozen=True)
class Iteration:
    """What one time round the loop gave."""

    number: int
    rollouts: list[Trajectory]
    labels: Labels
    curve: list[CurvePoint]
    retrieval: Retrieval
    trained_on: int
    reranker: Path | None = None


@dataclass
class Outcome:
    """Everything a finished loop leaves for the report; `newest` are the last rollouts made."""

    loop: Loop
    rows: list[Row] = field(default_factory=list)
    records: dict[str, list[Record]] = field(default_factory=dict)
    trajectories: dict[str, list[Trajectory]] = field(default_factory=dict)
    iterations: list[Iteration] = field(default_factory=list)
    newest: tuple[list[Trajectory], Retrieval] | None = None

    def add(self, measurement: tuple[Row, list[Record], list[Trajectory]]) -> None:
        """Take in one measured system."""
        row, records, trajectories = measurement
        self.rows.append(row)
        self.records[row.name] = records
        self.trajectories[row.name] = trajectories


def run_folder(config: Config) -> Path:
    """Return the folder of the run that a config describes."""
    return Path(config.runs) / config.name


def open_run(config: Config, fork: str = "") -> Run:
    """Open the run of a config, or with `fork` a new one that reuses what still fits."""
    folder = run_folder(config)
    return Run.fork(folder, Path(config.runs) / fork, config) if fork else Run.open(folder, config)


def open_loop(run: Run, config: Config) -> Loop:
    """Open everything that a config names for a run."""
    data = open_data(config)
    llm, key = open_agent(config, data, run.folder / ANSWERS / "agent.jsonl")
    loop = Loop(run, config, data, llm, key)
    refuse_unfit(config)
    loop.agent(Nothing())  # a prompt that cannot be used is refused before any work is done
    return loop


def run_loop(
    run: Run,
    config: Config,
    say: Callable[[str], None] = lambda _: None,
    until: str = "",
) -> Outcome:
    """Run everything that is not done yet, or up to the stage `until`; `say` hears what begins.

    Raises ConfigError for a stage that the loop does not have.
    """
    names = stage_names(config)
    if until and until not in names:
        raise ConfigError(f"got stage {until!r}, expected one of {', '.join(names)}")
    _refuse_search_only(config)
    outcome = Outcome(open_loop(run, config))
    if until not in ("data", "base/index"):
        _check_servers(outcome.loop)
    for stage in _stages(outcome, say):
        if stage == until:
            break
    return outcome


def _refuse_search_only(config: Config) -> None:
    """Refuse settings that change what `search` and `ask` find, and that the loop would ignore."""
    retriever = config.retriever
    for key, ignored in (
        ("kind", retriever.kind != "dense"),
        ("cache", bool(retriever.cache)),
        ("rerank.model", bool(retriever.rerank.model)),
    ):
        if ignored:
            raise ConfigError(
                f"retriever.{key} is for search and ask alone: the loop trains and measures the "
                "dense retriever; leave the setting out of a loop"
            )


def stage_names(config: Config) -> list[str]:
    """List the stages of a loop in the order in which they are done, without doing any."""
    rounds = range(1, config.loop.iterations + 1)
    iterations = [
        f"iteration-{number}/{part}" for number in rounds for part in _parts(config, number)
    ]
    return ["data", "base/index", *iterations, "evaluation"]


def _parts(config: Config, number: int) -> list[str]:
    """List the stages of one iteration; an agent that learns asks dev questions anew in each."""
    learns = config.agent.train.wanted
    supervised = config.agent.train.method == "supervised"
    parts = {
        "agent": learns and not supervised,
        "rollouts": True,
        "labels": True,
        "dev": needs_dev(config) and (learns or number == 1),
        "retriever": True,
        "index": True,
        "reranker": bool(config.retriever.rerank.epochs),
    }
    after = ["agent"] if learns and supervised else []
    return [part for part, there in parts.items() if there] + after


def _check_servers(loop: Loop) -> None:
    """Try the servers that what is not done yet needs."""
    folder, config = loop.run.folder, loop.config
    labelled = folder / f"iteration-{config.loop.iterations}" / "labels" / "manifest.json"
    check_servers(
        config,
        loop.data,
        loop.llm,
        agent=not (folder / "report.json").is_file(),
        judge=not labelled.is_file(),
    )


def _stages(outcome: Outcome, say: Callable[[str], None]) -> Iterator[str]:
    """Go through the loop, filling `outcome`; yields the name of each stage when it is done."""
    loop, config, data = outcome.loop, outcome.loop.config, outcome.loop.data
    say(
        f"{len(data.corpus):,} passages; {len(data.train)} training, {len(data.dev)} dev and "
        f"{len(data.test)} test questions"
    )
    base = open_encoder(config)  # before the first stage: what cannot be opened leaves no trace
    _check_training(loop, base)
    given = _given(loop, say)
    write_data(loop)
    yield "data"
    untouched = index(loop, "base/index", base)
    yield "base/index"
    current, encoder = untouched, base
    given = _as_sent(given, loop.agent(untouched.retriever), say)
    supervised = config.agent.train.method == "supervised"
    names, dev = stage_names(config), list[Example]()
    for number in range(1, config.loop.iterations + 1):
        name = f"iteration-{number}"
        say(f"Iteration {number} of {config.loop.iterations}")
        if not supervised:
            loop = outcome.loop = reinforced(loop, f"{name}/agent", current)
            yield f"{name}/agent"
        first = given if number == 1 else Given()
        trajectories = rollouts(
            loop, f"{name}/rollouts", data.train, current, given=first.trajectories
        )
        outcome.newest = trajectories, current
        yield f"{name}/rollouts"
        found = labels(loop, f"{name}/labels", trajectories, current, first)
        say("\n   ".join(found.lines()))
        yield f"{name}/labels"
        _refuse_no_examples(name, found)
        start = base if config.retriever.train.start == "base" else encoder
        earlier = [e for past in outcome.iterations for e in past.labels.examples]
        examples = [*(earlier if config.retriever.train.examples == "all" else ()), *found.examples]
        if f"{name}/dev" in names:
            dev = dev_searches(loop, f"{name}/dev", untouched)
            yield f"{name}/dev"
        encoder, curve = trained(loop, f"{name}/retriever", examples, start, base, dev)
        yield f"{name}/retriever"
        current = index(loop, f"{name}/index", encoder)
        done = Iteration(number, trajectories, found, curve, current, len(examples))
        outcome.iterations.append(done)
        yield f"{name}/index"
        if config.retriever.rerank.epochs:
            reranker = reranker_trained(loop, f"{name}/reranker", examples, current, dev)
            outcome.iterations[-1] = replace(done, reranker=reranker)
            say(weighed(reranker.parent, config.retriever.k))
            yield f"{name}/reranker"
        if supervised and config.agent.train.wanted:
            loop = outcome.loop = agent_trained(loop, f"{name}/agent", trajectories)
            yield f"{name}/agent"
    say(f"Held-out questions: {len(data.test)}")
    if config.evaluation.oracle and not gold_known(data.test):
        say("No row for oracle retrieval: no test question names the passage of a hop")
    for system in systems(outcome, untouched):
        outcome.add(measured(loop, data.test, system))
    yield "evaluation"


def _check_training(loop: Loop, base: Encoder) -> None:
    train, rule = loop.config.retriever.train, loop.config.utility.rule
    check_training(loop.config, base)
    if train.loss in GRADED_LOSSES and rule != "graded":
        raise ConfigError(
            f'retriever.train.loss: "{train.loss}" learns graded targets, and utility.rule = '
            f'"{rule}" gives none; set utility.rule to "graded", or take info-nce'
        )
    if not gold_known(loop.data.dev):
        refuse_choice(train, NO_GOLD)


def _given(loop: Loop, say: Callable[[str], None]) -> Given:
    """Read what was made elsewhere, and say what is taken of it."""
    config, data = loop.config, loop.data
    given = read_given(config.given, data.corpus, data.train, loop.agent(Nothing()).dialect)
    for line in given.said(len(data.train)):
        say(line)
    return given


def _as_sent(given: Given, agent: SearchAgent, say: Callable[[str], None]) -> Given:
    """Have given searches send what this run's agent sends, and say where that changes them."""
    again, changed = given.in_form(agent)
    if changed:
        say(
            f"{changed:,} given searches had sent the retriever something else; labels and "
            f"training have what retriever.input sends: {agent.form}"
        )
    return again


def _refuse_no_examples(name: str, found: Labels) -> None:
    if found.examples:
        return
    reasons = ", ".join(f"{reason}: {count}" for reason, count in found.report.items() if count)
    raise DataError(
        f"{name}: none of {found.costs.searches} labelled searches gives a training example "
        f"({reasons or 'the agent never searched'}); give more questions, check the judge, "
        "or lower utility.relevance or utility.negatives"
    )


def systems(outcome: Outcome, untouched: Retrieval) -> Iterator[System]:
    """List what the table compares, in its order; the oracle only where there is one."""
    loop, config = outcome.loop, outcome.loop.config
    k, form = config.retriever.k, config.retriever.input
    if config.evaluation.bm25:
        bm25 = Retrieval(BM25Retriever(loop.data.corpus), f"bm25:{loop.data.corpus.digest}")
        yield System("BM25 query", bm25, k, "query")
    for plain in dict.fromkeys(("query", "question+query", form)):
        for passages in config.evaluation.ks:
            yield System(f"untouched {plain}", untouched, passages, plain)
    for iteration in outcome.iterations:
        yield System(f"iteration {iteration.number}", iteration.retrieval, k, form)
    for iteration in outcome.iterations:
        if iteration.reranker is not None:
            again = reranked(loop, iteration.retrieval, iteration.reranker)
            yield System(f"re-ranked iteration {iteration.number}", again, k, form)
    if config.evaluation.oracle and gold_known(loop.data.test):
        oracle = OracleRetriever(
            [*loop.data.dev, *loop.data.test],
            untouched.retriever,
            loop.data.corpus,
            place="random",
            seed=config.seed,
        )
        key = f"oracle:{config.seed}:{untouched.key}"
        yield System("oracle", Retrieval(oracle, key), k, "question+query")


def measure_dev(outcome: Outcome) -> list[Row]:
    """Measure every system at every k on the dev questions: what k and input are chosen by."""
    loop, rows = outcome.loop, []
    untouched = index(loop, "base/index", open_encoder(loop.config))
    for system in systems(outcome, untouched):
        ks = (system.k,) if system.about.startswith("untouched") else loop.config.evaluation.ks
        for k in ks:
            at_k = replace(system, k=k)
            rows.append(measured(loop, loop.data.dev, at_k, folder="dev")[0])
    return rows


def latest_retrieval(
    run: Run, config: Config, *, agent: bool = False
) -> tuple[Loop, Retrieval, str]:
    """Open what search and ask use, and its name: dense is the last iteration's, else the base.

    With `agent`, the agent's model is tried before an index is made.
    """
    loop = open_loop(run, config)
    if agent:
        check_servers(config, loop.data, loop.llm, agent=True, judge=False)
    name: str = config.retriever.kind

    def dense() -> tuple[Retriever, str]:
        nonlocal name
        retrieval, latest = _latest_dense(loop)
        name = latest if name == "dense" else f"{name} ({latest} dense)"
        return retrieval.retriever, retrieval.key

    retriever, key = compose(config, loop.data.corpus, dense)
    return loop, Retrieval(retriever, key), name + reranked_name(config)


def _latest_dense(loop: Loop) -> tuple[Retrieval, str]:
    run, config = loop.run, loop.config
    for number in range(config.loop.iterations, 0, -1):
        folder = run.folder / f"iteration-{number}"
        if (folder / "retriever" / "manifest.json").is_file():
            encoder = load_encoder(config, str(folder / "retriever" / "model"))
            return index(loop, f"iteration-{number}/index", encoder), f"iteration {number}"
    return index(loop, "base/index", open_encoder(config)), "untouched"
