"""From a finished loop to its report: the headline, the costs, and a few questions to look at."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Sequence

from agentic_r.config import flat, resolved
from agentic_r.data.questions import hop_asked
from agentic_r.evaluation.benchmark import Row
from agentic_r.evaluation.cases import Case, choose, labelled_searches, side
from agentic_r.evaluation.compare import compare_all, gap_closed, row_to_beat
from agentic_r.evaluation.costs import spent_in
from agentic_r.evaluation.report import (
    Curve,
    DevMeasurement,
    Labelling,
    Point,
    Report,
    Setup,
    StageTime,
    gain,
)
from agentic_r.io import read_jsonl
from agentic_r.learning import CURVE_FILE, CurvePoint, dev_points
from agentic_r.loop import Iteration, Outcome
from agentic_r.manifest import Manifest, read
from agentic_r.parts import gold_known
from agentic_r.steps import Loop, stage_seconds
from agentic_r.types import Question, Search


def summarise_run(outcome: Outcome) -> Report:
    """Put together all that report.html and report.json show."""
    config = outcome.loop.config
    last = next(row for row in reversed(outcome.rows) if row.name.startswith("iteration"))
    beaten = row_to_beat(outcome.rows)
    compared = compare_all(
        outcome.records, beaten.name, samples=config.evaluation.bootstrap, seed=config.seed
    )
    headline = next(c for c in compared if c.name == last.name)
    return Report(
        name=config.name,
        seed=config.seed,
        setup=_setup(outcome),
        rows=outcome.rows,
        gain=gain(headline, last.name, beaten.name),
        comparisons=compared,
        labelling=[_labelling(iteration) for iteration in outcome.iterations],
        drops=[dict(iteration.labels.report) for iteration in outcome.iterations],
        failures=[iteration.labels.failures for iteration in outcome.iterations],
        curves=[_curve(outcome.loop, iteration) for iteration in outcome.iterations],
        rerankers=[_reranker(each) for each in outcome.iterations if each.reranker is not None],
        stages=_stage_times(outcome),
        spent=spent_in(outcome.loop.run.folder),
        cases=_cases(outcome, beaten, last),
        gap_closed=_gap(outcome, beaten, last),
        settings={key: str(value) for key, value in flat(resolved(config)).items()},
        machine=f"{os.cpu_count()} CPU cores ({platform.machine()}), {platform.system()}",
        limits=_limits(outcome),
    )


def headline(report: Report) -> str:
    """Say in two sentences what the run showed."""
    found = report.gain
    lines = [
        f"{found.name}: EM {100 * found.em:+.1f} points over {found.over} "
        f"(95 % interval {100 * found.low:+.1f} to {100 * found.high:+.1f})."
    ]
    if report.gap_closed is not None:
        lines.append(f"{100 * report.gap_closed:.0f} % of the gap to oracle retrieval is closed.")
    done = sum(cost.continuations for cost in report.labelling)
    whole = sum(cost.exhaustive for cost in report.labelling)
    lines.append(f"Labelling ran {done:,} continuations where trying all would take {whole:,}.")
    return "\n".join(lines)


def _setup(outcome: Outcome) -> Setup:
    config, data = outcome.loop.config, outcome.loop.data
    roots = {question.metadata.get("root", question.id) for question in data.test}
    return Setup(
        agent=_model(config.agent.model, config.agent.name),
        retriever=config.retriever.base,
        judge=_model(config.utility.judge, config.utility.judge_name),
        corpus=data.about,
        passages=len(data.corpus),
        train=len(data.train),
        dev=len(data.dev),
        test=len(data.test),
        roots=len(roots),
        k=config.retriever.k,
        input=config.retriever.input,
        candidates=config.utility.candidates,
        threshold=config.utility.relevance,
    )


def _model(model: str, name: str) -> str:
    """Name a model: on a server by its name there, where it has one."""
    return f"{name}, at {model}" if name else model


def _labelling(iteration: Iteration) -> Labelling:
    costs = iteration.labels.costs
    return Labelling(
        searches=costs.searches,
        kept=costs.kept,
        continuations=costs.continuations,
        exhaustive=costs.exhaustive,
        judge_calls=costs.judge_calls,
        subanswer_calls=costs.subanswer_calls,
    )


def _curve(loop: Loop, iteration: Iteration) -> Curve:
    folder = loop.run.folder / f"iteration-{iteration.number}" / "retriever"
    measured, manifest = dev_points(folder), read(folder / "manifest.json", Manifest)
    assert manifest is not None
    return Curve(
        iteration.number,
        manifest.counts["examples"],  # fewer than there were where some are held out
        _points(iteration.curve),
        [DevMeasurement(each.step, each.hit, each.mrr) for each in measured],
        loop.config.retriever.train.dev_k if measured else 0,
        manifest.facts.get("kept_step"),
    )


def _reranker(iteration: Iteration) -> Curve:
    """Read the curve beside the model of an iteration's re-ranker."""
    assert iteration.reranker is not None
    curve = read_jsonl(iteration.reranker.parent / CURVE_FILE, CurvePoint)
    return Curve(iteration.number, iteration.trained_on, _points(curve))


