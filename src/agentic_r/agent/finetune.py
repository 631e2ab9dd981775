"""The loop's `agent` stage: an agent learns from its own correct trajectories.

Rejection sampling fine-tuning: what ended in a right answer is imitated, token by token, with
the trainer that made the packaged checkpoint. The new model goes to a folder of its own.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from agentic_r.agent.agent import TINY, tiny_checkpoint
from agentic_r.agent.saved import Saved
from agentic_r.agent.trainer import Encoded, Progress, Trainer, encode
from agentic_r.config import AgentConfig
from agentic_r.errors import ConfigError, DataError
from agentic_r.protocols import Dialect
from agentic_r.training.trackers import open_tracker
from agentic_r.types import Trajectory


def finetune(
    config: AgentConfig,
    trajectories: Sequence[Trajectory],
    *,
    seed: int,
    folder: Path,
    dialect: Dialect,
    name: str = "agent",
    on_step: Callable[[Progress], None] | None = None,
) -> tuple[int, int]:
    """Train the model that `config` names on trajectories and save it in `folder`.

    Returns (optimiser steps, trajectories left out because they are longer than the model
    reads). A killed training goes on after its last finished epoch; its curve is shown by the
    tracker that the config names, as run `name`. Raises ConfigError for an
    agent behind a URL, which cannot be trained from here, and DataError for no trajectories.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if config.model.startswith(("http://", "https://", "vllm:")) or config.model == "oracle-reader":
        raise ConfigError(
            f"agent.train.epochs is {config.train.epochs}, but {config.model} cannot be trained "
            "from here; set it to 0, or set agent.model to a folder or hub name"
        )
    source = str(tiny_checkpoint()) if config.model == TINY else config.model
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    limit = min(int(model.config.max_position_embeddings), 1 << 20)
    encoded = encode(trajectories, tokenizer, dialect, limit)
    examples = [example for example in encoded if example is not None]
    if not examples:
        raise DataError(
            f"none of {len(trajectories)} correct trajectories can be trained on; "
            "set agent.train.epochs = 0, or train on more questions"
        )
    saved = Saved(folder.parent, keep=1)
    tracker = open_tracker(
        config.train.tracker, name, folder.parent, {"learning_rate": config.train.learning_rate}
    )

    def hear(progress: Progress) -> None:
        tracker.log(progress.step, {"loss": progress.loss, "accuracy": progress.accuracy})
        if on_step is not None:
            on_step(progress)

    trainer = _trained(model, examples, config, seed, saved, hear)
    tracker.close()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prompt = Path(source) / "prompt.txt"
    if prompt.is_file():
        shutil.copyfile(prompt, folder / "prompt.txt")
    saved.discard()
    return trainer.step, len(encoded) - len(examples)


def _trained(
    model: Any,
    examples: Sequence[Encoded],
    config: AgentConfig,
    seed: int,
    saved: Saved,
    on_step: Callable[[Progress], None],
) -> Trainer:
    settings = config.train
    per_epoch = math.ceil(len(examples) / settings.batch)
    steps = per_epoch * settings.epochs
    trainer = Trainer(
        model, learning_rate=settings.learning_rate, steps=steps, warmup=max(1, steps // 10)
    )
    if (state := saved.last()) is not None:
        trainer.restore(state)
    with tqdm(total=steps, initial=trainer.step, desc="training the agent", unit=" step") as bar:
        for epoch in range(trainer.step // per_epoch, settings.epochs):
            order = list(examples)
            random.Random(f"{seed}:agent:{epoch}").shuffle(order)
            for start in range(0, len(order), settings.batch):
                on_step(trainer.update(order[start : start + settings.batch]))
                bar.update()
            saved.save(trainer.state(), trainer.step)
    return trainer
