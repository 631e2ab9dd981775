from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from agentic_r.retriever import product
from agentic_r.retriever.product import Product


@pytest.mark.parametrize("queries", [1, 4, 5, 64])
@pytest.mark.parametrize("block", [7 * 64, 4 << 20])
@pytest.mark.parametrize("k", [1, 10, 500])
def test_it_finds_what_faiss_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queries: int, block: int, k: int
) -> None:
    monkeypatch.setattr(product, "_SCORES", block)
    draw = np.random.default_rng(queries)
    rows = draw.standard_normal((500, 24), np.float32)
    wanted = draw.standard_normal((queries, 24), np.float32)
    index = faiss.IndexFlatIP(24)
    index.add(rows)
    faiss.write_index(index, str(tmp_path / "x.faiss"))
    mapped = faiss.read_index(str(tmp_path / "x.faiss"), faiss.IO_FLAG_MMAP_IFC)
    scores, places = Product(mapped).search(wanted, k)
    expected = index.search(wanted, k)
    np.testing.assert_allclose(scores, expected[0], rtol=1e-5, atol=1e-5)
    own = np.take_along_axis(wanted @ rows.T, places, 1)  # near ties may change places
    np.testing.assert_allclose(scores, own, rtol=1e-5, atol=1e-5)
    assert all(len(set(each)) == k for each in places.tolist())
