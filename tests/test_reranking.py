"""What the loop says of a re-ranker, and how a weight of 0 is named where it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_r.config import load_config
from agentic_r.finding import reranked_name, reranker_weight
from agentic_r.io import write_jsonl
from agentic_r.reranking import WEIGHTS_FILE, weighed
from agentic_r.retriever.blend import Weighed
from agentic_r.retriever.cross import CrossEncoder


@pytest.mark.parametrize(
    ("hits", "said"),
    [
        (
            (0.5, 0.75, 0.25),
            "dev hit@2 0.750 with weight 0.5 of 1; 0.500 of the retriever",
        ),
        ((0.5, 0.5, 0.25), "It finds no more, so it is not used: train it longer"),
        ((), "weight 0.5 of 1, as no search of a dev question has a passage to find"),
    ],
)
def test_what_it_adds_is_said(tmp_path: Path, hits: tuple[float, ...], said: str) -> None:
    rows = [Weighed(n / 2, hit, hit) for n, hit in enumerate(hits)]
    write_jsonl(tmp_path / WEIGHTS_FILE, rows)
    assert said in weighed(tmp_path, 2)


@pytest.mark.parametrize(
    ("own", "given", "weight", "name"),
    [
        (0.3, "0", 0.3, ", reranked"),
        (0.0, "0", 0.0, ", re-ranker of weight 0"),
        (0.0, "0.7", 0.7, ", reranked"),
    ],
)
def test_the_config_comes_before_the_rerankers_own_weight(
    tmp_path: Path, own: float, given: str, weight: float, name: str
) -> None:
    CrossEncoder.load("all-MiniLM-L6-v2", 40).save(tmp_path / "model", weight=own)
    path = tmp_path / "config.toml"
    path.write_text("")
    changes = [("retriever.rerank.model", str(tmp_path / "model"))]
    config = load_config(path, [*changes, ("retriever.rerank.weight", given)])
    assert (reranker_weight(config), reranked_name(config)) == (weight, name)
    assert reranked_name(load_config(path)) == ""
