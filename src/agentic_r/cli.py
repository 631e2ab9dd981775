"""The command line: verbs, one function each. Heavy modules are imported inside the verbs."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from agentic_r.config import Config, load_config, to_toml
from agentic_r.errors import AgenticRError, ConfigError, LLMError

if TYPE_CHECKING:
    from agentic_r.evaluation.benchmark import Row
    from agentic_r.loop import Outcome
    from agentic_r.steps import Loop, Retrieval

Verb = Callable[[argparse.Namespace, Config], None]

EPILOG = """Any setting can be given on the command line by its dotted name, for instance
--retriever.train.epochs 1 or --seed 7. Settings are listed in docs/config.md."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 an error in one line, 2 wrong usage."""
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
                _dry_run(config)
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
    for name, function, about in (
        ("rollout", _rollout, "Let the agent answer the training questions."),
        ("label", _label, "Judge passages and continue from them: training examples."),
        ("train", _train, "Train the retriever or the agent."),
    ):
        added = verb(name, function, about)
        added.add_argument(
            "--iteration", type=int, default=1, metavar="N", help="which iteration, from 1"
        )
        if name == "train":
            added.add_argument("learner", choices=("retriever", "agent"), help="which to train")
    evaluate = verb("evaluate", _evaluate, "Measure every system and print the table.")
    evaluate.add_argument(
        "--split", choices=("dev", "test"), default="test", help="questions to measure on"
    )
    for name, run_verb, about in (
        ("status", _status, "Show what a run has done and what it owes."),
        ("report", _report, "Print the table and the gain of finished runs."),
    ):
        added = verbs.add_parser(name, help=about, description=about)
        many = "+" if name == "report" else None
        added.add_argument("run", metavar="RUN", nargs=many, help="run folder, as runs/quickstart")
        added.set_defaults(function=run_verb)
    return parser


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _show(rows: Sequence[Row]) -> None:
    """Print the table, and what it cannot say by itself."""
    from agentic_r.evaluation.report import notes, table

    print("\n".join(["", table(rows), *notes(rows)]))


def _dry_run(config: Config) -> None:
    """Print the settings as TOML, and the stages of the loop as comments below."""
    from agentic_r.loop import stage_names

    print(to_toml(config), end="")
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


def _latest(config: Config) -> tuple[Loop, Retrieval, str]:
    """Open the newest retriever of a run: that of its last finished iteration, else the base."""
    from agentic_r.loop import latest_retrieval, open_run

    with open_run(config) as run:
        return latest_retrieval(run, config)


def _search(options: argparse.Namespace, config: Config) -> None:
    loop, retrieval, name = _latest(config)
    print(f"{name} retriever")
    hits = retrieval.retriever.search([options.query], loop.config.retriever.k)[0]
    for rank, hit in enumerate(hits, 1):
        print(f"{rank}. {hit.score:.3f}  {hit.passage.id}  {hit.passage.title}")
        print(f"   {hit.passage.text}")


def _ask(options: argparse.Namespace, config: Config) -> None:
    from agentic_r.types import Question

    loop, retrieval, name = _latest(config)
    agent = loop.agent(retrieval.retriever)
    trajectory = agent.run([Question("ask", options.question, ())])[0]
    print(f"{name} retriever, k={agent.k}\n")
    for turn in trajectory.turns:
        print(turn.text.strip())
        print((turn.observation or "").strip())
        print()
    if trajectory.stop == "error":
        raise LLMError(trajectory.error)
    print(f"Answer: {trajectory.answer or '(none: ' + (trajectory.stop or '') + ')'}")


def _rollout(options: argparse.Namespace, config: Config) -> None:
    _reach(options, config, "rollouts")


def _label(options: argparse.Namespace, config: Config) -> None:
    _reach(options, config, "labels")


def _train(options: argparse.Namespace, config: Config) -> None:
    if options.learner == "agent" and not config.agent.train.epochs:
        raise ConfigError("agent.train.epochs is 0, expected at least 1 to train the agent")
    _reach(options, config, options.learner)


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
    from agentic_r.loop import measure_dev, open_run, run_loop

    with open_run(config) as run:
        if options.split == "test":
            rows = run_loop(run, config, _say).rows
        else:
            last = f"iteration-{config.loop.iterations}/index"
            rows = measure_dev(run_loop(run, config, _say, last))
    _show(rows)


def _status(options: argparse.Namespace) -> None:
    from agentic_r.stage import status

    for name, state, counts in status(options.run):
        numbers = ", ".join(f"{value} {key}" for key, value in counts.items())
        print(f"{state:<11} {name:<50} {numbers}")


def _report(options: argparse.Namespace) -> None:
    from pathlib import Path

    from agentic_r.evaluation.report import read_report
    from agentic_r.summary import headline

    for folder in options.run:
        report = read_report(Path(folder) / "report.json")
        print(folder)
        _show(report.rows)
        print(f"\n{headline(report)}\n")


if __name__ == "__main__":
    sys.exit(main())
