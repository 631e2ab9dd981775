"""Verbs that run the loop or a part of it: loop, rollout, label, train.

Heavy modules are imported inside.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from agentic_r.cli.shown import say, show
from agentic_r.config import Config
from agentic_r.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from agentic_r.loop import Outcome


def loop(options: argparse.Namespace, config: Config) -> None:
    """Run the whole loop, print its table and say where the report is."""
    from agentic_r.evaluation.report import write_report
    from agentic_r.loop import open_run, run_loop
    from agentic_r.summary import headline, summarise_run

    with open_run(config, options.fork) as run:
        outcome = run_loop(run, config, say)
        report = summarise_run(outcome)
        _, page = write_report(run.folder, report)
    show(report.rows)
    print(f"\n{headline(report)}\n\nReport: {page}")


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
    stage = _stage(options, config, "rollouts")
    check_judges(config, names)
    outcome = _run(options, config, stage)
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

        accuracy = "right on top" if options.learner == "reranker" else "in-batch accuracy"
        print(told(stage, config.retriever.train.dev_k, accuracy))


def _on_given(options: argparse.Namespace, config: Config) -> None:
    """Train the retriever on a file of examples instead of the run's own labels."""
    from agentic_r.learning import told
    from agentic_r.loop import open_run
    from agentic_r.taught import train_on

    if options.learner != "retriever":
        raise ConfigError(f"--examples: got {options.learner}, expected retriever")
    given = (options.examples, options.form or "ours")
    with open_run(config, options.fork) as run:
        folder = train_on(run, config, *given, row_numbers=options.row_numbers, say=say)
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


def _run(options: argparse.Namespace, config: Config, until: str = "") -> Outcome:
    from agentic_r.loop import open_run, run_loop

    with open_run(config, options.fork) as run:
        return run_loop(run, config, say, until)
