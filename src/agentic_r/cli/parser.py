"""Every verb and option that can be typed; `--help` and docs/cli.md show them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

import agentic_r.cli.measuring as measuring
import agentic_r.cli.running as running
import agentic_r.cli.searching as searching
from agentic_r.config import Config
from agentic_r.converting import add_conversions
from agentic_r.converting.examples import FORMATS

LEARNERS = ("retriever", "reranker", "agent", "tiny-agent")

Verb = Callable[[argparse.Namespace, Config], None]

EPILOG = """Any setting can be given on the command line by its dotted name, for instance
--retriever.train.epochs 1 or --seed 7. Settings are listed in docs/config.md."""


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

    loop = verb("loop", running.loop, "Run the whole loop; the same command resumes it.")
    loop.add_argument("--fork", default="", metavar="NAME", help="new run that reuses what fits")
    index = verb("index", searching.index, "Encode the corpus with the untouched encoder.")
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
    search = verb("search", searching.search, "Show what the latest retriever returns for a query.")
    search.add_argument("query", metavar="QUERY", help="what to search for")
    ask = verb("ask", searching.ask, "Put one question to the agent and show every turn.")
    ask.add_argument("question", metavar="QUESTION", help="what to answer")
    verb("chat", searching.chat, "Put questions to the agent, one after the other.")
    for name, function, about in (
        ("rollout", running.rollout, "Let the agent answer the training questions."),
        ("label", running.label, "Judge passages and continue from them: training examples."),
        ("train", running.train, "Train the retriever, its re-ranker or the agent."),
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
    evaluate = verb("evaluate", measuring.evaluate, "Measure every system and print the table.")
    _evaluate_options(evaluate)
    serve = verb("serve", searching.serve, "Answer searches over HTTP and MCP, with a web page.")
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
    status.set_defaults(function=measuring.status)
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
    report.set_defaults(function=measuring.report)
