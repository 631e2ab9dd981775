from __future__ import annotations

import random
from pathlib import Path

import faiss
import numpy as np
import pytest

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError
from agentic_r.retriever import kinds
from agentic_r.retriever.codes import CodesFile, empty, open_mapped
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.index import INDEX_FILE, Index, about, read_manifest
from agentic_r.retriever.kinds import LEAST, overlap, recipe
from agentic_r.retriever.known import known_items, known_rows
from agentic_r.settings.retriever import IndexConfig
from agentic_r.types import Passage

from .conftest import NAMES, WORDS


@pytest.fixture(scope="module")
def many() -> Corpus:
    """Some thousand different passages of the tiny encoder's words."""
    rng = random.Random(0)
    texts = {" ".join(rng.choices([*NAMES, *WORDS], k=12)) for _ in range(1500)}
    return Corpus([Passage(f"d{i}", text) for i, text in enumerate(sorted(texts))])


@pytest.mark.parametrize("format", ["fp32", "fp16", "int8"])
def test_codes_written_in_place_are_the_bytes_that_faiss_writes(
    tmp_path: Path, format: str
) -> None:
    rows = np.random.default_rng(0).normal(size=(500, 24)).astype(np.float32)
    made = empty(24, format, rows)  # type: ignore[arg-type]
    file = CodesFile(tmp_path / "a.faiss", made, 500)
    file.create()
    for start, stop in ((200, 500), (0, 200)):
        part = file.rows(start, stop, "r+")
        part[:] = file.encode(rows[start:stop])
        part.flush()
    made.add(rows)
    assert file.path.read_bytes() == faiss.serialize_index(made).tobytes()
    assert open_mapped(file.path).ntotal == 500
    before = file.path.read_bytes()
    file.create()  # what is there and fits is left
    assert file.path.read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "least", "files"),
    [
        (IndexConfig("exact", "fp16"), 0.98, {"passages.faiss"}),
        (IndexConfig("sq8"), 0.95, {"codes.faiss"}),
        (IndexConfig("pq"), 0.5, {"codes.faiss", "rescore.faiss"}),
        (IndexConfig("pq", rescore="exact"), 0.5, {"codes.faiss", "passages.faiss"}),
        (IndexConfig("pq", rescore="none"), 0.02, {"codes.faiss"}),
        (IndexConfig("ivf-pq", probes=16), 0.5, {"codes.faiss", "rescore.faiss"}),
        (IndexConfig("hnsw"), 0.9, {"codes.faiss"}),
        (IndexConfig("IVF16,SQ8", probes=16), 0.95, {"codes.faiss"}),
    ],
    ids=lambda value: f"{value.kind}-{value.rescore}" if isinstance(value, IndexConfig) else "",
)
def test_every_kind_says_how_much_it_finds_of_what_exact_search_finds(
    encoder: Encoder, many: Corpus, tmp_path: Path, settings: IndexConfig, least: float, files: set
) -> None:
    # All vectors of the random encoder point about the same way, which is the worst for codes.
    exact = Index.build(encoder, many)
    index = Index.build(encoder, many, tmp_path, settings)
    queries = encoder.encode(known_items(many), "query")
    found = overlap(index.search(queries, 10)[1], exact.search(queries, 10)[1])
    assert found.recall >= least
    assert {p.name for p in tmp_path.iterdir()} == files | {"index.json"}
    manifest = read_manifest(tmp_path)
    if settings.kind == "exact":
        assert manifest.recall is None
    else:
        assert manifest.recall == pytest.approx(found.recall, abs=1e-6)
        assert manifest.recall_queries == 256
        assert f"recall@10 {found.recall:.3f}" in about(manifest)
    scores, rows = Index.open(tmp_path, encoder, many).search(queries, 10)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert rows.max() < len(many)


def test_an_index_may_find_fewer_and_says_so_with_no_row(encoder: Encoder, many: Corpus) -> None:
    index = Index.build(encoder, many, settings=IndexConfig("IVF64,SQ8", probes=1))
    scores, rows = index.search(encoder.encode(["kavron"], "query"), 600)
    missing = rows[0] < 0
    assert missing.any() and not missing[0]
    assert (~missing).sum() == len(set(rows[0][~missing]))
    assert np.isneginf(scores[0][missing]).all()
    assert not missing[: (~missing).sum()].any()  # they are last


