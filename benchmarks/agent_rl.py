"""Does reinforcement learning raise the dev EM of an under-trained tiny agent?

    python benchmarks/agent_rl.py                                  # ppo, grpo, reinforce++; seed 0
    python benchmarks/agent_rl.py --methods grpo --seeds 0,1,2
    python benchmarks/agent_rl.py --start tiny --run runs/quickstart    # the shipped agent

The warm start is made first where it is missing (LEGS, eight minutes): an agent that copies names
well and has only begun to learn questions of two and three hops. It fails every second question,
most often because it ends after the first hop or asks for the wrong thing: what a reward can tell
it. (An agent that cannot copy yet has nothing to gain: docs/log.md.) Then every method trains it
from its own samples: 64 trajectories a step, oracle retrieval at k = 1 (every search that asks a
hop is shown its passage), so that what is learned is to search, to read and to end. Each seed has a
world of its own. With --run it is the questions, the trained retriever and the k of a finished run
of the quickstart instead, which shows what is left to gain there. Prints the curves and the gains;
one JSON line a run is added to --out. Where --minutes are spent before the steps are, a run ends
there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lessons import ONE_HOP, THREE_HOPS, Leg, taught
from program import CONFIG

from agentic_r.agent.agent import tiny_checkpoint
from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.agent.learning import Learning, Practice
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.policy import Policy
from agentic_r.agent.reinforce import Reinforcer
from agentic_r.config import load_config
from agentic_r.data.questions import Questions
from agentic_r.parts import open_data
from agentic_r.retriever.bm25 import BM25Retriever
from agentic_r.retriever.oracle import OracleRetriever
from agentic_r.served import open_served
from agentic_r.settings import RLConfig
from agentic_r.world import Sizes, generate

SAMPLES = {"ppo": 1, "grpo": 8, "rloo": 8, "reinforce++": 1}
RATES = {"ppo": 2e-4, "grpo": 1e-4, "rloo": 1e-4, "reinforce++": 2e-4}
"""Learning rates, tried on seed 9 alone."""

LEGS = (Leg(ONE_HOP, 900, 2e-3), Leg(THREE_HOPS, 200, 2e-3), Leg(THREE_HOPS, 160, 7e-4))
"""How the warm start is made."""

SHOWN = ("dev_em", "dev_searches", "dev_invalid")


class OutOfTime(Exception):
    """The minutes are spent."""


def warm(folder: Path) -> str:
    """Make the warm start in `folder` where it is missing; returns the model's folder."""
    return str(taught(folder, LEGS))


def started(options: argparse.Namespace) -> str:
    """Return the folder of the model to start from."""
    if options.start == "tiny":
        return str(tiny_checkpoint())
    return options.start or warm(Path(options.warm))


def practised(
    options: argparse.Namespace, seed: int, dialect: SearchR1
) -> tuple[Questions, Questions, Practice]:
    """Return training and dev questions, and how they are answered."""
    if options.run:
        folder = Path(options.run)
        names = [("runs", str(folder.parent)), ("name", folder.name)]
        config = load_config(CONFIG, [*names, ("seed", str(seed))])
        found, data = open_served(config).main, open_data(config)
        practice = Practice(found.retriever, dialect, config.retriever.k, found.form, 6, 120)
        return data.train, data.dev, practice
    world = generate(9000 + seed, Sizes())
    train, dev = (Questions(world.questions[name]) for name in ("train", "dev"))
    oracle = OracleRetriever([*train, *dev], BM25Retriever(world.corpus), world.corpus, seed=seed)
    return train, dev, Practice(oracle, dialect, 1, "question+query", 6, 120)


def learning(
    options: argparse.Namespace,
    method: str,
    seed: int,
    folder: Path,
    hear: Callable[[dict[str, float]], None],
) -> Learning:
    """The agent, its critic and what it practises on."""
    llm = LocalLLM(started(options))
    train, dev, practice = practised(options, seed, SearchR1(llm.template))
    config = RLConfig(
        steps=options.steps,
        questions=options.trajectories // SAMPLES[method],
        samples=SAMPLES[method],
        learning_rate=options.rate or RATES[method],
        kl="reward",
        kl_coefficient=options.kl,
        critic_learning_rate=1e-3,
        validate_every=options.validate_every,
        validate_questions=options.dev,
        save_every=1000,
    )
    policy = Policy(llm, config, reference=True, critic=method == "ppo")
    reinforcer = Reinforcer(policy, method, config.steps, seed)  # type: ignore[arg-type]
    return Learning(reinforcer, practice, train, dev, folder, hear)


def run(options: argparse.Namespace, method: str, seed: int) -> dict[str, Any]:
    """Train once, print the curve and return what it was."""
    folder = Path(options.out).parent / f"rl-{method}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()

    def hear(figures: dict[str, float]) -> None:
        if "dev_em" in figures:
            told = "  ".join(f"{name} {figures[name]:.3f}" for name in (*SHOWN, "em", "entropy"))
            print(f"\n{method} seed {seed} step {figures['step']:.0f}: {told}", flush=True)
        if time.monotonic() - began > 60 * options.minutes:
            raise OutOfTime

    learner = learning(options, method, seed, folder, hear)
    began, cpu, ended = time.monotonic(), time.process_time(), "steps"
    try:
        ended = learner.run().ended or ended
    except OutOfTime:
        ended = f"{options.minutes:g} minutes"
    curve = learner.learned.curve
    steps = int(curve[-1]["step"])
    measured = [f for f in curve if "dev_em" in f]
    row: dict[str, Any] = {"method": method, "seed": seed, "rate": options.rate or RATES[method]}
    row["steps"] = steps
    row |= {"seconds": round(time.monotonic() - began), "ended": ended}
    row["cpu_seconds"] = round(time.process_time() - cpu)
    for part in ("generation", "retrieval", "scoring", "update"):
        spent = sum(f.get(f"{part}_seconds", 0.0) for f in curve)
        row[part] = round(spent / max(1, steps), 3)
    for name in SHOWN:
        row[name] = [(int(f["step"]), round(f[name], 4)) for f in measured]
    return row


def main() -> None:
    """Train with every method and seed, and say what each gained."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--methods", default="ppo,grpo,reinforce++")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--warm", default="build/agent-rl/warm", help="folder of the warm start")
    parser.add_argument("--start", default="", help="another model to start from; tiny: shipped")
    parser.add_argument("--run", default="", help="folder of a finished quickstart to practise on")
    parser.add_argument("--trajectories", type=int, default=64, help="per step")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rate", type=float, default=0.0, help="0 takes the method's own")
    parser.add_argument("--kl", type=float, default=0.003, help="weight of the KL in the reward")
    parser.add_argument("--dev", type=int, default=120)
    parser.add_argument("--validate-every", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--out", default="build/agent-rl/runs.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    gains: dict[str, list[float]] = {}
    for method in options.methods.split(","):
        for seed in map(int, options.seeds.split(",")):
            row = run(options, method, seed)
            with Path(options.out).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
            first, last = row["dev_em"][0][1], row["dev_em"][-1][1]
            gains.setdefault(method, []).append(last - first)
    print("\nDev EM, last measurement less the first, greedy:")
    for method, found in gains.items():
        each = ", ".join(f"{gain:+.3f}" for gain in found)
        print(f"  {method:12} {statistics.fmean(found):+.3f}  ({each})")


if __name__ == "__main__":
    main()
