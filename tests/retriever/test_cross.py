from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from agentic_r.config import RerankConfig
from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError, MismatchError
from agentic_r.retriever.cross import CrossEncoder
from agentic_r.retriever.cross_trainer import RerankResult, listwise, pointwise, train_reranker
from agentic_r.types import Example

from .conftest import NAMES

SETTINGS = RerankConfig(epochs=6, batch=3, learning_rate=2e-3, max_length=40, precision="fp32")


@pytest.fixture(scope="module")
def reranker(checkpoint: Path) -> CrossEncoder:
    return CrossEncoder.load(str(checkpoint), 40)


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


def run(
    reranker: CrossEncoder,
    corpus: Corpus,
    examples: list[Example],
    folder: Path | None = None,
    die_at: int = 0,
    **changes: Any,
) -> RerankResult:
    def on_step(step: int) -> None:
        if step == die_at:
            raise Killed

    return train_reranker(
        reranker,
        corpus,
        examples,
        msgspec.structs.replace(SETTINGS, **changes),
        0,
        folder,
        progress=False,
        checkpoint_seconds=0,
        on_step=on_step,
    )


def right(reranker: CrossEncoder, corpus: Corpus, examples: list[Example]) -> float:
    found = []
    for example in examples:
        ids = (*example.negatives, *example.positives)
        scores = reranker.scores([(example.query, corpus.get(id).contents) for id in ids])
        found.append(ids[int(np.argmax(scores))] in example.positives)
    return sum(found) / len(found)


@pytest.mark.parametrize("loss", ["listwise", "pointwise"])
def test_training_puts_the_positives_on_top(
    reranker: CrossEncoder, corpus: Corpus, examples: list[Example], loss: str
) -> None:
    before = {name: tensor.clone() for name, tensor in reranker.model.state_dict().items()}
    result = run(reranker, corpus, examples, loss=loss)
    assert right(result.reranker, corpus, examples) > 0.9
    assert result.curve[-1]["loss"] < result.curve[0]["loss"]
    assert all(torch.equal(before[n], t) for n, t in reranker.model.state_dict().items())


def test_the_losses_are_the_textbook_ones() -> None:
    scores, wanted = torch.tensor([1.0, -0.5, 0.2]), torch.tensor([1.0, 0.0, 0.5])
    top = [float(torch.exp(x)) for x in scores]
    teacher = [float(torch.exp(x / 0.25)) for x in wanted]
    expected = -sum(
        t / sum(teacher) * np.log(s / sum(top)) for t, s in zip(teacher, top, strict=True)
    )
    assert float(listwise(scores, wanted, 0.25)) == pytest.approx(expected, rel=1e-5)
    p = [1 / (1 + float(torch.exp(-x))) for x in scores]
    expected = -(np.log(p[0]) + np.log(1 - p[1]) + 0.5 * np.log(p[2]) + 0.5 * np.log(1 - p[2])) / 3
    assert float(pointwise(scores, wanted)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("die_at", [2, 7])
def test_a_killed_training_ends_with_the_same_weights(
    reranker: CrossEncoder, corpus: Corpus, examples: list[Example], tmp_path: Path, die_at: int
) -> None:
    undisturbed = run(reranker, corpus, examples)
    with pytest.raises(Killed):
        run(reranker, corpus, examples, tmp_path, die_at)
    resumed = run(reranker, corpus, examples, tmp_path)
    assert resumed.resumed_at == die_at
    other = undisturbed.reranker.model.state_dict()
    assert all(torch.equal(other[n], t) for n, t in resumed.reranker.model.state_dict().items())
    assert [x["loss"] for x in resumed.curve] == [x["loss"] for x in undisturbed.curve]
    with pytest.raises(MismatchError, match="another folder"):
        run(reranker, corpus, examples, tmp_path, learning_rate=1e-5)


def test_graded_targets_order_the_list(
    reranker: CrossEncoder, corpus: Corpus, examples: list[Example]
) -> None:
    graded = [msgspec.structs.replace(x, targets=(0.0, 1.0, 0.0)) for x in examples]
    result = run(reranker, corpus, graded)
    # The graded negative is wanted on top, whatever the example calls it.
    assert right(result.reranker, corpus, examples) < 0.5


def test_sentence_transformers_gives_the_same_scores(
    reranker: CrossEncoder, corpus: Corpus, examples: list[Example], tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    trained = run(reranker, corpus, examples, epochs=1).reranker
    trained.save(tmp_path, ["trained: a test"])
    theirs = library.CrossEncoder(str(tmp_path), device="cpu")
    query = "where was " + " ".join(NAMES) * 4
    passages = [p.contents for p in corpus]
    found = theirs.predict([(query, text) for text in passages], activation_fn=torch.nn.Identity())
    pairs = [(query, text) for text in passages]
    np.testing.assert_allclose(found, trained.scores(pairs), atol=1e-5)
    again = CrossEncoder.load(str(tmp_path), 40)
    np.testing.assert_array_equal(again.scores(pairs), trained.scores(pairs))
    assert "- trained: a test" in (tmp_path / "README.md").read_text()
    assert all(f.stat().st_mode & 0o044 == 0o044 for f in tmp_path.rglob("*") if f.is_file())


def test_scores_do_not_depend_on_what_else_is_scored(
    reranker: CrossEncoder, corpus: Corpus
) -> None:
    passages = [p.contents for p in corpus] + ["\ud800 broken", ""]
    together = reranker.scores([("who", text) for text in passages])
    alone = [reranker.scores([("who", text)])[0] for text in passages]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert reranker.scores([]) == []


def test_what_cannot_be_loaded_or_trained_is_refused(
    reranker: CrossEncoder, corpus: Corpus, tmp_path: Path, checkpoint: Path
) -> None:
    with pytest.raises(ConfigError, match="re-ranker"):
        CrossEncoder.load(str(tmp_path))
    with pytest.raises(ConfigError, match="got 65, expected at most 64"):
        CrossEncoder.load(str(checkpoint), 65)
    with pytest.raises(DataError, match="at least one with a negative"):
        run(reranker, corpus, [Example("d", "1", "q", ("b1",), ())])
    with pytest.raises(DataError, match="expected 0 to 1"):
        run(reranker, corpus, [Example("d", "1", "q", ("b1",), ("b2",), (80.0, 10.0))])
