"""Ray Data on a cluster of this machine alone: the bytes are those of one process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import agentic_r
from agentic_r.data.corpus import Corpus
from agentic_r.errors import MissingExtraError, RunError
from agentic_r.retriever.build import Shards, encode_corpus
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.index import INDEX_FILE
from tests.runs import write_config

RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray here")

PROGRAM = """
import json, sys
from pathlib import Path
import msgspec, ray
from agentic_r.data import corpus as corpora
from agentic_r.errors import AgenticRError
from agentic_r.retriever.build import Shards, encode_corpus
from agentic_r.retriever.encoder import Encoder
from agentic_r.types import Passage

checkpoint, folder = sys.argv[1], Path(sys.argv[2])
encoder = Encoder.load(checkpoint, 32, batch_tokens=256)
texts = [f"kavron {'runs the firm ' * (n % 9)} telmi" for n in range(300)]
passages = [Passage(f"d{n}", text) for n, text in enumerate(texts)]
path = folder / "corpus.jsonl"
lines = [json.dumps({"id": p.id, "text": p.text}) for p in passages]
path.write_text("".join(f"{line}\\n" for line in lines))
corpora.SMALL = 0
large, held = corpora.Corpus.load(path), corpora.Corpus(passages)
found = {}

def encoded(name, corpus, scale, vectors="fp32"):
    shards = Shards(folder / name / "passages.faiss", encoder, corpus, vectors, "fp32", 70)
    if scale == "resumed":
        shards.begin()
        shards.write(1)
        shards.write(4)
    encode_corpus(shards, 2, scale="local" if scale == "local" else "ray")
    return shards.file.path.read_bytes()

one = encoded("one", large, "local")
found["file"] = encoded("file", large, "ray") == one
found["memory"] = encoded("memory", held, "ray") == one
found["resumed"] = encoded("resumed", large, "resumed") == one
found["half"] = encoded("half", held, "ray", "fp16") == encoded("half1", held, "local", "fp16")
found["ended"] = not ray.is_initialized()
bad = Shards(folder / "bad" / "passages.faiss", encoder, large, "fp32", "fp32", 70)
bad.plan = msgspec.structs.replace(bad.plan, engine="an engine that no other has")
try:
    encode_corpus(bad, 1, scale="ray")
except AgenticRError as error:
    found["bad"] = str(error)
path.write_text("".join(f"{line}\\n" for line in lines[:-1]))
gone = Shards(folder / "gone" / "passages.faiss", encoder, large, "fp32", "fp32", 70)
try:
    encode_corpus(gone, 1, scale="ray")
except AgenticRError as error:
    found["gone"] = str(error)
print(json.dumps(found))
"""


def environment() -> dict[str, str]:
    source = str(Path(agentic_r.__file__).parents[1])
    return os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}


def test_without_ray_it_is_said_what_to_install(
    encoder: Encoder, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    shards = Shards(tmp_path / "x" / INDEX_FILE, encoder, corpus, "fp32", "fp32")
    with pytest.raises(MissingExtraError, match=r"agentic-r\[ray\]"):
        encode_corpus(shards, scale="ray")


@RAY
@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "[::1]:99999"])
def test_a_cluster_that_is_away_is_told_at_once(
    address: str, encoder: Encoder, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    shards = Shards(tmp_path / "x" / INDEX_FILE, encoder, corpus, "fp32", "fp32")
    with pytest.raises(RunError, match=r"RAY_ADDRESS: nothing answers at.*ray start --head"):
        encode_corpus(shards, scale="ray")


@RAY
@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(checkpoint), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("file", "memory", "resumed", "half", "ended"):
        assert found[name] is True, name
    assert found["bad"].startswith("Ray: ")
    assert "expected an engine that no other has" in found["bad"]
    assert "corpus: got" in found["gone"]
    for said in (found["bad"], found["gone"]):
        assert "\n" not in said
        assert "goes on from the finished shards" in said


@RAY
@pytest.mark.slow
def test_the_command_line_encodes_on_a_cluster(tmp_path: Path) -> None:
    config = write_config(tmp_path, runs=tmp_path / "runs")
    command = [sys.executable, "-m", "agentic_r.cli", "index", str(config)]
    said = []
    for name, flags in (("one", []), ("two", ["--scale", "ray"])):
        done = subprocess.run(
            [*command, "--name", name, *flags],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.replace(f"runs/{name}", "runs/NAME"))
    assert said[0] == said[1]
    files = [tmp_path / "runs" / n / "base" / "index" / "index" for n in ("one", "two")]
    for name in (INDEX_FILE, "index.json"):
        assert (files[0] / name).read_bytes() == (files[1] / name).read_bytes()
