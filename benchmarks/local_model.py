"""What the in-process back end spares: keys and values kept over turns, and shared by siblings.

    python benchmarks/local_model.py [--rows 32] [--rounds 3]

Claims, on the tiny agent with one thread: multi-turn rollouts at least 1.25 times as fast as
reading the whole prompt anew at every turn, and at least 3 times as fast as decoding without a
cache; from prefixes of 130 tokens on, the 20 continuations of each of three searches, which is
about one batch of the back end, at least 2 times as fast as 60 independent prompts. Of a single
search they are 2 times as fast from about 200 tokens on: 20 rows do not pay for reading the
weights at every token, which costs the same with and without sharing. NEW tokens are written.
Turns end of themselves, as with a stop string: what was read of a turn that ran out of tokens is
not kept. Ways take turns in one run; rates are per processor second. Printed too is how far
greedy decoding depends on the batch that it is in.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import cache

import torch

from agentic_r.agent.agent import tiny_checkpoint
from agentic_r.agent.decode import Decoder, Row
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.slab import PrefixStore
from agentic_r.protocols import Completion, Sampling
from agentic_r.world import Sizes, generate

TURNS, NEW = 4, 24
SIBLINGS = 20


def cpu(work: Callable[[], object]) -> float:
    """Return the processor seconds of some work."""
    used = time.process_time()
    work()
    return time.process_time() - used


def texts(llm: LocalLLM, count: int, tokens: int) -> list[tuple[int, ...]]:
    """Return prompts of so many tokens, made of the world's passages."""
    ids = _ids(llm)
    return [tuple(ids[n * 397 : n * 397 + tokens]) for n in range(count)]


@cache
def _ids(llm: LocalLLM) -> list[int]:
    world = generate(1, Sizes(test_questions=20, train_questions=5, dev_questions=5))
    words = " ".join(passage.text for passage in world.corpus)
    ids: list[int] = llm.tokenizer(words)["input_ids"]
    return ids


class Ours:
    """The back end's decoder: every prompt is continued by `new` tokens, then it ends."""

    def __init__(self, llm: LocalLLM) -> None:
        self.store = PrefixStore(768 * 2**20)
        self.decoder = Decoder(llm.model, self.store, group_tokens=1024)

    def __call__(self, prompts: list[tuple[int, ...]], new: int = NEW) -> list[list[int]]:
        """Return the tokens written."""
        sampling = Sampling(max_tokens=new + 1)
        rows = [
            Row(list(prompt), new + 1, sampling, 0, lambda tokens: len(tokens) >= new)
            for prompt in prompts
        ]
        self.decoder.run(rows)
        return [row.tokens for row in rows]

    def forget(self) -> None:
        """Know nothing of earlier prompts."""
        self.store.clear()


class Theirs:
    """What transformers makes of the same prompts, all in one left-padded batch."""

    def __init__(self, llm: LocalLLM) -> None:
        self.model = llm.model

    @torch.inference_mode()
    def __call__(self, prompts: list[tuple[int, ...]], new: int = NEW) -> list[list[int]]:
        """Return the tokens written."""
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        read = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        kept = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
        out = self.model.generate(ids, attention_mask=read, **kept)
        found: list[list[int]] = out[:, width:].tolist()
        return found

    def forget(self) -> None:
        """Know nothing of earlier prompts, as always."""


def turns(
    llm: LocalLLM, model: Ours | Theirs, prompts: list[tuple[int, ...]], shown: int, keep: bool
) -> None:
    """Write TURNS times, with `shown` tokens of evidence after each."""
    model.forget()
    for turn in range(TURNS):
        done = model(prompts)
        more = texts(llm, len(prompts) * (turn + 2), shown)[-len(prompts) :]
        prompts = [(*p, *new, *seen) for p, new, seen in zip(prompts, done, more, strict=True)]
        if not keep:
            model.forget()


@torch.inference_mode()
def without_cache(llm: LocalLLM, prompts: list[tuple[int, ...]]) -> None:
    """Decode NEW tokens, every one from the whole text, once."""
    ids = torch.tensor(prompts)
    for _ in range(NEW):
        logits = llm.model(ids, use_cache=False, logits_to_keep=1).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)


