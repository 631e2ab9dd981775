"""Makes the tiny agent that ships with the package: `python -m agentic_r.agent.tiny --out DIR`.

A Granite model of a million parameters with a tokenizer of its own learns the Search-R1 protocol
(or another, with `--dialect`, for a second agent that a retriever was not trained with)
from worked examples (`world/teacher.py`) on an endless stream of worlds whose name words are
disjoint from those of every world that is reported on. The curriculum moves on when the model
gets whole trajectories right, not when a clock says so.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from agentic_r.agent.circuits import induce
from agentic_r.agent.dialects.r1_searcher import R1Searcher
from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.agent.dialects.text import TextDialect
from agentic_r.agent.trainer import (
    Encoded,
    Trainer,
    batches,
    encode,
    rendered,
    right_throughout,
)
from agentic_r.errors import ConfigError
from agentic_r.world import AGENT, Sizes, generate
from agentic_r.world.names import FIRST, SECOND, words
from agentic_r.world.teacher import Lesson, Teacher

PROMPT = "Question: {question}\n"
TAGS = (
    *("<think>", "</think>", "<search>", "</search>"),
    *("<information>", "</information>", "<answer>", "</answer>"),
)


@dataclass(frozen=True)
class Taught:
    """A protocol that can be taught: its dialect, what queries stand between, its tags.

    Every tag is a single token.
    """

    dialect: type[TextDialect]
    marks: tuple[str, str]
    tags: tuple[str, ...]


SEARCH_R1 = Taught(SearchR1, ("<search>", "</search>"), TAGS)
R1_SEARCHER = Taught(
    R1Searcher,
    R1Searcher.query,
    (*TAGS[:2], *R1Searcher.query, *R1Searcher.evidence, *TAGS[-2:]),
)
TAUGHT = {SearchR1.name: SEARCH_R1, R1Searcher.name: R1_SEARCHER}
STATE = "state.pt"
"""What a killed training goes on from."""

PAD, END = "<|pad|>", "<|end|>"
MAX_LENGTH = 1536

Levels = Sequence[tuple[Lesson, float]]

LEVELS: Levels = (
    (Lesson(ks=(1,), gold=0.9, hops=1, confusing=0.7), 0.75),
    (Lesson(ks=(1, 1, 2), gold=0.9, hops=2), 0.75),
    (Lesson(ks=(1, 2, 3), gold=0.85, hops=3), 0.35),
    (Lesson(ks=(1, 2, 3, 3), gold=0.8, hops=3), 2.0),
)
"""Lessons in order, each with the share of right trajectories at which the next begins."""


def worlds(first_seed: int, taught: Taught = SEARCH_R1) -> Iterator[Teacher]:
    """Yield teachers of ever new worlds with names of the agent's pool."""
    sizes = Sizes(train_questions=200, dev_questions=0, test_questions=700)
    seed = first_seed
    while True:
        yield Teacher(generate(seed, sizes, AGENT), taught.marks)
        seed += 1


def lessons(teacher: Teacher, lesson: Lesson, rng: random.Random) -> list[Any]:
    """Return one worked example for every question of a world that is not too long."""
    questions = [
        question
        for part in teacher.world.questions.values()
        for question in part
        if question.metadata["hop_count"] <= lesson.hops
    ]
    rng.shuffle(questions)
    return [teacher.trajectory(question, lesson, rng) for question in questions]


