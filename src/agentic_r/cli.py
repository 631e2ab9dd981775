"""The command line: verbs, one function each. Heavy modules are imported inside the verbs."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import msgspec

from agentic_r.config import Config, load_config, to_toml
from agentic_r.errors import (
    AgenticRError,
    ConfigError,
    DataError,
    LLMError,
    MissingExtraError,
)
from agentic_r.waiting import wait

if TYPE_CHECKING:
    from agentic_r.agent.agent import SearchAgent
    from agentic_r.evaluation.benchmark import Row
    from agentic_r.loop import Outcome
    from agentic_r.steps import Loop, Retrieval
    from agentic_r.types import Trajectory

Verb = Callable[[argparse.Namespace, Config], None]

EPILOG = """Any setting can be given on the command line by its dotted name, for instance
--retriever.train.epochs 1 or --seed 7. Settings are listed in docs/config.md."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 an error in one line, 2 wrong usage.

    Under `torchrun` the first process runs the verb and the others train with it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from agentic_r.retriever.together import dismiss, work

        if int(os.environ.get("RANK", "0")) > 0:
            return work()
        code = _verb(arguments)
        if not code:  # after an error, torchrun ends the others
            dismiss()
        return code
    return _verb(arguments)


def _verb(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    try:
        if options.verb in ("status", "report"):
            if rest:
                parser.error(f"unrecognized arguments: {' '.join(rest)}")
            options.function(options)
        else:
            config = load_config(options.config, overrides(rest))
            if options.dry_run:
                _dry_run(options, config)
            else:
                options.function(options, config)
    except AgenticRError as error:
        print(f"agentic-r: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nagentic-r: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        print(f"agentic-r: {error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def overrides(rest: Sequence[str]) -> list[tuple[str, str]]:
    """Read `--a.b value` and `--a.b=value` pairs. Raises ConfigError for anything else."""
    pairs: list[tuple[str, str]] = []
    items = iter(rest)
    for item in items:
        if not item.startswith("--"):
            raise ConfigError(f"got {item!r}, expected a setting such as --retriever.k 3")
        key, equals, value = item.removeprefix("--").partition("=")
        if not equals:
            found = next(items, None)
            if found is None:
                raise ConfigError(f"--{key} has no value; write --{key} VALUE")
            value = found
        pairs.append((key, value))
    return pairs


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """Describe every verb."""
    parser = _Parser(
        prog="agentic-r",
        description="Train the retriever of a search agent on what really helped the agent.",
        epilog=EPILOG,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, function: Verb, about: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=about, description=about, epilog=EPILOG)
        added.add_argument("config", metavar="CONFIG", help="TOML file with the settings")
        added.add_argument(
            "--dry-run", action="store_true", help="print the settings and the stages, and stop"
        )
        added.set_defaults(function=function)
        return added

    loop = verb("loop", _loop, "Run the whole loop; the same command resumes it.")
    loop.add_argument("--fork", default="", metavar="NAME", help="new run that reuses what fits")
    verb("index", _index, "Encode the corpus with the untouched encoder.")
    search = verb("search", _search, "Show what the latest retriever returns for a query.")
    search.add_argument("query", metavar="QUERY", help="what to search for")
    ask = verb("ask", _ask, "Put one question to the agent and show every turn.")
    ask.add_argument("question", metavar="QUESTION", help="what to answer")
    verb("chat", _chat, "Put questions to the agent, one after the other.")
    for name, function, about in (
        ("rollout", _rollout, "Let the agent answer the training questions."),
        ("label", _label, "Judge passages and continue from them: training examples."),
        ("train", _train, "Train the retriever, its re-ranker or the agent."),
    ):
        added = verb(name, function, about)
        added.add_argument(
            "--iteration", type=int, default=1, metavar="N", help="which iteration, from 1"
        )
        if name == "train":
            added.add_argument(
                "learner", choices=("retriever", "reranker", "agent"), help="which to train"
            )
            added.add_argument(
                "--plan", action="store_true", help="say what memory the agent needs, and stop"
            )
            added.add_argument(
                "--gpus", type=int, default=1, metavar="N", help="GPUs that --plan counts with"
            )
    evaluate = verb("evaluate", _evaluate, "Measure every system and print the table.")
    evaluate.add_argument(
        "--split", choices=("dev", "test"), default="test", help="the loop's questions to measure"
    )
    evaluate.add_argument(
        "--trec", default="", metavar="FOLDER", help="write runs and judgements of a grid there"
    )
    evaluate.add_argument("--fork", default="", metavar="NAME", help="new run reusing what fits")
    serve = verb("serve", _serve, "Answer searches over HTTP and MCP, with a web page.")
    serve.add_argument("--mcp", action="store_true", help="tools over standard input and output")
    serve.add_argument("--host", default=None, help="address to listen at (serve.host)")
    serve.add_argument("--port", type=int, default=None, help="port, 0 for a free one (serve.port)")
    about = "Show what a run has done and what it owes."
    status = verbs.add_parser("status", help=about, description=about)
    status.add_argument("run", metavar="RUN", help="run folder, as runs/quickstart")
    status.set_defaults(function=_status)
    about = "Print tables of finished runs; compare rows; one page over several runs."
    _report_options(verbs.add_parser("report", help=about, description=about))
    return parser


def _report_options(report: argparse.ArgumentParser) -> None:
    report.add_argument("run", metavar="RUN", nargs="+", help="run folder, as runs/quickstart")
    report.add_argument(
        "--compare", nargs=2, metavar="ROW", help="test the first row against the second"
    )
    report.add_argument("--metric", default="em", help="what to compare by")
    report.add_argument("--over", default="", metavar="ROW", help="row to compare all others with")
    report.add_argument(
        "--page", default="", metavar="FILE", help="where the page over the runs goes"
    )
    report.set_defaults(function=_report)


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _show(rows: Sequence[Row]) -> None:
    """Print the table, and what it cannot say by itself."""
    from agentic_r.evaluation.report import notes, table

    print("\n".join(["", table(rows), *notes(rows)]))


def _dry_run(options: argparse.Namespace, config: Config) -> None:
    """Print the settings as TOML, and the stages of the loop or the grid as comments below."""
    from agentic_r.evaluation.plan import wanted

    print(to_toml(config), end="")
    if options.verb == "evaluate" and wanted(config):
        _describe_grid(config)
        return
    from agentic_r.loop import stage_names

    print("\n# The stages of the loop, in order:")
    print("\n".join(f"#   {name}" for name in stage_names(config)))


def _run(options: argparse.Namespace, config: Config, until: str = "") -> Outcome:
    from agentic_r.loop import open_run, run_loop

    with open_run(config, getattr(options, "fork", "")) as run:
        return run_loop(run, config, _say, until)


def _loop(options: argparse.Namespace, config: Config) -> None:
    from agentic_r.evaluation.report import write_report
    from agentic_r.loop import open_run, run_loop
    from agentic_r.summary import headline, summarise_run

    with open_run(config, options.fork) as run:
        outcome = run_loop(run, config, _say)
        report = summarise_run(outcome)
        _, page = write_report(run.folder, report)
    _show(report.rows)
    print(f"\n{headline(report)}\n\nReport: {page}")


def _index(options: argparse.Namespace, config: Config) -> None:
    outcome = _run(options, config, "base/index")
    print(f"{len(outcome.loop.data.corpus):,} passages in {outcome.loop.run.folder}/base/index")


def _latest(config: Config, *, agent: bool = False) -> tuple[Loop, Retrieval, str]:
    """Open the newest retriever of a run: that of its last finished iteration, else the base."""
    from agentic_r.loop import latest_retrieval, open_run

    with open_run(config) as run:
        return latest_retrieval(run, config, agent=agent)


def _search(options: argparse.Namespace, config: Config) -> None:
    loop, retrieval, name = _latest(config)
    print(f"{name} retriever")
    hits = retrieval.retriever.search([options.query], loop.config.retriever.k)[0]
    for rank, hit in enumerate(hits, 1):
        print(f"{rank}. {hit.score:.3f}  {hit.passage.id}  {hit.passage.title}")
        print(f"   {hit.passage.text}")


def _ask(options: argparse.Namespace, config: Config) -> None:
    agent = _agent(config)
    trajectory = _answer(agent, options.question)
    if trajectory.stop == "error":
        raise LLMError(trajectory.error)


def _chat(options: argparse.Namespace, config: Config) -> None:
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
    loop, retrieval, name = _latest(config, agent=True)
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


def _rollout(options: argparse.Namespace, config: Config) -> None:
    _reach(options, config, "rollouts")


def _label(options: argparse.Namespace, config: Config) -> None:
    _reach(options, config, "labels")


def _train(options: argparse.Namespace, config: Config) -> None:
    if options.plan:
        from agentic_r.agent.memory import plan

        print(plan(config, options.gpus))
        return
    if options.learner == "agent" and not config.agent.train.wanted:
        raise ConfigError("agent.train.epochs is 0, expected at least 1 to train the agent")
    if options.learner == "reranker" and not config.retriever.rerank.epochs:
        raise ConfigError(
            "retriever.rerank.epochs is 0, expected at least 1 to train the re-ranker"
        )
    _reach(options, config, options.learner)
    if options.learner != "agent":
        from agentic_r.learning import told
        from agentic_r.loop import run_folder

        stage = run_folder(config) / f"iteration-{options.iteration}" / options.learner
        print(told(stage, config.retriever.train.dev_k))


def _reach(options: argparse.Namespace, config: Config, step: str) -> None:
    """Run the loop up to a step of an iteration and say where it lies."""
    if not 1 <= options.iteration <= config.loop.iterations:
        raise ConfigError(
            f"--iteration: got {options.iteration}, expected 1 to {config.loop.iterations} "
            "(loop.iterations)"
        )
    stage = f"iteration-{options.iteration}/{step}"
    outcome = _run(options, config, stage)
    print(f"done: {outcome.loop.run.folder / stage}")


def _evaluate(options: argparse.Namespace, config: Config) -> None:
    from agentic_r.evaluation.plan import wanted

    if wanted(config):
        _evaluate_grid(options, config)
        return
    if options.trec:
        raise ConfigError("--trec needs a grid: set evaluation.datasets (see docs/evaluate.md)")
    from agentic_r.loop import measure_dev, open_run, run_loop

    with open_run(config, options.fork) as run:
        if options.split == "test":
            rows = run_loop(run, config, _say).rows
        else:
            last = f"iteration-{config.loop.iterations}/index"
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
def _serve(options: argparse.Namespace, config: Config) -> None:
    import agentic_r

    given = {"host": options.host, "port": options.port}
    settings = {key: value for key, value in given.items() if value is not None}
    limits = msgspec.structs.replace(config.serve, **settings)
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
    from agentic_r.served import open_served

    opener = partial(open_served, config)
    if options.mcp:
        wait(over_stdio(opener, limits, agentic_r.__version__))
    else:
        serve(opener, limits, agentic_r.__version__, lambda text: print(text, flush=True))


def _status(options: argparse.Namespace) -> None:
    from agentic_r.stage import status

    for name, state, counts in status(options.run):
        numbers = ", ".join(f"{value} {key}" for key, value in counts.items())
        print(f"{state:<11} {name:<50} {numbers}")


def _report(options: argparse.Namespace) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
