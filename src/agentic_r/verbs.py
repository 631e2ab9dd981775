"""What each verb of the command line does, one function each; heavy modules are imported inside."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from agentic_r.config import Config, to_toml
from agentic_r.errors import ConfigError, DataError, LLMError, MissingExtraError
from agentic_r.waiting import wait

if TYPE_CHECKING:
    from pathlib import Path

    from agentic_r.agent.agent import SearchAgent
    from agentic_r.evaluation.benchmark import Row
    from agentic_r.loop import Outcome
    from agentic_r.types import Trajectory


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _show(rows: Sequence[Row]) -> None:
    """Print the table, and what it cannot say by itself."""
    from agentic_r.evaluation.report import notes, table

    print("\n".join(["", table(rows), *notes(rows)]))


def dry_run(options: argparse.Namespace, config: Config) -> None:
    """Print the settings as TOML, and the stages of the loop or the grid as comments below."""
    from agentic_r.evaluation.plan import wanted

    print(to_toml(config), end="")
    if options.verb == "evaluate" and wanted(config):
        _describe_grid(config)
        return
    if getattr(options, "examples", ""):
        print("\n# One stage:\n#   given/retriever")
        return
    from agentic_r.loop import stage_names
    from agentic_r.parts import require_questions

    if options.verb not in ("index", "search", "serve"):
        require_questions(config)
    print("\n# The stages of the loop, in order:")
    print("\n".join(f"#   {name}" for name in stage_names(config)))


def _run(options: argparse.Namespace, config: Config, until: str = "") -> Outcome:
    from agentic_r.loop import open_run, run_loop

    with open_run(config, options.fork) as run:
        return run_loop(run, config, _say, until)


def loop(options: argparse.Namespace, config: Config) -> None:
    """Run the whole loop, print its table and say where the report is."""
    from agentic_r.evaluation.report import write_report
    from agentic_r.loop import open_run, run_loop
    from agentic_r.summary import headline, summarise_run

    with open_run(config, options.fork) as run:
        outcome = run_loop(run, config, _say)
        report = summarise_run(outcome)
        _, page = write_report(run.folder, report)
    _show(report.rows)
    print(f"\n{headline(report)}\n\nReport: {page}")


def index(options: argparse.Namespace, config: Config) -> None:
    """Encode the corpus with the untouched encoder; check or publish the indexes that are there."""
    from agentic_r.loop import open_run, run_folder
    from agentic_r.parts import open_corpus, open_encoder
    from agentic_r.retriever.index import about, indexes, read_manifest, verify
    from agentic_r.retriever.sealed import check_seal, sealed
    from agentic_r.steps import index_corpus

    if options.roll_back or options.publish:
        from agentic_r.publishing import published, rolled_back

        print(rolled_back(config) if options.roll_back else published(config))
        return
    if options.verify:
        for folder in indexes(run_folder(config)):
            manifest = verify(folder)
            print(f"{folder}: whole ({', '.join(manifest.files)}); {about(manifest)}")
        for folder in sealed(run_folder(config)):
            print(f"{folder}: whole ({check_seal(folder)} files of a model)")
        return
    if options.scale:
        settings = msgspec.structs.replace(config.retriever.index, scale=options.scale)
        retriever = msgspec.structs.replace(config.retriever, index=settings)
        config = msgspec.structs.replace(config, retriever=retriever)
    with open_run(config) as run:
        corpus, _ = open_corpus(config)
        index_corpus(run, config, corpus, "base/index", open_encoder(config))
        folder = run.folder / "base" / "index"
    print(f"{len(corpus):,} passages in {folder}")
    print(about(read_manifest(folder / "index")))


def search(options: argparse.Namespace, config: Config) -> None:
    """Print what the newest retriever returns for a query."""
    from agentic_r.served import open_served

    main = open_served(config).main
    print(f"{main.name} retriever")
    hits = main.retriever.search([options.query], config.retriever.k)[0]
    for rank, hit in enumerate(hits, 1):
        print(f"{rank}. {hit.score:.3f}  {hit.passage.id}  {hit.passage.title}")
        print(f"   {hit.passage.text}")


def ask(options: argparse.Namespace, config: Config) -> None:
    """Answer one question, every turn printed when it happens."""
    agent = _agent(config)
    trajectory = _answer(agent, options.question)
    if trajectory.stop == "error":
        raise LLMError(trajectory.error)


def chat(options: argparse.Namespace, config: Config) -> None:
    """Answer questions until an empty line or the end of the input."""
    agent = _agent(config)
    print("Ask; an empty line or Ctrl-D ends.")
    while True:
        try:
            question = input("\n> ").strip()
        except EOFError:
            print()
            return
        if not question:
            return
        _answer(agent, question)


def _agent(config: Config) -> SearchAgent:
    from agentic_r.loop import latest_retrieval, open_run

    with open_run(config) as run:
        loop, retrieval, name = latest_retrieval(run, config, agent=True)
    agent = loop.agent(retrieval.retriever)
    print(f"{name} retriever, k={agent.k}\n")
    return agent


def _answer(agent: SearchAgent, question: str) -> Trajectory:
    """Let the agent answer, and print every turn when it happens."""
    from agentic_r.agent.shown import end_text, in_colour, turn_text
    from agentic_r.types import Question, Trajectory

    colour = in_colour(sys.stdout)
    start = Trajectory("ask", Question("ask", question, ()))
    [end] = agent.continue_(
        [start], on_turn=lambda now, _: print(turn_text(now, colour), flush=True)
    )
    print(end_text(end, colour))
    return end


def rollout(options: argparse.Namespace, config: Config) -> None:
    """Run the loop up to the rollouts of an iteration."""
    _reach(options, config, "rollouts")


def label(options: argparse.Namespace, config: Config) -> None:
    """Run the loop up to the labels of an iteration, or compare two judges on its searches."""
    if options.compare_judges:
        _compare_judges(options, config)
    else:
        _reach(options, config, "labels")


def _compare_judges(options: argparse.Namespace, config: Config) -> None:
    from agentic_r.judging import check_judges, judges_compared

    sample = 100 if options.sample is None else options.sample
    if sample < 1:
        raise ConfigError(f"--sample: got {sample}, expected 1 or more")
    names = (options.compare_judges[0], options.compare_judges[1])
    check_judges(config, names)
    outcome = _run(options, config, _stage(options, config, "rollouts"))
    assert outcome.newest is not None
    drawn = {"sample": sample, "shuffle": options.shuffle}
    print("\n".join(judges_compared(outcome.loop, *outcome.newest, names, **drawn)))


def train(options: argparse.Namespace, config: Config) -> None:
    """Run the loop up to a trained learner, or say what memory the agent needs."""
    if options.plan:
        from agentic_r.agent.memory import plan

        print(plan(config, options.gpus, sharded=options.engine == "verl"))
        return
    if options.engine == "verl":
        _with_verl(options, config)
        return
    if options.examples:
        _on_given(options, config)
        return
    if options.learner == "tiny-agent":
        from agentic_r.agent.tiny import made
        from agentic_r.loop import run_folder

        folder = made(run_folder(config) / "tiny-agent", config.seed, config.agent.dialect)
        print(f"done: {folder}\nTo use it: --agent.model {folder}")
        return
    if options.learner == "agent" and not config.agent.train.wanted:
        raise ConfigError("agent.train.epochs is 0, expected at least 1 to train the agent")
    if options.learner == "reranker" and not config.retriever.rerank.epochs:
        raise ConfigError(
            "retriever.rerank.epochs is 0, expected at least 1 to train the re-ranker"
        )
    stage = _reach(options, config, options.learner)
    if options.learner != "agent":
        from agentic_r.learning import told

        print(told(stage, config.retriever.train.dev_k))


def _on_given(options: argparse.Namespace, config: Config) -> None:
    """Train the retriever on a file of examples instead of the run's own labels."""
    from agentic_r.learning import told
    from agentic_r.loop import open_run
    from agentic_r.taught import train_on

    if options.learner != "retriever":
        raise ConfigError(f"--examples: got {options.learner}, expected retriever")
    given = (options.examples, options.form or "ours")
    with open_run(config, options.fork) as run:
        folder = train_on(run, config, *given, row_numbers=options.row_numbers, say=_say)
    print(told(folder, config.retriever.train.dev_k))
    print(f"done: {folder}\nTo use it: --name NEW --retriever.base {folder / 'model'}")