def build_tokenizer(seed: int = 10_000_000, taught: Taught = SEARCH_R1) -> Any:
    """Build the tokenizer: whole words, the syllables of names, bytes for everything else.

    A unigram model with equal scores takes the fewest pieces, so that every name word, also one
    never met, is its two syllables, and a word of the world's English is one token. Protocol
    tags are single tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    first = [f"{space}{syllable}" for space in ("Ġ", "") for syllable in FIRST]
    years = ["Ġ18", "Ġ19", *(f"{year:02d}" for year in range(100))]
    marks = ["ĊĊ", *(f"Ġ{number}" for number in range(1, 10))]
    pieces = dict.fromkeys([*first, *SECOND, *years, *marks, *_english(split, seed, taught)])
    words_ = [piece for piece in pieces if piece not in alphabet]
    vocabulary = [(PAD, 0.0), (END, 0.0)]
    vocabulary += [(byte, -8.0) for byte in alphabet] + [(word, -4.0) for word in words_]
    tokenizer = Tokenizer(models.Unigram(vocabulary))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in taught.tags])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, model_max_length=MAX_LENGTH
    )


def _english(split: Any, seed: int, taught: Taught) -> list[str]:
    """Return every word and mark of rendered worked examples that is part of no name."""
    dialect, rng = taught.dialect(PROMPT), random.Random(seed)
    names, found = set(words(AGENT)), set()
    teachers = worlds(seed, taught)
    for _ in range(8):
        for trajectory in lessons(next(teachers), LEVELS[-1][0], rng):
            text = rendered(dialect.prompt(trajectory))
            for tag in taught.tags:
                text = text.replace(tag, " ")
            found |= {piece for piece, _ in split.pre_tokenize_str(text)}
    plain = {piece for piece in found if not any(c.isdigit() for c in piece)}
    return sorted(piece for piece in plain if piece.removeprefix("Ġ") not in names)


def build_model(vocabulary: int, seed: int, width: int = 128, layers: int = 4) -> Any:
    """Return a fresh Granite model with hand-set copying circuits.

    Granite is the Llama architecture with biases in attention, which the circuits need. Qwen2
    has them too, but its name forces Qwen2's own tokenizer on every folder that carries it.
    """
    from transformers import GraniteConfig, GraniteForCausalLM

    torch.manual_seed(seed)
    config = GraniteConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        attention_bias=True,
        attention_multiplier=32**-0.5,
        rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
        initializer_range=0.06,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        attn_implementation="eager",
    )
    model = GraniteForCausalLM(config)
    induce(model, seed)
    return model


def stream(
    tokenizer: Any,
    level: list[int],
    seed: int,
    batch_tokens: int,
    levels: Levels = LEVELS,
    taught: Taught = SEARCH_R1,
) -> Iterator[list[Encoded]]:
    """Yield batches for ever; `level` holds the index of the current lesson and may change."""
    dialect, rng = taught.dialect(PROMPT), random.Random(seed)
    for teacher in worlds(seed, taught):
        pending = lessons(teacher, levels[level[0]][0], rng)
        encoded = encode(pending, tokenizer, dialect, MAX_LENGTH)
        yield from batches([e for e in encoded if e is not None], batch_tokens, rng)


def examination(
    tokenizer: Any,
    level: int,
    seed: int,
    count: int = 192,
    levels: Levels = LEVELS,
    taught: Taught = SEARCH_R1,
) -> list[Encoded]:
    """Return encoded worked examples of worlds that training never draws."""
    rng = random.Random(f"examination:{seed}")
    examples = lessons(next(worlds(seed, taught)), levels[level][0], rng)[:count]
    encoded = encode(examples, tokenizer, taught.dialect(PROMPT), MAX_LENGTH)
    return [e for e in encoded if e is not None]


def save(model: Any, tokenizer: Any, folder: Path, facts: dict[str, Any]) -> None:
    """Write the checkpoint: weights in bfloat16, tokenizer, prompt and how it was made."""
    folder.mkdir(parents=True, exist_ok=True)
    tied = "lm_head.weight"  # the embedding once more
    state = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items() if k != tied}
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)
    (folder / "prompt.txt").write_text(PROMPT, encoding="utf-8")
    (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def train(options: argparse.Namespace, levels: Levels = LEVELS) -> None:
    """Train until the step count is reached, saving at every examination; resumes if killed."""
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    taught = TAUGHT[options.dialect]
    tokenizer = build_tokenizer(taught=taught)
    model = build_model(len(tokenizer), options.seed, options.width, options.layers)
    trainer = Trainer(
        model,
        learning_rate=options.learning_rate,
        steps=options.steps,
        bf16=options.bf16,
        decay_from=options.decay_from,
    )
    level = [_resumed(options, trainer)]
    first = options.seed + 1000 * (1 + trainer.step)
    source = stream(tokenizer, level, first, options.batch_tokens, levels, taught)
    recent: deque[tuple[float, float]] = deque(maxlen=50)
    began, tokens, right = time.monotonic(), 0, 0.0
    bar = tqdm(total=options.steps, initial=trainer.step, unit="step", desc="teaching the agent")
    with bar, (out / "log.jsonl").open("a", encoding="utf-8") as log:
        while trainer.step < options.steps:
            batch = next(source)
            progress = trainer.update(batch)
            tokens += sum(len(example.ids) for example in batch)
            recent.append((progress.loss, progress.accuracy))
            bar.update()
            bar.set_postfix(lesson=level[0] + 1, loss=f"{progress.loss:.3f}", right=f"{right:.2f}")
            if trainer.step % options.examine and trainer.step < options.steps:
                continue
            exam = examination(tokenizer, level[0], 5_000_000, levels=levels, taught=taught)
            right = right_throughout(model, exam)
            entry = {
                "step": trainer.step,
                "level": level[0],
                "loss": round(sum(loss for loss, _ in recent) / len(recent), 4),
                "accuracy": round(sum(accuracy for _, accuracy in recent) / len(recent), 4),
                "right": round(right, 4),
                "tokens": tokens,
                "seconds": round(time.monotonic() - began, 1),
            }
            log.write(json.dumps(entry) + "\n")
            log.flush()
            if right >= levels[level[0]][1]:
                level[0] += 1
            _keep(out / STATE, trainer, level[0])
            kept = {k: v for k, v in vars(options).items() if k not in ("out", "start")}
            save(model, tokenizer, out / "checkpoint", {**kept, **entry})


def _resumed(options: argparse.Namespace, trainer: Trainer) -> int:
    """Take up the training that was stopped, or the weights to start from; returns the lesson."""
    checkpoint = Path(options.out) / STATE
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        trainer.restore(saved["trainer"])
    elif options.start:
        saved = torch.load(options.start, weights_only=True)
        trainer.model.load_state_dict(saved["trainer"]["model"], strict=False)
    else:
        return 0
    return int(saved["level"]) if options.level < 0 else int(options.level)


def _keep(path: Path, trainer: Trainer, level: int) -> None:
    """Write the state that a killed training goes on from."""
    temporary = path.with_suffix(".tmp")
    torch.save({"trainer": trainer.state(), "level": level}, temporary)
    temporary.replace(path)


def made(folder: Path, seed: int, dialect: str) -> Path:
    """Make an agent as the packaged one was made, in `folder`; returns the model's folder.

    Resumed where it was stopped. Raises ConfigError for a dialect that cannot be taught.
    """
    if dialect not in TAUGHT:
        raise ConfigError(
            f"agent.dialect: got {dialect!r}, expected one of {', '.join(TAUGHT)}, which a tiny "
            "agent can be taught"
        )
    train(parsed(["--out", str(folder), "--seed", str(seed), "--dialect", dialect]))
    return folder / "checkpoint"


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a training, by default those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", required=True, help="folder for checkpoint, state and log")
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--batch-tokens", type=int, default=2500)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--decay-from", type=float, default=0.55)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dialect", choices=TAUGHT, default=SearchR1.name)
    parser.add_argument("--examine", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", default="", help="state.pt of an earlier training to start from")
    parser.add_argument("--level", type=int, default=-1, help="lesson to go on with")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=False)
    return parser.parse_args(arguments)


def main() -> None:
    """Parse the command line and train."""
    options = parsed()
    torch.set_num_threads(options.threads)
    train(options)


if __name__ == "__main__":
    main()
