"""How well the tiny agent reads: EM when the gold passage is among the k that it is shown.

    python benchmarks/tiny_agent.py [--model DIR] [--seeds 3 4 5] [--questions 440]

Claim: at least 85 % at k = 1 and k = 3, on worlds whose names it never saw. The gold passage
of the asked hop stands at a random place; the others are the untouched encoder's top hits for
the string that was sent.
"""

from __future__ import annotations

import argparse

from agentic_r.agent.agent import SearchAgent, tiny_checkpoint
from agentic_r.agent.local import LocalLLM
from agentic_r.metrics import exact_match
from agentic_r.retriever.dense import DenseRetriever
from agentic_r.retriever.oracle import OracleRetriever
from agentic_r.settings import AgentConfig
from agentic_r.world import Sizes, generate


def main() -> None:
    """Print one line a seed and k, and one with the mean."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1000, 1001, 1002])
    parser.add_argument("--questions", type=int, default=440)
    parser.add_argument("--ks", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    llm = LocalLLM(options.model or tiny_checkpoint())
    config = AgentConfig(turns=6, max_tokens=128)
    found: dict[int, list[float]] = {k: [] for k in options.ks}
    print("seed    k     EM  1 hop  2 hop  3 hop  searches  questions")
    for seed in options.seeds:
        world = generate(seed, Sizes(test_questions=options.questions))
        questions = world.questions["test"]
        inner = DenseRetriever.build("all-MiniLM-L6-v2", world.corpus)
        oracle = OracleRetriever(questions, inner, world.corpus, place="random", seed=seed)
        for k in options.ks:
            agent = SearchAgent.from_config(config, oracle, llm=llm, k=k, form="question+query")
            ends = agent.run(questions, progress=f"seed {seed}, k={k}")
            right = [exact_match(t.answer, t.question.answers) for t in ends]
            hops = [t.question.metadata["hop_count"] for t in ends]
            by_hops = [
                sum(r for r, h in zip(right, hops, strict=True) if h == n) / hops.count(n)
                for n in (1, 2, 3)
            ]
            searches = sum(len(t.searches) for t in ends) / len(ends)
            numbers = "  ".join(f"{value:5.3f}" for value in by_hops)
            em = sum(right) / len(right)
            found[k].append(em)
            print(f"{seed:<6}  {k}  {em:5.3f}  {numbers}  {searches:8.2f}  {len(ends):9}")
    for k, ems in found.items():
        print(f"mean    {k}  {sum(ems) / len(ems):5.3f}")


if __name__ == "__main__":
    main()