def siblings(llm: LocalLLM, prefix: int, shared: bool, searches: int = 1) -> list[tuple[int, ...]]:
    """Return SIBLINGS prompts a search that begin alike and go on with 40 tokens, or none alike."""
    stems = texts(llm, SIBLINGS * searches, prefix)
    ends = texts(llm, SIBLINGS * searches, 40)
    return [(*stems[n // SIBLINGS if shared else n], *end) for n, end in enumerate(ends)]


def in_batches(llm: LocalLLM) -> None:
    """Print how often greedy tokens depend on the batch, and how far log-probabilities move."""
    prompts = [ids[: 60 + 7 * n] for n, ids in enumerate(texts(llm, 24, 250))]

    def written(size: int) -> list[Completion]:
        done: list[Completion] = []
        for first in range(0, len(prompts), size):
            llm.forget()
            done += llm.generate(prompts[first : first + size], Sampling(max_tokens=40))
        return done

    alone = written(1)
    for size in (5, 24):
        there = written(size)
        same = sum(a.tokens == b.tokens for a, b in zip(alone, there, strict=True))
        moved = max(
            abs(x - y)
            for a, b in zip(alone, there, strict=True)
            if a.tokens == b.tokens
            for x, y in zip(a.logprobs or (), b.logprobs or (), strict=True)
        )
        print(
            f"greedy in batches of {size}: {same}/{len(prompts)} texts as alone, "
            f"log-probabilities move by at most {moved:.1e}"
        )


def ways_at(llm: LocalLLM, prefix: int, rows: int) -> dict[str, Callable[[], object]]:
    """Return all that is measured at one length of prefix."""
    ours, theirs = Ours(llm), Theirs(llm)
    prompts = texts(llm, rows, prefix)
    alike, others = siblings(llm, prefix, True), siblings(llm, prefix, False)
    batch, apart = siblings(llm, prefix, True, 3), siblings(llm, prefix, False, 3)
    return {
        "kept": lambda: turns(llm, ours, prompts, 60, True),
        "anew": lambda: turns(llm, ours, prompts, 60, False),
        "generate": lambda: turns(llm, theirs, prompts, 60, False),
        "once": lambda: ours.forget() or ours(prompts),
        "bare": lambda: without_cache(llm, prompts),
        "shared": lambda: ours.forget() or ours(alike),
        "independent": lambda: ours.forget() or ours(others),
        "padded": lambda: theirs(alike),
        "shared, 3": lambda: ours.forget() or ours(batch),
        "independent, 3": lambda: ours.forget() or ours(apart),
        "padded, 3": lambda: theirs(batch),
        "shared, read": lambda: ours.forget() or ours(alike, 1),
        "independent, read": lambda: ours.forget() or ours(others, 1),
    }


RATIOS = (
    ("anew", "kept"),
    ("generate", "kept"),
    ("bare", "once"),
    ("independent", "shared"),
    ("padded", "shared"),
    ("independent, 3", "shared, 3"),
    ("padded, 3", "shared, 3"),
    ("independent, read", "shared, read"),
)


def main() -> None:
    """Measure and print the curves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prefixes", type=int, nargs="+", default=[60, 130, 260, 520])
    options = parser.parse_args()
    torch.set_num_threads(1)
    llm = LocalLLM(tiny_checkpoint(), device="cpu")
    print(f"{len(_ids(llm))} tokens of passages, {options.rows} rows")
    print("prefix  " + "  ".join(f"{slow} / {fast}" for slow, fast in RATIOS))
    for prefix in options.prefixes:
        took: dict[str, list[float]] = {}
        for turn in range(options.rounds + 1):
            for name, work in ways_at(llm, prefix, options.rows).items():
                seconds = cpu(work)
                if turn:  # the first round warms up
                    took.setdefault(name, []).append(seconds)
        s = {name: statistics.median(times) for name, times in took.items()}
        figures = "  ".join(f"{s[a] / s[b]:{len(a) + len(b) + 3}.2f}" for a, b in RATIOS)
        print(f"{prefix:6}  {figures}", flush=True)
    in_batches(llm)


if __name__ == "__main__":
    main()
