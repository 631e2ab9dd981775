"""The command line: what can be typed, and how an error is told; `verbs.py` does the work."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from agentic_r import verbs
from agentic_r.config import Config, config_fields, load_config
from agentic_r.converting import add_conversions
from agentic_r.converting.examples import FORMATS
from agentic_r.errors import AgenticRError, ConfigError

LEARNERS = ("retriever", "reranker", "agent", "tiny-agent")

WITHOUT_CONFIG = ("status", "report", "convert")

Verb = Callable[[argparse.Namespace, Config], None]

EPILOG = """Any setting can be given on the command line by its dotted name, for instance
--retriever.train.epochs 1 or --seed 7. Settings are listed in docs/config.md."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it before it kills: the same as Ctrl-C, with its own code."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end what runs inside as Ctrl-C does, so that it closes what it has opened.

    Both are raised wherever the program is, and Python drops what is raised in a finaliser: that
    is sent anew. `serve` has handlers of its own. Outside the main thread, where none can be set,
    nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: Any) -> NoReturn:
        raise Terminated

    told, anew = sys.unraisablehook, list[threading.Thread]()
    hooked = over = False

    def send(number: signal.Signals) -> None:
        while hooked and not over:  # what is raised in the hook is dropped too
            time.sleep(0.001)
        if not over:
            os.kill(os.getpid(), number)

    def dropped(lost: sys.UnraisableHookArgs) -> None:
        nonlocal hooked
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            told(lost)
            return
        number = signal.SIGTERM if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        hooked = True
        try:
            sender = threading.Thread(target=send, args=(number,), daemon=True)
            sender.start()
            anew.append(sender)
        finally:
            hooked = False

    before = signal.signal(signal.SIGTERM, end)
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = told
        over = True
        # One may have sent its signal a moment ago: it must not come in after the end.
        for each in anew:
            with suppress(KeyboardInterrupt):
                each.join()
        with suppress(KeyboardInterrupt):
            time.sleep(0.001)
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 an error in one line, 2 wrong usage.

    130 and 143: stopped by Ctrl-C or SIGTERM.
    Under `torchrun` the first process runs the verb and the others train with it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from agentic_r.training.jobs import dismiss, work

        if int(os.environ.get("RANK", "0")) > 0:
            return work()
        code = _verb(arguments)
        if not code:  # after an error, torchrun ends the others
            dismiss()
        return code
    return _verb(arguments)


