from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agentic_r.data import corpus as corpora
from agentic_r.data.corpus import Corpus
from agentic_r.errors import DataError, RunError
from agentic_r.retriever import build
from agentic_r.retriever.build import Shards, encode_corpus
from agentic_r.retriever.codes import open_mapped
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.engine import Engine
from agentic_r.retriever.index import INDEX_FILE, Index
from agentic_r.settings.retriever import IndexConfig

from .conftest import NAMES, WORDS


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus on the disk: 700 passages of all lengths."""
    monkeypatch.setattr(corpora, "SMALL", 0)
    rng = random.Random(0)
    path = tmp_path / "corpus.jsonl"
    texts = [" ".join(rng.choices([*NAMES, *WORDS], k=rng.randint(1, 40))) for _ in range(700)]
    path.write_text("".join(f'{{"id": "d{i}", "contents": "{t}"}}\n' for i, t in enumerate(texts)))
    return path


def test_the_vectors_are_those_of_the_encoder_in_corpus_order(
    encoder: Encoder, file: Path, tmp_path: Path
) -> None:
    corpus = Corpus.load(file)
    shards = Shards(tmp_path / "x" / INDEX_FILE, encoder, corpus, "fp32", "auto", 128)
    encode_corpus(shards)
    found = open_mapped(shards.file.path)
    expected = encoder.encode([p.contents for p in corpus], "passage")
    np.testing.assert_array_equal(found.reconstruct_n(0, 700), expected)
    assert shards.begin() == []  # all done


def test_a_build_goes_on_at_the_last_finished_shard(
    encoder: Encoder, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus.load(file)
    whole = Shards(tmp_path / "whole" / INDEX_FILE, encoder, corpus, "fp32", "fp32", 100)
    encode_corpus(whole)
    cut = Shards(tmp_path / "cut" / INDEX_FILE, encoder, corpus, "fp32", "fp32", 100)
    cut.begin()
    for number in (0, 1, 4):
        cut.write(number)
    # What a kill tears is not trusted: rows of a shard that says it is done are looked at.
    cut.file.rows(130, 131, "r+")[:] = 7
    again = Shards(tmp_path / "cut" / INDEX_FILE, encoder, corpus, "fp32", "fp32", 100)
    assert again.begin() == [1, 2, 3, 5, 6]
    encode_corpus(again)
    assert again.file.path.read_bytes() == whole.file.path.read_bytes()
    other = Shards(tmp_path / "cut" / INDEX_FILE, encoder, corpus, "fp16", "fp32", 100)
    assert len(other.begin()) == 7  # another plan trusts nothing


BUILD = """
import sys
from pathlib import Path
from agentic_r.data import corpus as corpora
from agentic_r.retriever import build
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.index import Index
corpora.SMALL, build.SHARD = 0, 20
build.Shards.__init__.__defaults__ = (20,)
encoder = Encoder.load(sys.argv[1], 32, batch_tokens=256)
Index.build(encoder, corpora.Corpus.load(sys.argv[2]), Path(sys.argv[3]))
print("done")
"""


def test_a_killed_build_ends_with_the_same_bytes(
    checkpoint: Path, file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", BUILD, str(checkpoint), str(file)]
    done = subprocess.run([*command, str(tmp_path / "whole")], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr
    kills = 0
    target = tmp_path / "cut"
    for wanted in (2, 9, 21, 34):
        process = subprocess.Popen([*command, str(target)], stdout=subprocess.PIPE)
        while process.poll() is None and len(list(target.glob("shards/0*.json"))) < wanted:
            time.sleep(0.002)
        process.kill()
        kills += process.wait() == -9
        assert process.stdout is not None
        process.stdout.close()
    assert kills >= 3
    done = subprocess.run([*command, str(target)], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr
    for name in (INDEX_FILE, "index.json"):
        assert (target / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (target / "shards").exists()


def test_several_processes_write_the_same_bytes(
    encoder: Encoder, file: Path, tmp_path: Path
) -> None:
    corpus = Corpus.load(file)
    alone = Shards(tmp_path / "1" / INDEX_FILE, encoder, corpus, "fp32", "fp32", 100)
    encode_corpus(alone)
    shared = Shards(tmp_path / "2" / INDEX_FILE, encoder, corpus, "fp32", "fp32", 100)
    encode_corpus(shared, workers=2, progress="encoding")
    assert shared.file.path.read_bytes() == alone.file.path.read_bytes()


def test_a_failing_worker_is_named(
    encoder: Encoder, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = Shards(tmp_path / "1" / INDEX_FILE, encoder, Corpus.load(file), "fp32", "fp32", 100)
    shards.plan = msgspec.structs.replace(shards.plan, engine="an engine that no other has")
    monkeypatch.setattr(Shards, "begin", lambda self: self.file.path.parent.mkdir() or [0, 1])
    with pytest.raises(RunError, match=r"worker \d of 2 failed.*expected an engine that no"):
        encode_corpus(shards, workers=2)


def test_a_vector_that_is_no_number_names_its_passage(
    encoder: Encoder, file: Path, tmp_path: Path
) -> None:
    shards = Shards(tmp_path / "1" / INDEX_FILE, encoder, Corpus.load(file), "fp32", "fp32", 100)
    shards.begin()

    def forward(ids: object) -> np.ndarray:
        vectors = np.array(encoder.forward(ids).detach().numpy())  # type: ignore[arg-type]
        vectors[1, 3] = np.nan
        return vectors

    shards.engine = Engine("a broken engine", forward)
    with pytest.raises(DataError, match=r"passage 'd\d+' has a vector that is no number"):
        shards.write(0)
    assert shards.done() == []


def test_the_default_is_bounded_and_the_manifest_names_the_engine(
    encoder: Encoder, file: Path, tmp_path: Path
) -> None:
    Index.build(encoder, Corpus.load(file), tmp_path / "x", IndexConfig(precision="bf16"))
    manifest = json.loads((tmp_path / "x" / "index.json").read_text())
    assert manifest["engine"].startswith("bf16")
    assert manifest["passages"]["pooling"] == "mean"
    assert build.SHARD * 768 * 4 <= 64 << 20
