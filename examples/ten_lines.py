"""The whole method in ten lines of Python, on a small generated world: about half a minute.

The agent is the oracle reader: it asks the right sub-questions and needs to be shown the answers,
so exact match says how often the retriever found them. Give SearchAgent a model's name, a folder
or an http:// address instead, and LLMJudge("http://...") as the judge, to do the same for real.
"""

import json
import tempfile
from pathlib import Path

import agentic_r as ar
from agentic_r.testing import OracleReader
from agentic_r.world import Sizes, generate


def write_world(folder: Path) -> None:
    """Write a corpus and questions in the FlashRAG format."""
    world = generate(0, Sizes(9, 9, 9, 9, 9, train_questions=60, dev_questions=0, test_questions=0))
    passages = [{"id": p.id, "title": p.title, "text": p.text} for p in world.corpus]
    questions = [
        {"id": q.id, "question": q.text, "golden_answers": q.answers, "metadata": q.metadata}
        for q in world.questions["train"]
    ]
    for name, rows in (("corpus.jsonl", passages), ("questions.jsonl", questions)):
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def main() -> None:
    """Train a retriever for an agent and say what it brought."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(folder)
        corpus = ar.Corpus.load(folder / "corpus.jsonl")
        questions = ar.load_questions(folder / "questions.jsonl")
    retriever = ar.DenseRetriever.build("all-MiniLM-L6-v2", corpus)
    agent = ar.SearchAgent(OracleReader(questions), retriever, k=1, form="question+query")
    train, test = questions.split(0.6, None, seed=0)

    labels = ar.label(agent.run(train), agent, judge=ar.OfflineJudge())
    better = retriever.fit(ar.select(labels), epochs=1, negatives=4)
    print(ar.compare(agent.run(test), agent.using(better).run(test), metric="em"))


if __name__ == "__main__":
    main()
