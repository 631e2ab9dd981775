"""The loop's re-ranker: trained on the labels, weighed on dev queries, put behind a retriever."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from tqdm import tqdm

from agentic_r.finding import compose
from agentic_r.io import fingerprint, read_jsonl, write_jsonl
from agentic_r.learning import CURVE_FILE, CurvePoint
from agentic_r.retriever.blend import Judged, Weighed, best, weigh
from agentic_r.retriever.checkpoint import discard_checkpoint
from agentic_r.steps import Loop, Retrieval
from agentic_r.types import Example

if TYPE_CHECKING:
    from agentic_r.retriever.cross import CrossEncoder

WEIGHTS_FILE = "weights.jsonl"

DEV_QUERIES = 200
"""Dev queries that a re-ranker is weighed on, at most."""

UNMEASURED = 0.5
"""Weight where no dev query names its passage: as much as the retriever's own scores."""


def reranker_trained(
    loop: Loop,
    name: str,
    examples: Sequence[Example],
    retrieval: Retrieval,
    asked: Sequence[Example],
) -> Path:
    """Train a re-ranker on the examples and weigh it behind `retrieval` on what was `asked`.

    Returns its folder.
    """
    from agentic_r.retriever.cross import CrossEncoder
    from agentic_r.retriever.cross_trainer import train_reranker

    settings, retriever = loop.config.retriever.rerank, loop.config.retriever
    base = settings.base or retriever.base
    seed = loop.config.seed
    dev = dev_queries(asked, seed)
    inputs = {
        "examples": fingerprint(list(examples)),
        "corpus": loop.data.corpus.digest,
        "retriever": retrieval.key,
        "dev": fingerprint(dev),
    }
    facts = loop.settings("retriever.rerank") | {"base": base, "seed": seed, "k": retriever.k}
    del facts["weight"]  # how it is used later, and no part of what it is
    stage = loop.run.stage(name, facts, inputs)
    model = stage.folder / "model"
    if not stage.done:
        result = train_reranker(
            CrossEncoder.load(base, settings.max_length, seed=seed),
            loop.data.corpus,
            examples,
            settings,
            seed,
            stage.folder,
            on_step=lambda _: stage.tick(),
        )
        found = weigh(judged(result.reranker, retrieval, dev, settings.depth), retriever.k)
        weight = best(found).weight if found else UNMEASURED
        steps = len(result.curve)
        how = f"{settings.loss}, {len(examples)} lists, {steps} steps of {settings.batch}"
        result.reranker.save(model, [f"trained: {how}"], weight)
        points = [msgspec.convert(row, CurvePoint, strict=False) for row in result.curve]
        write_jsonl(stage.folder / CURVE_FILE, points)
        write_jsonl(stage.folder / WEIGHTS_FILE, found)
        discard_checkpoint(stage.folder)
        counts = {"examples": len(examples), "steps": steps, "dev_queries": len(dev)}
        stage.finish(counts, precision=result.precision, weight=weight)
    return model


def dev_queries(asked: Sequence[Example], seed: int) -> list[Example]:
    """Draw at most DEV_QUERIES of the searches that were made on dev questions, seeded."""
    if len(asked) <= DEV_QUERIES:
        return list(asked)
    return random.Random(f"{seed}:reranker").sample(list(asked), DEV_QUERIES)


def judged(
    reranker: CrossEncoder, retrieval: Retrieval, queries: Sequence[Example], depth: int
) -> list[Judged]:
    """Score what the retriever finds for each query by both, with a progress bar."""
    found = []
    texts = [each.query for each in queries]
    hits = retrieval.retriever.search(texts, depth) if texts else []
    for query, row in tqdm(
        zip(queries, hits, strict=True),
        desc="weighing the re-ranker",
        total=len(texts),
        unit=" query",
        disable=not texts,
    ):
        again = reranker.scores([(query.query, hit.passage.contents) for hit in row])
        good = tuple(hit.passage.id in query.positives for hit in row)
        found.append(Judged(tuple(hit.score for hit in row), tuple(again), good))
    return found


def reranked(loop: Loop, retrieval: Retrieval, model: Path) -> Retrieval:
    """Put a trained re-ranker behind a retriever, as search and serve do."""
    config = loop.config
    rerank = msgspec.structs.replace(config.retriever.rerank, model=str(model))
    settings = msgspec.structs.replace(config.retriever, kind="dense", cache="", rerank=rerank)
    whole = msgspec.structs.replace(config, retriever=settings)
    dense = (retrieval.retriever, retrieval.key)
    return Retrieval(*compose(whole, loop.data.corpus, lambda: dense))


def weighed(folder: Path, k: int) -> str:
    """Say in one line what the re-ranker in a stage's folder adds to its retriever on dev."""
    found = read_jsonl(folder / WEIGHTS_FILE, Weighed, allow_empty=True)
    if not found:
        why = "as no search of a dev question has a passage to find"
        return f"Re-ranker: weight {UNMEASURED} of 1, {why}"
    chosen, alone, whole = best(found), found[0], found[-1]
    words = (
        f"Re-ranker: dev hit@{k} {chosen.hit:.3f} with weight {chosen.weight} of 1; "
        f"{alone.hit:.3f} of the retriever, {whole.hit:.3f} of the re-ranker alone"
    )
    if chosen.weight:
        return words
    return (
        f"{words}. It finds no more, so it is not used: train it longer (retriever.rerank.epochs)"
    )
