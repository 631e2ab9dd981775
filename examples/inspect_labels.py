"""What labelling decides, passage by passage, and why. Runs without torch."""

import agentic_r as ar
from agentic_r.evaluation.cases import labelled_searches
from agentic_r.testing import OracleReader
from agentic_r.world import Sizes, generate


def main() -> None:
    """Label a few searches and explain the first ones that gave a training example."""
    world = generate(0, Sizes(9, 9, 9, 9, 9, train_questions=12, dev_questions=0, test_questions=0))
    questions = world.questions["train"]
    agent = ar.SearchAgent(OracleReader(questions), ar.BM25Retriever(world.corpus), k=2)
    trajectories = agent.run(questions)
    labels = ar.label(trajectories, agent, judge=ar.OfflineJudge(), progress=False)
    examples = ar.select(labels)

    print(*labels.costs.lines(), f"dropped: {labels.report}", sep="\n")
    taught = {example.question_id for example in examples}
    for trajectory in [t for t in trajectories if t.question.id in taught][:2]:
        print(f"\n{trajectory.question.text}")
        found = labelled_searches(trajectory, labels.utilities, examples, world.corpus.get)
        for search in found:
            print(f"  {search.query}  {search.outcome}")
            for passage in search.passages:
                print(f"    {passage.verdict}: {passage.text[:60]}...\n      {passage.reason}")


if __name__ == "__main__":
    main()
