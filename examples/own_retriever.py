"""A retriever of your own: any object with `search(queries, k)` will do. Runs without torch.

Here two rankings are fused by reciprocal rank (Cormack et al. 2009) and compared with one alone.
"""

from collections.abc import Sequence

import agentic_r as ar
from agentic_r.testing import OracleReader
from agentic_r.world import Sizes, generate


class TitleRetriever:
    """Ranks passages by the words of their title that the query holds."""

    def __init__(self, corpus: ar.Corpus) -> None:
        self.corpus = corpus

    def search(self, queries: Sequence[str], k: int) -> list[list[ar.Hit]]:
        """Return the `k` best hits for each query, best first."""
        return [self._one(set(query.lower().split()), k) for query in queries]

    def _one(self, words: set[str], k: int) -> list[ar.Hit]:
        hits = [ar.Hit(p, len(words & set(p.title.lower().split()))) for p in self.corpus]
        return sorted(hits, key=lambda hit: -hit.score)[:k]


class Fused:
    """Adds up 1 / (60 + rank) over several retrievers."""

    def __init__(self, *retrievers: ar.Retriever, depth: int = 20) -> None:
        self.retrievers = retrievers
        self.depth = depth

    def search(self, queries: Sequence[str], k: int) -> list[list[ar.Hit]]:
        """Return the `k` best hits for each query, best first."""
        rankings = [each.search(queries, max(k, self.depth)) for each in self.retrievers]
        return [self._fuse(rows, k) for rows in zip(*rankings, strict=True)]

    def _fuse(self, rankings: Sequence[Sequence[ar.Hit]], k: int) -> list[ar.Hit]:
        scores: dict[str, float] = {}
        passages: dict[str, ar.Passage] = {}
        for ranking in rankings:
            for rank, hit in enumerate(ranking):
                passages[hit.passage.id] = hit.passage
                scores[hit.passage.id] = scores.get(hit.passage.id, 0.0) + 1 / (60 + rank)
        best = sorted(scores, key=lambda id: -scores[id])[:k]
        return [ar.Hit(passages[id], scores[id]) for id in best]


def main() -> None:
    """Let an agent search with each of them."""
    world = generate(0, Sizes(9, 9, 9, 9, 9, train_questions=60, dev_questions=0, test_questions=0))
    questions = world.questions["train"]
    bm25 = ar.BM25Retriever(world.corpus)
    agent = ar.SearchAgent(OracleReader(questions), bm25, k=2)
    fused = agent.using(Fused(bm25, TitleRetriever(world.corpus)))
    print("BM25 and titles, fused, over BM25:")
    print(ar.compare(agent.run(questions), fused.run(questions), metric="em"))


if __name__ == "__main__":
    main()
