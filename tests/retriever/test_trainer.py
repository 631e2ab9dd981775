from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agentic_r.config import RetrieverTrainConfig
from agentic_r.data.corpus import Corpus
from agentic_r.errors import AgenticRError, DataError, MismatchError
from agentic_r.retriever.checkpoint import CHECKPOINT_FILE, discard_checkpoint
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.trainer import TrainResult, train
from agentic_r.retriever.training import schedule
from agentic_r.types import Example, Passage

SETTINGS = RetrieverTrainConfig(epochs=3, batch=3, learning_rate=1e-3, temperature=0.1)


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


def run(
    encoder: Encoder,
    corpus: Corpus,
    examples: list[Example],
    folder: Path | None = None,
    die_at: int = 0,
    seed: int = 0,
) -> TrainResult:
    def on_step(step: int) -> None:
        if step == die_at:
            raise Killed

    return train(
        encoder,
        corpus,
        examples,
        SETTINGS,
        seed,
        folder,
        progress=False,
        checkpoint_seconds=0,
        on_step=on_step,
    )


def equal(a: Encoder, b: Encoder) -> bool:
    mine, other = a.model.state_dict(), b.model.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)


@pytest.mark.parametrize("die_at", [1, 3, 5, 9])
def test_a_killed_training_ends_with_the_same_weights(
    encoder: Encoder, corpus: Corpus, examples: list[Example], tmp_path: Path, die_at: int
) -> None:
    undisturbed = run(encoder, corpus, examples)
    with pytest.raises(Killed):
        run(encoder, corpus, examples, tmp_path, die_at)
    resumed = run(encoder, corpus, examples, tmp_path)
    assert resumed.resumed_at == die_at
    assert equal(resumed.encoder, undisturbed.encoder)
    assert resumed.encoder.fingerprint == undisturbed.encoder.fingerprint
    timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in resumed.curve]
    assert timeless == [
        {k: v for k, v in row.items() if k != "seconds"} for row in undisturbed.curve
    ]


def test_a_checkpoint_older_than_the_kill_repeats_the_steps_between(
    encoder: Encoder, corpus: Corpus, examples: list[Example], tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        run(encoder, corpus, examples, tmp_path, 2)
    old = (tmp_path / CHECKPOINT_FILE).read_bytes()
    with pytest.raises(Killed):
        run(encoder, corpus, examples, tmp_path, 6)
    (tmp_path / CHECKPOINT_FILE).write_bytes(old)
    resumed = run(encoder, corpus, examples, tmp_path)
    assert resumed.resumed_at == 2
    assert equal(resumed.encoder, run(encoder, corpus, examples).encoder)


def test_training_raises_positives_and_leaves_the_input_alone(
    encoder: Encoder, corpus: Corpus, examples: list[Example]
) -> None:
    before = encoder.copy()
    result = run(encoder, corpus, examples)

    def margin(model: Encoder) -> float:
        queries = model.encode([x.query for x in examples], "query")
        good = model.encode([corpus.get(x.positives[0]).contents for x in examples], "passage")
        bad = model.encode([corpus.get(x.negatives[0]).contents for x in examples], "passage")
        return float(((queries * good).sum(1) - (queries * bad).sum(1)).mean())

    assert margin(result.encoder) > margin(encoder) + 0.1
    assert equal(encoder, before)
    assert result.encoder.fingerprint != encoder.fingerprint
    assert [row["step"] for row in result.curve] == list(range(1, 10))
    assert result.curve[-1]["loss"] < result.curve[0]["loss"]
    assert result.curve[-1]["epoch"] == 2


def test_the_seed_moves_the_training(
    encoder: Encoder, corpus: Corpus, examples: list[Example]
) -> None:
    assert not equal(
        run(encoder, corpus, examples).encoder, run(encoder, corpus, examples, seed=1).encoder
    )


def test_the_checkpoint_of_another_training_is_refused(
    encoder: Encoder, corpus: Corpus, examples: list[Example], tmp_path: Path
) -> None:
    run(encoder, corpus, examples, tmp_path)
    with pytest.raises(MismatchError, match="another folder"):
        run(encoder, corpus, examples, tmp_path, seed=1)
    discard_checkpoint(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_refused_by_name(
    encoder: Encoder, corpus: Corpus, examples: list[Example], tmp_path: Path
) -> None:
    run(encoder, corpus, examples, tmp_path)
    file = tmp_path / CHECKPOINT_FILE
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(DataError, match=CHECKPOINT_FILE):
        run(encoder, corpus, examples, tmp_path)


def test_bad_examples_are_refused(encoder: Encoder, corpus: Corpus) -> None:
    with pytest.raises(DataError, match="no training examples"):
        run(encoder, corpus, [])
    with pytest.raises(DataError, match="no passage 'gone'"):
        run(encoder, corpus, [Example("d", "1", "q", ("gone",), ())])


def test_a_loss_that_explodes_is_an_error(encoder: Encoder, examples: list[Example]) -> None:
    broken = encoder.copy()
    with torch.no_grad():
        next(iter(broken.model.parameters())).fill_(float("nan"))
    passages = Corpus([Passage(id, id) for x in examples for id in x.positives + x.negatives[:1]])
    rows = [Example("d", x.question_id, x.query, x.positives, x.negatives[:1]) for x in examples]
    with pytest.raises(AgenticRError, match="loss is nan at step 1"):
        run(broken, passages, rows)


def test_the_schedule_rises_and_falls_without_a_zero() -> None:
    factors = [schedule(step, 20, 0.1) for step in range(20)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert factors[-1] == pytest.approx(1 / 18)
    assert schedule(0, 1, 0.1) == schedule(0, 1, 1.0) == 1.0
