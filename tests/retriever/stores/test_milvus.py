from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import agentic_r
from agentic_r.errors import MissingExtraError, OutageError
from agentic_r.retriever.stores.milvus import PLAIN, MilvusStore

pytest.importorskip("pymilvus")


def test_failures_are_one_line_with_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("http://127.0.0.1:9", str(tmp_path / "folder")):
        with pytest.raises(OutageError, match=f"Milvus at {url}: ") as caught:
            MilvusStore(url, timeout=1)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtraError, match=r"agentic-r\[milvus\]"):
        MilvusStore(str(tmp_path / "x.db"))


FIND = """
import sys
import numpy as np
from agentic_r.retriever.stores.milvus import MilvusStore
store = MilvusStore(sys.argv[1])
row = np.eye(8, dtype=np.float32)[3:4]
print(store.count("a"), store.search("a", row, 1)[1][0, 0], store.search("now", row, 1)[1][0, 0])
store.close()
"""


def test_another_process_finds_what_a_file_keeps(tmp_path: Path) -> None:
    store = MilvusStore(str(tmp_path / "x.db"))
    store.create("a", 8)
    store.add("a", 0, np.eye(8, dtype=np.float32), [f"p{n}" for n in range(8)])
    store.finish("a")
    store.point({"now": "a"})
    store.close()
    source = str(Path(agentic_r.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", FIND, str(tmp_path / "x.db")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": source},
    )
    assert done.stdout.split() == ["8", "3", "3"], done.stderr


@pytest.mark.server
def test_a_large_version_has_a_graph_and_finds_what_it_should(milvus_url: str) -> None:
    store = MilvusStore(milvus_url)
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((PLAIN + 1, 16), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store.create("large", 16)
    for start in range(0, len(vectors), 4096):
        part = vectors[start : start + 4096]
        store.add("large", start, part, [str(start + at) for at in range(len(part))])
    store.finish("large")
    assert store.count("large") == len(vectors)
    found = store.search("large", vectors[:1500:10], 10)[1]
    exact = np.argsort(-(vectors[:1500:10] @ vectors.T), axis=1)[:, :10]
    hits = [len(set(a) & set(b)) for a, b in zip(found, exact, strict=True)]
    assert np.mean(hits) >= 9.5
    store.drop("large")
    store.close()


@pytest.mark.server
def test_what_takes_too_long_is_told(milvus_url: str) -> None:
    store = MilvusStore(milvus_url, build_timeout=0.001)
    store.create("slow", 8)
    store.add("slow", 0, np.ones((3, 8), np.float32), ["x", "y", "z"])
    with pytest.raises(OutageError, match=r"slow is not ready after 0.001 s.*build_timeout"):
        store.finish("slow")
    store.drop("slow")
    store.close()
