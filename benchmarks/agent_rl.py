"""Does reinforcement learning raise the dev EM of an under-trained tiny agent?

    python -m agentic_r.agent.tiny --out build/warm --steps 600 --examine 100
    python benchmarks/agent_rl.py --start build/warm/checkpoint --method ppo --seed 0

Oracle retrieval at k = 1: every search that asks a hop is shown its passage, so what is learned is
to search, to read and to end. Prints the curve and the gain; one JSON line a run is added to --out.
Where --minutes is spent before the steps are, the run ends there and says so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.agent.learning import Learning, Practice
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.policy import Policy
from agentic_r.agent.reinforce import Reinforcer
from agentic_r.retriever.bm25 import BM25Retriever
from agentic_r.retriever.oracle import OracleRetriever
from agentic_r.settings import RLConfig
from agentic_r.world import Sizes, generate

SAMPLES = {"ppo": 1, "grpo": 8, "rloo": 8, "reinforce++": 1}


class OutOfTime(Exception):
    """The minutes are spent."""


def learning(options: argparse.Namespace, folder: Path) -> Learning:
    """The agent, its critic and a world's questions."""
    world = generate(9000 + options.seed, Sizes())
    train, dev = world.questions["train"], world.questions["dev"]
    plain = BM25Retriever(world.corpus)
    oracle = OracleRetriever([*train, *dev], plain, world.corpus, seed=options.seed)
    samples = SAMPLES[options.method]
    config = RLConfig(
        steps=options.steps,
        questions=options.trajectories // samples,
        samples=samples,
        learning_rate=options.rate,
        critic_learning_rate=1e-3,
        max_grad_norm=options.norm,
        warmup=options.warmup,
        validate_every=options.validate_every,
        validate_questions=options.dev,
        save_every=1000,
    )
    llm = LocalLLM(options.start)
    policy = Policy(llm, config, reference=False, critic=options.method == "ppo")
    dialect = SearchR1(llm.template)
    practice = Practice(oracle, dialect, 1, "question+query", 6, 120)
    reinforcer = Reinforcer(policy, options.method, options.steps, options.seed)
    began = time.monotonic()

    def hear(figures: dict[str, float]) -> None:
        if "dev_em" in figures and "entropy" in figures:
            names = (
                "step",
                "reward",
                "dev_em",
                "dev_searches",
                "dev_invalid",
                "entropy",
                "kl",
                "gradient",
                "em",
                "invalid",
                "searches",
            )
            print("  ".join(f"{name} {figures[name]:.3f}" for name in names), flush=True)
        if time.monotonic() - began > 60 * options.minutes:
            raise OutOfTime

    return Learning(reinforcer, practice, train, dev, folder, hear)


def main() -> None:
    """Train, print the curve, add a line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--start", required=True)
    parser.add_argument("--method", choices=tuple(SAMPLES), default="ppo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trajectories", type=int, default=64, help="per step")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--norm", type=float, default=1.0)
    parser.add_argument("--warmup", type=float, default=0.0)
    parser.add_argument("--dev", type=int, default=120)
    parser.add_argument("--validate-every", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--out", default="build/agent_rl.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(options.out).parent / f"rl-{options.method}-{options.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    learner = learning(options, folder)
    began, ended = time.monotonic(), "steps"
    try:
        ended = learner.run().ended or ended
    except OutOfTime:
        ended = f"{options.minutes:g} minutes"
    seconds = time.monotonic() - began
    curve = learner.learned.curve
    dev = [(int(f["step"]), round(f["dev_em"], 4)) for f in curve if "dev_em" in f]
    row: dict[str, Any] = {"method": options.method, "seed": options.seed, "dev": dev}
    row |= {"steps": int(curve[-1]["step"]), "seconds": round(seconds), "ended": ended}
    for part in ("generation", "retrieval", "scoring", "update"):
        row[part] = round(
            sum(f.get(f"{part}_seconds", 0.0) for f in curve) / max(1, row["steps"]), 3
        )
    first, best = dev[0][1], max(em for _, em in dev)
    print(f"{options.method} seed {options.seed}: dev EM {first:.3f} -> {best:.3f}")
    print(json.dumps(row))
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    with Path(options.out).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
