from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from agentic_r.errors import ConfigError
from agentic_r.retriever.blend import blended
from agentic_r.retriever.cross import CrossEncoder
from agentic_r.retriever.rerank import RerankedRetriever
from agentic_r.types import Hit, Passage

from .conftest import NAMES, make_checkpoint


def make_cross_encoder(folder: Path, seed: int = 0) -> Path:
    """A tiny cross-encoder with random weights; the tokenizer is the tiny encoder's."""
    make_checkpoint(folder)
    torch.manual_seed(seed)
    config = BertConfig.from_pretrained(folder, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cross_encoder(tmp_path_factory.mktemp("cross"))


class Names:
    def search(self, queries: list[str], k: int) -> list[list[Hit]]:
        hits = [Hit(Passage(name, f"{name} was born", name), -n) for n, name in enumerate(NAMES)]
        return [hits[:k] for _ in queries]


def test_scores_are_the_models_own_in_any_batch(model: Path) -> None:
    pairs = [("where", " ".join(NAMES[: n + 1])) for n in range(8)] * 2
    cross = CrossEncoder.open(str(model), 64)
    found = cross.scores(pairs)
    assert found[:8] == pytest.approx(found[8:], abs=1e-5)
    plain = BertForSequenceClassification.from_pretrained(model).eval()
    for pair, score in zip(pairs[:8], found, strict=False):
        with torch.inference_mode():
            ids = cross.tokenizer(*pair, return_tensors="pt")
            assert float(plain(**ids).logits) == pytest.approx(score, abs=1e-5)
    assert CrossEncoder.open(str(model), 64, batch_tokens=1).scores(pairs) == pytest.approx(
        found, abs=1e-5
    )
    assert cross.scores([]) == []
    assert len(cross.scores([("\ud800", "kavron " * 500)])) == 1


def test_the_best_are_ranked_anew(model: Path) -> None:
    cross = CrossEncoder.open(str(model), 64)
    found = RerankedRetriever(Names(), cross, depth=6).search(["who", "who", "which city"], 3)
    assert found[0] == found[1]
    pairs = [("who", f"{name}\n{name} was born") for name in NAMES[:6]]
    scores = dict(zip(NAMES[:6], cross.scores(pairs), strict=True))
    best = sorted(scores, key=lambda name: -scores[name])[:3]
    assert [hit.passage.id for hit in found[0]] == best
    assert len(RerankedRetriever(Names(), cross, depth=2).search(["who"], 5)[0]) == 5
    with pytest.raises(ConfigError, match="k = 0"):
        RerankedRetriever(Names(), cross).search(["who"], 0)


def test_with_a_weight_the_retrievers_order_counts_too(model: Path) -> None:
    cross = CrossEncoder.open(str(model), 64)
    plain = Names().search(["who"], 6)[0]
    assert RerankedRetriever(Names(), cross, depth=6, weight=0.0).search(["who"], 3) == [plain[:3]]
    found = RerankedRetriever(Names(), cross, depth=6, weight=0.4).search(["who"], 6)[0]
    again = cross.scores([("who", hit.passage.contents) for hit in plain])
    mixed = blended([hit.score for hit in plain], again, 0.4)
    assert [hit.score for hit in found] == sorted(mixed, reverse=True)
    names = [hit.passage.id for hit in plain]
    assert {hit.passage.id: hit.score for hit in found} == dict(zip(names, mixed, strict=True))


def test_what_is_no_cross_encoder_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rerank\.model.*expected a cross-encoder"):
        CrossEncoder.open(str(tmp_path))
    folder = make_checkpoint(tmp_path / "two")
    BertForSequenceClassification(BertConfig.from_pretrained(folder)).save_pretrained(folder)
    with pytest.raises(ConfigError, match="2 outputs, expected 1"):
        CrossEncoder.open(str(folder))