def _with_verl(options: argparse.Namespace, config: Config) -> None:
    """Write what verl trains the agent from, and launch it where its Python is named."""
    from agentic_r.loop import run_folder
    from agentic_r.verl.folder import launch, write

    if options.learner != "agent":
        raise ConfigError(f"--engine verl: got {options.learner}, expected agent")
    folder = write(config, run_folder(config) / "verl")
    python = config.agent.train.verl.python
    if python:
        launch(folder, python, config.agent.train.verl.overrides)
        print(f"done: {folder / 'checkpoints'}")
        return
    print(
        f"written: {folder}\nIn an environment made from its requirements.txt, with "
        f"`agentic-r serve` at {config.agent.train.verl.retriever}, train with:\n"
        f"    {folder / 'run.sh'}"
    )


def _reach(options: argparse.Namespace, config: Config, step: str) -> Path:
    """Run the loop up to a step of an iteration, say where it lies and return that."""
    stage = _stage(options, config, step)
    folder = _run(options, config, stage).loop.run.folder / stage
    print(f"done: {folder}")
    return folder


def _stage(options: argparse.Namespace, config: Config, step: str) -> str:
    """Name a step of the iteration that was asked for. Raises ConfigError where there is none."""
    if not 1 <= options.iteration <= config.loop.iterations:
        raise ConfigError(
            f"--iteration: got {options.iteration}, expected 1 to {config.loop.iterations} "
            "(loop.iterations)"
        )
    return f"iteration-{options.iteration}/{step}"


