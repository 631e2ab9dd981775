"""What the in-process back end spares: keys and values kept over turns, and shared by siblings.

    python benchmarks/local_model.py [--rows 32] [--rounds 3]

Claims, on the tiny agent with one thread: multi-turn rollouts at least 1.25 times as fast as
reading the whole prompt anew at every turn, and at least 3 times as fast as decoding without a
cache; 20 continuations of one search at least 2 times as fast as 20 independent prompts, from
prefixes of 130 tokens on. Ways take turns in one run; rates are per processor second. Printed too
is how far greedy decoding depends on the batch that it is in.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import cache

import torch

from agentic_r.agent.agent import tiny_checkpoint
from agentic_r.agent.local import LocalLLM
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


def turns(llm: LocalLLM, prompts: list[tuple[int, ...]], shown: int, keep: bool) -> None:
    """Write TURNS times, with `shown` tokens of evidence after each."""
    llm.forget()
    for turn in range(TURNS):
        done = llm.generate(prompts, Sampling(max_tokens=NEW))
        more = texts(llm, len(prompts) * (turn + 2), shown)[-len(prompts) :]
        prompts = [
            (*prompt, *(each.tokens or ()), *seen)
            for prompt, each, seen in zip(prompts, done, more, strict=True)
        ]
        if not keep:
            llm.forget()


@torch.inference_mode()
def without_cache(llm: LocalLLM, prompts: list[tuple[int, ...]]) -> None:
    """Decode NEW tokens, every one from the whole text, once."""
    ids = torch.tensor(prompts)
    for _ in range(NEW):
        logits = llm.model(ids, use_cache=False, logits_to_keep=1).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)


def siblings(llm: LocalLLM, prefix: int, shared: bool) -> None:
    """Continue SIBLINGS prompts that begin alike, in one batch: with and without sharing that.

    Without, they are other prompts of the same lengths that have no beginning in common.
    """
    stems = texts(llm, SIBLINGS, prefix)
    ends = texts(llm, SIBLINGS, 40)
    prompts = [(*stems[0 if shared else n], *end) for n, end in enumerate(ends)]
    llm.forget()
    llm.generate(prompts, Sampling(max_tokens=NEW))


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


def main() -> None:
    """Measure and print the curves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    llm = LocalLLM(tiny_checkpoint(), device="cpu")
    print(f"{len(_ids(llm))} tokens of passages, {options.rows} rows")
    print("prefix  turns: kept/anew  kept/no cache  siblings: shared/independent")
    for prefix in (60, 130, 260, 520):
        prompts = texts(llm, options.rows, prefix)
        ways: dict[str, Callable[[], object]] = {
            "kept": lambda p=prompts: turns(llm, p, 60, True),
            "anew": lambda p=prompts: turns(llm, p, 60, False),
            "once": lambda p=prompts: llm.forget() or llm.generate(p, Sampling(max_tokens=NEW)),
            "bare": lambda p=prompts: without_cache(llm, p),
            "shared": lambda n=prefix: siblings(llm, n, True),
            "independent": lambda n=prefix: siblings(llm, n, False),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, work in ways.items():
                took[name].append(cpu(work))
        s = {name: statistics.median(times) for name, times in took.items()}
        print(
            f"{prefix:6}  {s['anew'] / s['kept']:16.2f}  {s['bare'] / s['once']:13.2f}"
            f"  {s['independent'] / s['shared']:28.2f}",
            flush=True,
        )
    in_batches(llm)


if __name__ == "__main__":
    main()
