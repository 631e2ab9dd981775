from __future__ import annotations

from pathlib import Path

import pytest

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError
from agentic_r.retriever import dense
from agentic_r.retriever.dense import DenseRetriever
from agentic_r.retriever.encoder import Encoder
from agentic_r.types import Example, Hit

from .conftest import NAMES


@pytest.fixture
def retriever(encoder: Encoder, corpus: Corpus) -> DenseRetriever:
    return DenseRetriever.build(encoder, corpus, progress=False)


def test_hits_are_passages_best_first(retriever: DenseRetriever, corpus: Corpus) -> None:
    queries = ["kavron was born in the city", "telmi runs the firm", "kavron was born in the city"]
    found = retriever.search(queries, 3)
    assert [len(hits) for hits in found] == [3, 3, 3]
    assert found[0] == found[2]
    assert all(hit.passage in corpus for hits in found for hit in hits)
    for hits in found:
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(retriever.search(["kavron"], 99)[0]) == len(corpus)
    assert retriever.search([], 3) == []
    with pytest.raises(ConfigError, match="k = 0"):
        retriever.search(["kavron"], 0)


def test_a_repeated_query_is_not_encoded_again(
    retriever: DenseRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    original = Encoder.encode

    def counting(self: Encoder, texts: list[str], *rest: object) -> object:
        encoded.extend(texts)
        return original(self, texts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "encode", counting)
    monkeypatch.setattr(dense, "_REMEMBERED", 3)
    first = retriever.search(["kavron", "telmi", "kavron"], 2)
    assert encoded == ["kavron", "telmi"]
    assert retriever.search(["telmi", "oskar"], 2)[0] == first[1]
    assert encoded == ["kavron", "telmi", "oskar"]
    retriever.search(["brund"], 2)
    retriever.search(["telmi", "kavron"], 2)
    assert encoded == ["kavron", "telmi", "oskar", "brund", "kavron"]
    many = [f"{a} {b} {c}" for a in NAMES for b in NAMES for c in NAMES]
    assert len(retriever.search(many, 1)) == 512


def test_a_saved_index_gives_the_same_hits(
    encoder: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    built = DenseRetriever.build(encoder, corpus, tmp_path, progress=False)
    opened = DenseRetriever.open(encoder, corpus, tmp_path)
    assert opened.search(["kavron"], 4) == built.search(["kavron"], 4)


def test_fit_gives_another_better_retriever(retriever: DenseRetriever, corpus: Corpus) -> None:
    # The untouched encoder sees the repeated name; the training wants the namesake's firm.
    examples = [
        Example("d", name, f"where was {name} [SEP] {name}", (f"r{i}",), (f"b{i}",))
        for i, name in enumerate(NAMES)
    ]
    queries = [x.query for x in examples]

    def right(found: list[list[Hit]]) -> int:
        return sum(
            hits[0].passage.id == x.positives[0] for x, hits in zip(examples, found, strict=True)
        )

    before = retriever.search(queries, 1)
    better = retriever.fit(
        examples, progress=False, epochs=12, batch=4, learning_rate=3e-3, temperature=0.1
    )
    assert retriever.search(queries, 1) == before
    assert right(better.search(queries, 1)) > right(before) + 3
    assert better.encoder.fingerprint != retriever.encoder.fingerprint


def test_fit_refuses_settings_that_cannot_be(
    retriever: DenseRetriever, examples: list[Example]
) -> None:
    with pytest.raises(ConfigError, match=r"epoch.*epochs"):
        retriever.fit(examples, epoch=1)
    with pytest.raises(ConfigError, match="batch"):
        retriever.fit(examples, batch=0)