def evaluate(options: argparse.Namespace, config: Config) -> None:
    """Measure the systems of the loop, or a grid, and print the table."""
    from agentic_r.evaluation.plan import wanted

    if wanted(config):
        _evaluate_grid(options, config)
        return
    if options.trec:
        raise ConfigError("--trec needs a grid: set evaluation.datasets (see docs/evaluate.md)")
    from agentic_r.loop import measure_dev, open_run, run_loop, stage_names

    with open_run(config, options.fork) as run:
        if options.split == "test":
            rows = run_loop(run, config, _say).rows
        else:
            last = stage_names(config)[-2]
            rows = measure_dev(run_loop(run, config, _say, last))
    _show(rows)


def _evaluate_grid(options: argparse.Namespace, config: Config) -> None:
    from pathlib import Path

    from agentic_r.evaluation.plan import missing, plan

    if options.split != "test":
        raise ConfigError("--split is for the loop's own table; name the split in the data set")
    found = plan(config)
    gone = missing(config, found)
    if gone:
        raise DataError(f"{gone[0]}: there is no such file; check the path")
    from agentic_r.evaluation.terminal import show_run, show_trec
    from agentic_r.grid import open_grid, run_grid, trec_files
    from agentic_r.loop import open_run

    with open_run(config, options.fork) as run:
        measured = run_grid(open_grid(run, config, found), _say)
        folder = run.folder
    print()
    print("\n".join(show_run(folder)))
    if options.trec:
        print("\n".join(show_trec(trec_files(measured), Path(options.trec))))
    print(f"\nRows: {folder / 'rows.jsonl'}")


def _describe_grid(config: Config) -> None:
    """Say what the grid would measure, without network; raises DataError for a missing file."""
    from agentic_r.evaluation.plan import describe, missing, plan

    found = plan(config)
    print("\n# The grid:")
    print("\n".join(f"# {line}" for line in describe(config, found)))
    gone = missing(config, found)
    if gone:
        raise DataError(f"{gone[0]}: there is no such file; check the path")


def serve(options: argparse.Namespace, config: Config) -> None:
    """Serve the newest retriever until stopped."""
    import agentic_r

    given = {"host": options.host, "port": options.port, "shards": options.shards}
    settings = {key: value for key, value in given.items() if value is not None}
    limits = msgspec.structs.replace(config.serve, **settings)
    config = msgspec.structs.replace(config, serve=limits)
    if not 0 <= limits.port <= 65535:
        raise ConfigError(f"--port: got {limits.port}, expected 0 to 65535")
    try:
        if options.mcp:
            from agentic_r.serve.mcp import over_stdio
        else:
            from agentic_r.serve.server import serve
    except ModuleNotFoundError as error:
        extra = "mcp" if options.mcp else "serve"
        raise MissingExtraError(str(error.name), extra) from None
    from agentic_r.served import Opening

    opener = Opening(config, quick=True)
    if options.mcp:
        wait(over_stdio(opener, limits, agentic_r.__version__))
    else:
        serve(opener, limits, agentic_r.__version__, lambda text: print(text, flush=True))


def status(options: argparse.Namespace) -> None:
    """Print what a run has done and what it owes."""
    from agentic_r.stage import status

    for name, state, counts in status(options.run):
        numbers = ", ".join(f"{value} {key}" for key, value in counts.items())
        print(f"{state:<11} {name:<50} {numbers}")


def report(options: argparse.Namespace) -> None:
    """Print finished runs, compare their rows, and write a page over several."""
    from pathlib import Path

    from agentic_r.evaluation.report import read_report
    from agentic_r.evaluation.terminal import show_comparison, show_run, write_overview

    folders = [Path(folder) for folder in options.run]
    if options.compare:
        print("\n".join(show_comparison(folders, options.compare, options.metric)))
        return
    grids = False
    for folder in folders:
        print(folder)
        if (folder / "rows.jsonl").is_file() or (folder / "grid").is_dir():
            grids = True
            print("\n".join(show_run(folder, options.metric, options.over)))
        if (folder / "report.json").is_file() or not grids:
            from agentic_r.summary import headline

            report = read_report(folder / "report.json")
            _show(report.rows)
            print(f"\n{headline(report)}\n")
    if grids or len(folders) > 1 or options.page:
        page = Path(options.page) if options.page else folders[0] / "comparison.html"
        write_overview(page, folders, options.metric, options.over)
        print(f"Page: {page}")
