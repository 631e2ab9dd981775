"""Every option of training: what it does, and that a killed training ends as an undisturbed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from agentic_r.config import RetrieverTrainConfig
from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError, MismatchError
from agentic_r.retriever.dense import DenseRetriever
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.index import Index
from agentic_r.retriever.sealed import SEAL_FILE
from agentic_r.retriever.trainer import TrainResult, train
from agentic_r.types import Example

from .conftest import NAMES

SETTINGS = RetrieverTrainConfig(
    epochs=3, batch=3, learning_rate=1e-3, temperature=0.1, precision="fp32", evaluations=0
)
DEV = [Example("d", f"dev{i}", f"who runs {name}", (f"r{i}",), ()) for i, name in enumerate(NAMES)]


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


def run(
    encoder: Encoder,
    corpus: Corpus,
    examples: list[Example],
    folder: Path | None = None,
    die_at: int = 0,
    passage_encoder: Encoder | None = None,
    **changes: Any,
) -> TrainResult:
    def on_step(step: int) -> None:
        if step == die_at:
            raise Killed

    return train(
        encoder,
        corpus,
        examples,
        msgspec.structs.replace(SETTINGS, **changes),
        0,
        folder,
        dev=DEV,
        passage_encoder=passage_encoder,
        progress=False,
        checkpoint_seconds=0,
        on_step=on_step,
    )


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = encoder.model.state_dict()
    return found


def close(a: Encoder, b: Encoder, atol: float) -> bool:
    mine, other = weights(a), weights(b)
    assert mine.keys() == other.keys()
    return all(torch.allclose(mine[k], other[k], atol=atol, rtol=0) for k in mine)


def graded(examples: list[Example]) -> list[Example]:
    return [
        msgspec.structs.replace(x, targets=(1.0, *(0.5 / (1 + i) for i in range(len(x.negatives)))))
        for x in examples
    ]


OPTIONS: list[dict[str, Any]] = [
    {"lora_rank": 2},
    {"side": "query"},
    {"refresh": 1},
    {"evaluations": 2, "keep": "best"},
    {"evaluations": 1, "patience": 1, "learning_rate": 1e-6},
    {"cache_tokens": 16},
    {"gradient_checkpointing": True},
    {"matryoshka": (32, 8), "loss": "multi-positive"},
    {"loss": "rank-net"},
    {"loss": "listwise-kl"},
    {"recipe": "upstream", "loss": "rank-net"},
    {"refresh": 1, "lora_rank": 2, "evaluations": 2, "keep": "best", "side": "query"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_survives_a_kill(
    encoder: Encoder, corpus: Corpus, examples: list[Example], tmp_path: Path, options: Any
) -> None:
    pytest.importorskip("peft") if "lora_rank" in options else None
    rows = graded(examples)
    undisturbed = run(encoder, corpus, rows, **options)
    for die_at in (2, 5):  # in the first epoch, and in the second
        with pytest.raises(Killed):
            run(encoder, corpus, rows, tmp_path, die_at, **options)
            raise Killed  # stopped early before that step, which is an end of its own
    resumed = run(encoder, corpus, rows, tmp_path, **options)
    assert resumed.resumed_at == min(5, len(undisturbed.curve))
    assert resumed.encoder.fingerprint == undisturbed.encoder.fingerprint
    assert resumed.dev == undisturbed.dev
    assert resumed.step == undisturbed.step
    assert [x["loss"] for x in resumed.curve] == [x["loss"] for x in undisturbed.curve]
    assert not close(resumed.encoder, encoder, 1e-7)


@pytest.mark.parametrize(
    "options", [{"cache_tokens": 16}, {"cache_tokens": 4000}, {"gradient_checkpointing": True}]
)
@pytest.mark.parametrize("loss", ["info-nce", "listwise-kl"])
def test_less_memory_is_the_same_training(
    encoder: Encoder, corpus: Corpus, examples: list[Example], options: Any, loss: str
) -> None:
    rows = graded(examples)
    direct = run(encoder, corpus, rows, loss=loss)
    saving = run(encoder, corpus, rows, loss=loss, **options)
    assert [x["loss"] for x in saving.curve] == pytest.approx(
        [x["loss"] for x in direct.curve], abs=1e-5
    )
    assert close(saving.encoder, direct.encoder, 1e-5)


def test_the_query_side_alone_leaves_the_index_valid(
    encoder: Encoder, corpus: Corpus, examples: list[Example], tmp_path: Path
) -> None:
    index = Index.build(encoder, corpus, tmp_path / "index")
    # Who runs what is to be found for where one was born: the untouched encoder finds the city.
    examples = [
        Example("d", x.question_id, x.query, x.negatives[:1], x.positives) for x in examples
    ]
    first = run(encoder, corpus, examples, side="query").encoder
    assert first.passage_side == encoder.fingerprint != first.fingerprint
    Index.open(tmp_path / "index", first, corpus)
    # A second training goes on from the first; the passages stay those of the untouched encoder.
    with pytest.raises(MismatchError, match="passage_encoder"):
        run(first, corpus, examples, side="query")
    second = run(first, corpus, examples, side="query", passage_encoder=encoder).encoder
    assert second.passage_side == encoder.fingerprint != second.fingerprint
    whole = run(first, corpus, examples).encoder
    assert whole.passage_side == whole.fingerprint

    def found(retriever: DenseRetriever) -> float:
        hits = retriever.search([x.query for x in examples], 1)
        right = [h[0].passage.id in x.positives for h, x in zip(hits, examples, strict=True)]
        return sum(right) / len(examples)

    before = DenseRetriever(encoder, index, corpus)
    assert found(DenseRetriever(second, index, corpus)) > found(before)
    fitted = before.fit(examples, side="query", epochs=1, learning_rate=1e-3, progress=False)
    assert fitted.index is index
    assert fitted.encoder.passage_side == encoder.fingerprint


def test_low_rank_adapters_are_merged_and_few_weights_learn(
    encoder: Encoder, corpus: Corpus, examples: list[Example], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    result = run(encoder, corpus, examples, tmp_path, lora_rank=1)
    assert weights(result.encoder).keys() == weights(encoder).keys()
    assert torch.equal(
        weights(result.encoder)["embeddings.word_embeddings.weight"],
        weights(encoder)["embeddings.word_embeddings.weight"],
    )
    changed = weights(result.encoder)["encoder.layer.0.output.dense.weight"]
    difference = changed - weights(encoder)["encoder.layer.0.output.dense.weight"]
    assert int(torch.linalg.matrix_rank(difference, atol=1e-6)) == 1
    result.encoder.save(tmp_path / "model")
    assert Encoder.load(str(tmp_path / "model")).fingerprint == result.encoder.fingerprint


def test_adapters_without_peft_are_refused(
    encoder: Encoder, corpus: Corpus, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match="peft is not installed"):
        run(encoder, corpus, examples, lora_rank=2)


def test_the_best_weights_on_dev_are_kept(
    encoder: Encoder, corpus: Corpus, examples: list[Example]
) -> None:
    # Trained away from what dev asks: its positives are others' negatives.
    away = [Example("d", x.question_id, x.query, x.positives, x.negatives) for x in examples]
    last = run(encoder, corpus, away, evaluations=3, dev_k=1)
    best = run(encoder, corpus, away, evaluations=3, dev_k=1, keep="best")
    assert last.dev == best.dev
    scores = [(row["hit"], row["mrr"]) for row in best.dev]
    assert [row["step"] for row in best.dev] == [0, *range(1, 10)]
    assert best.step == best.dev[scores.index(max(scores))]["step"]
    assert last.step == 9
    again = run(best.encoder, corpus, away, evaluations=1, dev_k=1)
    assert (again.dev[0]["hit"], again.dev[0]["mrr"]) == pytest.approx(max(scores), abs=1e-6)


def test_training_stops_when_dev_does_not_get_better(
    encoder: Encoder, corpus: Corpus, examples: list[Example]
) -> None:
    result = run(encoder, corpus, examples, evaluations=1, patience=1, learning_rate=1e-9)
    assert len(result.curve) == 3  # one epoch of three
    assert [row["step"] for row in result.dev] == [0, 3]


def test_measuring_changes_no_weight(
    encoder: Encoder, corpus: Corpus, examples: list[Example]
) -> None:
    watched = run(encoder, corpus, examples, evaluations=2)
    assert watched.dev and close(watched.encoder, run(encoder, corpus, examples).encoder, 0)


def test_fresh_negatives_are_used_from_the_epoch_they_were_mined_for(
    encoder: Encoder, corpus: Corpus, examples: list[Example]
) -> None:
    plain = run(encoder, corpus, examples)
    fresh = run(encoder, corpus, examples, refresh=1, refresh_margin=1.0)
    assert [x["loss"] for x in fresh.curve[:3]] == [x["loss"] for x in plain.curve[:3]]
    assert sum(x["passages"] for x in fresh.curve) > sum(x["passages"] for x in plain.curve)


def test_half_precision_weights_are_trained_in_full_precision(
    encoder: Encoder, corpus: Corpus, examples: list[Example], tmp_path: Path
) -> None:
    # Faults C45: an update of 1e-6 of a weight is lost where the weight itself is bf16.
    encoder.save(tmp_path)
    encoder.copy().model.to(torch.bfloat16).save_pretrained(tmp_path)
    (tmp_path / SEAL_FILE).unlink()
    half = Encoder.load(str(tmp_path))
    result = run(half, corpus, examples, learning_rate=1e-6, precision="bf16")
    trained = weights(result.encoder)
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    name = "encoder.layer.0.output.dense.weight"
    assert not torch.equal(trained[name], weights(half)[name])
    same = trained[name].to(torch.bfloat16) == weights(half)[name].to(torch.bfloat16)
    assert same.float().mean() > 0.5  # what half-precision weights would not have learned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "listwise-kl"}, "none of the 7 examples has any"),
        ({"loss": "rank-net"}, "none of the 7 examples has any"),
    ],
)
def test_graded_losses_without_grades_are_refused(
    encoder: Encoder, corpus: Corpus, examples: list[Example], options: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(encoder, corpus, examples, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "best"}, "evaluations: got 0"),
        ({"patience": 2}, "evaluations: got 0"),
        ({"recipe": "upstream", "loss": "multi-positive"}, 'with recipe "upstream"'),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    encoder: Encoder, corpus: Corpus, examples: list[Example], options: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(encoder, corpus, examples, **options)


def test_the_best_cannot_be_kept_without_anything_to_measure_on(
    encoder: Encoder, corpus: Corpus, examples: list[Example]
) -> None:
    settings = msgspec.structs.replace(SETTINGS, keep="best", evaluations=1)
    with pytest.raises(ConfigError, match="need dev measurements"):
        train(encoder, corpus, examples, settings, 0, progress=False)