@pytest.mark.parametrize(
    ("kind", "dimension", "count", "expected"),
    [
        ("pq", 32, LEAST - 1, "expected exact below 1,000"),
        ("pq", 34, LEAST, "multiple of 4 or 6"),
        ("flat", 32, LEAST, "'flat'.*expected exact, sq8"),
        ("PQ5", 32, LEAST, "'PQ5'"),
    ],
)
def test_what_cannot_be_built_is_refused(
    kind: str, dimension: int, count: int, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        recipe(IndexConfig(kind), dimension, count)


def test_recipes_fit_the_size() -> None:
    assert recipe(IndexConfig(), 384, 5).factory == ""
    small = recipe(IndexConfig("ivf-pq"), 384, 10_000)
    assert (small.factory, small.probes) == ("IVF256,PQ64x4fs", 32)
    wiki = recipe(IndexConfig("ivf-pq"), 768, 21_000_000)
    assert (wiki.factory, wiki.probes) == ("IVF16384_HNSW32,PQ128x4fs", 2048)
    assert recipe(IndexConfig("pq"), 1024, 10**6).factory == "PQ256x4fs"
    assert recipe(IndexConfig("pq", rescore="exact", candidates=7), 384, 10**6).candidates == 7


@pytest.mark.parametrize("kind", ["exact", "sq8", "pq"])
def test_every_passage_stands_in_one_row_with_a_vector_of_unit_length(
    encoder: Encoder, many: Corpus, tmp_path: Path, kind: str
) -> None:
    index = Index.build(encoder, many, tmp_path, IndexConfig(kind, rescore="exact"))
    rows = index.search(encoder.encode(["oskar runs the firm", "kavron"], "query"), len(many))[1]
    for found in rows:
        assert sorted(found) == list(range(len(many)))
    if kind != "sq8":
        vectors = open_mapped(tmp_path / INDEX_FILE).reconstruct_n(0, len(many))
        norms = np.linalg.norm(vectors, axis=1)
        assert (abs(norms - 1) < 1e-3).all()


def test_known_items_are_cut_from_their_passages(many: Corpus) -> None:
    items, rows = known_items(many, 20), known_rows(many, 20)
    assert len(items) == len(set(rows)) == 20
    assert all(item in many[row].contents for item, row in zip(items, rows, strict=True))
    assert all(len(item.split()) == 8 for item in items)
    assert known_items(Corpus([Passage("a", "x")])) == ["x"]


def test_a_fp16_file_is_half_as_large(encoder: Encoder, many: Corpus, tmp_path: Path) -> None:
    Index.build(encoder, many, tmp_path / "a")
    Index.build(encoder, many, tmp_path / "b", IndexConfig("exact", "fp16"))
    a, b = ((tmp_path / name / INDEX_FILE).stat().st_size for name in "ab")
    assert 0.49 < b / a < 0.51


@pytest.mark.parametrize("rescore", ["int8", "exact"])
def test_codes_scored_again_find_nearly_all_of_vectors_that_differ(
    tmp_path: Path, rescore: str
) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(3000, 64)) + 2 * rng.normal(size=(60, 64)).repeat(50, 0)).astype("f4")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    exact = empty(64, "fp32")
    exact.add(rows)
    made = recipe(IndexConfig("pq", rescore=rescore), 64, 3000)  # type: ignore[arg-type]
    kinds.build(tmp_path, made, exact)
    again = exact if rescore == "exact" else open_mapped(tmp_path / kinds.RESCORE_FILE)
    index = kinds.assembled(made, open_mapped(tmp_path / kinds.CODES_FILE), again)
    queries = rows[::30] + 0.02 * rng.normal(size=(100, 64)).astype("f4")
    found = overlap(index.search(queries, 10)[1], exact.search(queries, 10)[1])
    assert found.recall >= 0.97
