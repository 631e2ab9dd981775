"""Verbs that search: index, search, ask, chat, serve; heavy modules are imported inside."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import msgspec

from agentic_r.config import Config
from agentic_r.errors import ConfigError, LLMError, MissingExtraError
from agentic_r.waiting import wait

if TYPE_CHECKING:
    from agentic_r.agent.agent import SearchAgent
    from agentic_r.types import Trajectory


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