def _points(curve: Sequence[CurvePoint]) -> list[Point]:
    """Turn steps into points; a step that counts no passages was kept without its accuracy."""
    return [
        Point(
            step=each.step,
            loss=each.loss,
            epoch=each.epoch,
            learning_rate=each.learning_rate,
            seconds=each.seconds,
            accuracy=each.accuracy if each.passages else None,
        )
        for each in curve
    ]


MEASURED = {"evaluation": "evaluation", "dev": "measuring on dev questions"}
"""Folders with a stage for every row of a table, and what their time counts as."""


def _stage_times(outcome: Outcome) -> list[StageTime]:
    """Sum stages as a reader thinks of them: one entry a step of an iteration, or a row."""
    totals: dict[tuple[str, int | None], float] = defaultdict(float)
    for name, seconds in stage_seconds(outcome.loop.run.folder).items():
        top, _, step = name.partition("/")
        if top.startswith("iteration-"):
            what = "asking dev questions" if step == "dev" else step
            totals[what, int(top.removeprefix("iteration-"))] += seconds
        elif top in MEASURED:
            totals[MEASURED[top], None] += seconds
        else:
            totals[name.replace("/", " "), None] += seconds
    return [StageTime(stage, round(s, 1), number) for (stage, number), s in totals.items()]


def _gap(outcome: Outcome, beaten: Row, last: Row) -> float | None:
    ceiling = [row for row in outcome.rows if row.name.startswith("oracle")]
    return gap_closed(last, beaten, ceiling[0]) if ceiling else None


def _gold(question: Question, search: Search) -> str | None:
    hop = hop_asked(question, search.query)
    return hop.passage_id if hop else None


def _cases(outcome: Outcome, beaten: Row, last: Row) -> list[Case]:
    """Choose questions: held-out ones before and after, training ones with their labels."""
    seed = outcome.loop.config.seed
    before, after = outcome.trajectories[beaten.name], outcome.trajectories[last.name]
    cases = [
        Case(
            question=old.question.text,
            answers=list(old.question.answers),
            split="test",
            why=why,
            before=side(old, beaten.name, _gold),
            after=side(new, last.name, _gold),
        )
        for old, new, why in choose(before, after, 3, seed)
    ]
    if len(outcome.iterations) < 2:
        return cases
    first, second = outcome.iterations[0], outcome.iterations[1]
    utilities, examples = first.labels.utilities, first.labels.examples
    ids = {utility.trajectory_id for utility in utilities}
    counted = {t.question.key: int(t.id in ids) for t in first.rollouts}
    for old, new, why in choose(first.rollouts, second.rollouts, 2, seed, counted):
        labels = labelled_searches(
            old,
            utilities,
            examples,
            outcome.loop.data.corpus.get,
            outcome.loop.config.utility.relevance,
        )
        cases.append(
            Case(
                question=old.question.text,
                answers=list(old.question.answers),
                split="training",
                why=why,
                before=side(old, "untouched, while its searches were labelled", _gold),
                after=side(new, "iteration 1", _gold),
                labels=labels,
            )
        )
    return cases


def _limits(outcome: Outcome) -> list[str]:
    limits = []
    if outcome.loop.config.data.source == "world":
        limits.append(
            "The world is generated: it shows that the method works where similar does not mean "
            "useful, not how much it brings on real text."
        )
    if not gold_known(outcome.loop.data.test):
        limits.append(
            "The questions have no annotated hops, so nobody knows the right passage of a search: "
            "hit@3 is not measured, and the ceiling of oracle retrieval is not known."
        )
    if outcome.loop.config.agent.model == "oracle-reader":
        limits.append(
            "The agent follows the annotated hops and reads perfectly: the numbers measure "
            "retrieval inside a multi-turn search, not reading."
        )
    if outcome.loop.config.utility.judge == "offline":
        limits.append(
            "Sub-answers come from annotated hops and relevance from a rule, in place of the "
            "large language model of the paper."
        )
    return limits