def _verb(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        pairs, others = settings_apart(given)
        options, rest = parser.parse_known_args(others)
        with terminable():
            _done(parser, options, pairs, rest)
    except AgenticRError as error:
        print(f"agentic-r: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print("\nagentic-r: stopped; the same command goes on from here", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        print(f"agentic-r: {error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _done(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    pairs: list[tuple[str, str]],
    rest: list[str],
) -> None:
    """Do what was asked for."""
    if options.verb in WITHOUT_CONFIG:
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.function(options)
        return
    _refuse_stray(options)
    config = load_config(options.config, [*pairs, *overrides(rest)])
    if options.dry_run:
        verbs.dry_run(options, config)
    else:
        options.function(options, config)


def _refuse_stray(options: argparse.Namespace) -> None:
    """Refuse options that nothing would read. Raises ConfigError."""
    found = {name: value for name, value in vars(options).items() if value not in (None, False, "")}
    for names, other, needed in (
        (("shuffle", "sample"), "compare_judges", "--compare-judges A B"),
        (("form", "row_numbers"), "examples", "--examples FILE"),
    ):
        for name in names:
            if name in found and other not in found:
                raise ConfigError(f"--{name.replace('_', '-')} goes with {needed}")
    if options.verb == "train" and "fork" in found:
        for name, stray in (
            ("--plan", options.plan),
            ("--engine verl", options.engine == "verl"),
            ("tiny-agent", options.learner == "tiny-agent"),
        ):
            if stray:
                raise ConfigError(f"--fork: {name} reuses nothing of a run; leave --fork out")


def settings_apart(arguments: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Take the settings, each with its value, out of what was typed, wherever they stand.

    argparse knows no settings and would take the value of one for a word that it waits for.
    Raises ConfigError for a setting without a value.
    """
    if not arguments or arguments[0] in WITHOUT_CONFIG:
        return [], list(arguments)
    plain = {field.key for field in config_fields() if "." not in field.key}
    pairs: list[tuple[str, str]] = []
    others: list[str] = []
    items = iter(arguments)
    for item in items:
        if item == "--":
            return pairs, [*others, item, *items]
        key, equals, value = item.removeprefix("--").partition("=")
        if not item.startswith("--") or not ("." in key or key in plain):
            others.append(item)
            continue
        if not equals:
            value = next(items, "--")
            if value.startswith("--"):
                raise ConfigError(f"--{key} has no value; write --{key} VALUE")
        pairs.append((key, value))
    return pairs, others


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
    parsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, function: Verb, about: str) -> argparse.ArgumentParser:
        added = parsers.add_parser(name, help=about, description=about, epilog=EPILOG)
        added.add_argument("config", metavar="CONFIG", help="TOML file with the settings")
        added.add_argument(
            "--dry-run", action="store_true", help="print the settings and the stages, and stop"
        )
        added.set_defaults(function=function)
        return added

    loop = verb("loop", verbs.loop, "Run the whole loop; the same command resumes it.")
    loop.add_argument("--fork", default="", metavar="NAME", help="new run that reuses what fits")
    index = verb("index", verbs.index, "Encode the corpus with the untouched encoder.")
    index.add_argument(
        "--verify", action="store_true", help="read all of the run's indexes and models and compare"
    )
    index.add_argument(
        "--scale", choices=("local", "ray"), help="retriever.index.scale: on a Ray cluster"
    )
    index.add_argument(
        "--publish", action="store_true", help="publish the newest index in retriever.store"
    )
    index.add_argument(
        "--roll-back", action="store_true", help="go back to what was published before"
    )
    search = verb("search", verbs.search, "Show what the latest retriever returns for a query.")
    search.add_argument("query", metavar="QUERY", help="what to search for")
    ask = verb("ask", verbs.ask, "Put one question to the agent and show every turn.")
    ask.add_argument("question", metavar="QUESTION", help="what to answer")
    verb("chat", verbs.chat, "Put questions to the agent, one after the other.")
    for name, function, about in (
        ("rollout", verbs.rollout, "Let the agent answer the training questions."),
        ("label", verbs.label, "Judge passages and continue from them: training examples."),
        ("train", verbs.train, "Train the retriever, its re-ranker or the agent."),
    ):
        added = verb(name, function, about)
        added.add_argument(
            "--iteration", type=int, default=1, metavar="N", help="which iteration, from 1"
        )
        added.add_argument(
            "--fork", default="", metavar="NAME", help="new run that reuses what fits"
        )
        if name == "label":
            _label_options(added)
        if name == "train":
            _train_options(added)
    evaluate = verb("evaluate", verbs.evaluate, "Measure every system and print the table.")
    _evaluate_options(evaluate)
    serve = verb("serve", verbs.serve, "Answer searches over HTTP and MCP, with a web page.")
    _serve_options(serve)
    _without_config(parsers)
    return parser


def _serve_options(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--mcp", action="store_true", help="tools over standard input and output")
    serve.add_argument("--host", default=None, help="address to listen at (serve.host)")
    serve.add_argument("--port", type=int, default=None, help="port, 0 for a free one (serve.port)")
    serve.add_argument(
        "--shards",
        type=_addresses,
        default=None,
        metavar="URL,URL",
        help="search these servers, each with a part of the corpus, as one (serve.shards)",
    )


def _without_config(parsers: argparse._SubParsersAction[_Parser]) -> None:
    """Describe the verbs that look at runs and files alone."""
    about = "Show what a run has done and what it owes."
    status = parsers.add_parser("status", help=about, description=about)
    status.add_argument("run", metavar="RUN", help="run folder, as runs/quickstart")
    status.set_defaults(function=verbs.status)
    about = "Print tables of finished runs; compare rows; one page over several runs."
    _report_options(parsers.add_parser("report", help=about, description=about))
    about = "Turn other systems' files into ours, and ours into theirs."
    add_conversions(parsers.add_parser("convert", help=about, description=about))


def _label_options(label: argparse.ArgumentParser) -> None:
    label.add_argument(
        "--compare-judges",
        nargs=2,
        default=None,
        metavar="JUDGE",
        help="do not label this iteration (those before it are labelled and trained); say how far "
        "two judges agree: a utility.judge, KIND=MODEL or URL=MODEL",
    )
    label.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="searches that judges are compared on (default: 100)",
    )
    label.add_argument(
        "--shuffle", action="store_true", help="show the second judge another order of passages"
    )


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(url.strip() for url in text.split(",") if url.strip())


def _train_options(train: argparse.ArgumentParser) -> None:
    train.add_argument(
        "learner", choices=LEARNERS, metavar="|".join(LEARNERS), help="which to train"
    )
    train.add_argument(
        "--plan", action="store_true", help="say what memory the agent needs, and stop"
    )
    train.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="GPUs that --plan counts with"
    )
    train.add_argument(
        "--examples", default="", metavar="FILE", help="train the retriever on this file alone"
    )
    train.add_argument(
        "--form", choices=FORMATS, help="format of --examples (default: ours); docs/labelling.md"
    )
    train.add_argument(
        "--row-numbers", action="store_true", help="--examples names passages by row in the corpus"
    )
    train.add_argument(
        "--engine",
        choices=("own", "verl"),
        default="own",
        help="what trains the agent by reward: this program, or verl on a cluster",
    )


def _evaluate_options(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument(
        "--split", choices=("dev", "test"), default="test", help="the loop's questions to measure"
    )
    evaluate.add_argument(
        "--trec", default="", metavar="FOLDER", help="write runs and judgements of a grid there"
    )
    evaluate.add_argument("--fork", default="", metavar="NAME", help="new run reusing what fits")


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
    report.set_defaults(function=verbs.report)


if __name__ == "__main__":
    sys.exit(main())
