"""The loop's stage that trains the retriever, resumed from its last checkpoint."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agentic_r.agent.query import save_form
from agentic_r.errors import ConfigError
from agentic_r.io import fingerprint, read_jsonl, write_jsonl
from agentic_r.parts import load_encoder
from agentic_r.retriever.checkpoint import discard_checkpoint
from agentic_r.retriever.development import hold_out
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.objective import UPSTREAM_TEMPERATURE, check_recipe
from agentic_r.retriever.together import train_together
from agentic_r.retriever.trainer import TrainResult
from agentic_r.settings import Config, RetrieverTrainConfig
from agentic_r.steps import Workspace
from agentic_r.training.trackers import check_tracker
from agentic_r.types import Example

CURVE_FILE = "curve.jsonl"
DEV_FILE = "dev.jsonl"


class CurvePoint(msgspec.Struct, frozen=True):
    """One step of training the retriever."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    seconds: float
    accuracy: float = 0.0
    passages: int = 0


class DevPoint(msgspec.Struct, frozen=True):
    """One measurement on dev; step 0 is before training."""

    step: int
    hit: float
    mrr: float


def refuse_choice(settings: RetrieverTrainConfig, why: str) -> None:
    """Refuse to choose the best weights on dev questions; `why` they cannot tell them.

    Raises ConfigError, unless nothing is chosen or it is on examples that are held out.
    """
    if (settings.keep == "best" or settings.patience) and not settings.hold_out:
        raise ConfigError(
            'retriever.train.hold_out: got 0, expected more, such as 0.1, for keep = "best" or '
            f"patience: {why}"
        )


def check_training(config: Config, base: Encoder) -> None:
    """Refuse, before any work, what training would refuse after hours of it.

    Raises ConfigError for settings that do not go together, packages that are missing and
    lengths that the encoder's vectors do not have.
    """
    settings = config.retriever.train
    check_recipe(settings)
    longest = max(settings.matryoshka, default=1)
    if longest > base.dimension:
        raise ConfigError(
            f"retriever.train.matryoshka: got {longest}, expected at most {base.dimension}, the "
            f"length of the vectors of {config.retriever.base!r}"
        )
    check_tracker(settings.tracker, "retriever.train.tracker")
    if settings.lora_rank and importlib.util.find_spec("peft") is None:
        raise ConfigError(
            "retriever.train.lora_rank: peft is not installed; pip install peft, or leave the "
            "setting as it is by default"
        )


def trained(
    place: Workspace,
    name: str,
    examples: Sequence[Example],
    start: Encoder,
    base: Encoder,
    dev: Sequence[Example],
) -> tuple[Encoder, list[CurvePoint]]:
    """Train the encoder on the examples, watched on `dev` or on what is held out.

    `base` encodes the passages where the query side alone is trained.
    """
    settings = place.config.retriever.train
    kept, dev = watched(place.config, examples, dev)
    inputs = {
        "encoder": start.fingerprint,
        "examples": fingerprint(list(examples)),
        "corpus": place.data.corpus.digest,
        "dev": fingerprint(dev) if settings.evaluations else "",
    }
    facts = place.settings("retriever.train") | {"seed": place.config.seed}
    stage = place.run.stage(name, facts, inputs)
    model = stage.folder / "model"
    if not stage.done:
        result = train_together(
            start,
            place.data.corpus,
            kept,
            settings,
            place.config.seed,
            stage.folder,
            dev=dev,
            passage_encoder=base if settings.side == "query" else None,
            name=f"{place.config.name} {name}",
            on_step=lambda _: stage.tick(),
        )
        save_form(model, place.config.retriever.input)  # first: saving names every file there is
        result.encoder.save(model, notes(settings, len(kept), result))
        for file, kind, rows in (
            (CURVE_FILE, CurvePoint, result.curve),
            (DEV_FILE, DevPoint, result.dev),
        ):
            written = [msgspec.convert(row, kind, strict=False) for row in rows]
            write_jsonl(stage.folder / file, written)
        discard_checkpoint(stage.folder)
        counts = {"examples": len(kept), "steps": len(result.curve)}
        stage.finish(counts, precision=result.precision, kept_step=result.step)
    with stage.rows(CURVE_FILE, CurvePoint) as points:
        return load_encoder(place.config, str(model)), points.rows


def watched(
    config: Config, examples: Sequence[Example], dev: Sequence[Example]
) -> tuple[list[Example], list[Example]]:
    """Choose what is learned from and what dev hit@k is measured on.

    With `hold_out`, a share of the examples' questions; else `dev`.
    """
    settings = config.retriever.train
    if settings.hold_out:
        return hold_out(examples, settings.hold_out, config.seed)
    return list(examples), list(dev) if settings.evaluations else []


def notes(settings: RetrieverTrainConfig, examples: int, result: TrainResult) -> list[str]:
    """Say in the lines of a model card how an encoder was trained."""
    loss: str = settings.loss
    temperature = settings.temperature
    if settings.recipe == "upstream":
        used = "cross-entropy" if loss == "info-nce" else "half cross-entropy, half RankNet"
        loss, temperature = f"upstream's recipe, {used}", UPSTREAM_TEMPERATURE
    lines = [
        f"trained on {examples} examples in {len(result.curve)} steps of {settings.batch}",
        f"loss: {loss}, temperature {temperature}, learning rate {settings.learning_rate}",
    ]
    if result.dev:
        kept = next((x for x in result.dev if x["step"] == result.step), result.dev[-1])
        lines.append(
            f"dev hit@{settings.dev_k}: {kept['hit']:.3f}, before training "
            f"{result.dev[0]['hit']:.3f}"
        )
    return lines


def dev_points(folder: Path) -> list[DevPoint]:
    """Return what the training in a stage's folder measured on dev; empty where it did not."""
    path = folder / DEV_FILE
    return read_jsonl(path, DevPoint, allow_empty=True) if path.is_file() else []


def told(folder: Path, k: int, accuracy: str = "in-batch accuracy") -> str:
    """Say in one line how the training in a stage's folder went; `accuracy` is its name there."""
    curve = read_jsonl(folder / CURVE_FILE, CurvePoint)
    dev = dev_points(folder)
    seconds = curve[-1].seconds
    words = [
        f"{len(curve)} steps in {seconds:.0f} s",
        f"loss {curve[0].loss:.3f} -> {curve[-1].loss:.3f}",
        f"{accuracy} {curve[0].accuracy:.2f} -> {curve[-1].accuracy:.2f}",
    ]
    if dev:
        words.append(f"dev hit@{k} {dev[0].hit:.3f} -> {dev[-1].hit:.3f}")
    if seconds:
        words.append(f"{sum(x.passages for x in curve) / seconds:.0f} passages/s")
    return ", ".join(words)
