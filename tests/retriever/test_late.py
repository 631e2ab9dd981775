from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from agentic_r.errors import ConfigError, MissingExtraError
from agentic_r.retriever.late import LateInteraction, is_late
from agentic_r.retriever.rerank import RerankedRetriever
from agentic_r.testing import TableRetriever
from agentic_r.types import Passage

library = pytest.importorskip("sentence_transformers")

PAIRS = [
    ("where was kavron born", "kavron was born in the city"),
    ("where was kavron born", "oskar runs the firm"),
    ("who runs the firm", "oskar runs the firm"),
    ("where was kavron born", "oskar runs the firm"),
]


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A late-interaction model of random weights over the tiny encoder."""
    target = tmp_path_factory.mktemp("late")
    torch.manual_seed(0)
    library.MultiVectorEncoder(str(checkpoint), device="cpu").save(str(target))
    return target


def test_it_is_known_by_its_own_files(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert is_late(folder)
    assert not is_late(checkpoint)
    assert not is_late(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["HF_ColBERT"]}))
    assert is_late(tmp_path)


def test_scores_are_sums_of_best_products(folder: Path) -> None:
    scores = LateInteraction(folder).scores(PAIRS)
    model = library.MultiVectorEncoder(str(folder))
    for (query, text), score in zip(PAIRS, scores, strict=True):
        asked, read = model.encode_query(query), model.encode_document(text)
        assert score == pytest.approx(float((asked @ read.T).max(1).values.sum()), abs=1e-4)
    assert scores[1] == scores[3]
    assert LateInteraction(folder).scores([]) == []
    assert len(LateInteraction(folder).scores([("\ud800", "kavron")])) == 1


def test_it_ranks_anew(folder: Path) -> None:
    model = LateInteraction(folder)
    passages = [Passage(str(n), text) for n, (_, text) in enumerate(PAIRS[:2])]
    query = PAIRS[0][0]
    inner = TableRetriever({query: passages})
    found = RerankedRetriever(inner, model, depth=2).search([query], 2)[0]
    expected = dict(zip(["0", "1"], model.scores(PAIRS[:2]), strict=True))
    assert [hit.passage.id for hit in found] == sorted(expected, key=lambda id: -expected[id])


def test_what_is_no_such_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected a late-interaction model"):
        LateInteraction(tmp_path)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match="late"):
        LateInteraction(tmp_path)
