"""How much faster is an update on packed trajectories than on a padded batch of the same data?

    python benchmarks/rl_packing.py

Lengths are those of a first RL step: most trajectories end early, a few use every turn.
The baseline pads to the longest trajectory of a mini-batch and projects every position to the
vocabulary, as a trainer without packing does.
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

import torch

from agentic_r.agent.agent import tiny_checkpoint
from agentic_r.agent.batch import pack, padded, score, table
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.loss import policy_term, token_weights, weighted
from agentic_r.agent.tokens import Sample


def trajectories(count: int, vocabulary: int, seed: int) -> list[Sample]:
    """Random ids: a prompt of 20, turns of about 40 written and 45 shown tokens, 1 to 6 turns."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        written = [False] * 20
        turns = rng.choice((1, 1, 2, 2, 2, 3, 3, 4, 6))
        for turn in range(turns):
            written += [True] * rng.randint(25, 60)
            written += [False] * (rng.randint(30, 60) if turn + 1 < turns else 0)
        ids = tuple(rng.randrange(2, vocabulary) for _ in written)
        own = sum(written)
        made.append(Sample(("", str(number)), ids, tuple(written), (-1.0,) * own))
    return made


def packed_update(model: Any, samples: list[Sample], micro: int) -> None:
    """Forward and backward of the policy loss, packed."""
    weights = token_weights(table(samples), "token")
    for part in pack(samples, micro):
        logprobs = score(model, part).logprobs
        at = (part.owner, part.place)
        loss = weighted(weights[at], policy_term(logprobs, logprobs.detach(), torch.ones(())).loss)
        loss.backward()


def padded_update(model: Any, samples: list[Sample], micro: int) -> None:
    """The same on rows padded to the longest, every position projected."""
    total = sum(len(sample.logprobs) for sample in samples)
    width = max(len(sample.ids) for sample in samples)
    many = max(1, micro // width)
    for start in range(0, len(samples), many):
        part = padded(samples[start : start + many])
        logits = model(input_ids=part.ids, use_cache=False).logits.float()
        logs = logits.flatten(0, 1).log_softmax(-1)
        logprobs = logs[part.before, part.targets]
        loss = policy_term(logprobs, logprobs.detach(), torch.ones(())).loss.sum() / total
        loss.backward()


def main() -> None:
    """Time both, in turns, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--micro-tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    llm = LocalLLM(tiny_checkpoint())
    samples = trajectories(options.count, len(llm.tokenizer), 0)
    longest = max(len(sample.ids) for sample in samples)
    fill = sum(len(sample.ids) for sample in samples) / (longest * len(samples))
    print(
        f"{len(samples)} trajectories, longest {longest} tokens; a padded batch is {fill:.0%} full"
    )
    times: dict[str, list[float]] = {"padded": [], "packed": []}
    for _ in range(options.repeats):
        for name, update in (("padded", padded_update), ("packed", packed_update)):
            llm.model.zero_grad()
            began = time.perf_counter()
            update(llm.model, samples, options.micro_tokens)
            times[name].append(time.perf_counter() - began)
    best = {name: min(found) for name, found in times.items()}
    print(f"padded {best['padded']:.2f} s, packed {best['packed']:.2f} s")
    print(f"packed is {best['padded'] / best['packed']:.2f} x as fast")


if __name__ == "__main__":
    main()
