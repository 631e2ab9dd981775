from __future__ import annotations

import random
from pathlib import Path

import faiss
import numpy as np
import pytest

from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError, DataError, MismatchError
from agentic_r.retriever.dense import DenseRetriever
from agentic_r.retriever.encoder import Encoder, Vectors
from agentic_r.retriever.imported import import_index
from agentic_r.retriever.index import INDEX_FILE, verify
from agentic_r.types import Passage

from .conftest import NAMES, WORDS, make_checkpoint

CORPUS = Corpus(
    [
        Passage(f"p{n}", " ".join(random.Random(n).choices([*NAMES, *WORDS], k=14)), NAMES[n % 8])
        for n in range(300)
    ]
)


def vectors(encoder: Encoder, corpus: Corpus = CORPUS) -> Vectors:
    """What FlashRAG would have stored: contents as the corpus file has them."""
    return encoder.encode([f'"{p.title}"\n{p.text}' for p in corpus], "passage")


def written(path: Path, rows: Vectors, factory: str = "Flat") -> Path:
    index = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    faiss.write_index(index, str(path))
    return path


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF4,Flat", "SQfp16"])
def test_an_index_opens_and_searches_as_it_did(
    encoder: Encoder, tmp_path: Path, factory: str
) -> None:
    path = written(tmp_path / "e5_Flat.index", vectors(encoder), factory)
    probes = 4 if factory.startswith("IVF") else 0
    made = import_index(path, encoder, CORPUS, tmp_path / "index", probes)
    assert made.fit.found > 0.95
    retriever = DenseRetriever.open(encoder, CORPUS, tmp_path / "index")
    queries = [p.contents for p in CORPUS][:20]
    index = faiss.read_index(str(path))
    if probes:
        index.nprobe = probes
    scores, rows = index.search(encoder.encode(queries, "query"), 5)
    for at, hits in enumerate(retriever.search(queries, 5)):
        assert [hit.score for hit in hits] == pytest.approx(scores[at], abs=1e-5)
        assert len({hit.passage.id for hit in hits} & {f"p{r}" for r in rows[at]}) >= 4
    assert verify(tmp_path / "index").corpus == CORPUS.digest


def test_other_rows_are_refused_with_the_shift(encoder: Encoder, tmp_path: Path) -> None:
    path = written(tmp_path / "f.index", np.roll(vectors(encoder), 3, axis=0))
    with pytest.raises(MismatchError, match=r"\+3 rows off"):
        import_index(path, encoder, CORPUS, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_other_conventions_are_refused_and_named(tmp_path: Path) -> None:
    checkpoint = str(make_checkpoint(tmp_path / "encoder"))
    built = Encoder.load(checkpoint, 32, changes={"pooling": "cls", "passage_prefix": "passage: "})
    path = written(tmp_path / "f.index", vectors(built))
    given = Encoder.load(checkpoint, 32)
    with pytest.raises(MismatchError, match="--pooling cls --passage-prefix 'passage: '"):
        import_index(path, given, CORPUS, tmp_path / "index")
    assert import_index(path, built, CORPUS, tmp_path / "index").fit.cosine == pytest.approx(1)


def test_another_encoder_or_order_without_a_remedy(encoder: Encoder, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(len(CORPUS))
    path = written(tmp_path / "f.index", vectors(encoder)[order])
    with pytest.raises(MismatchError, match="name the corpus and encoder"):
        import_index(path, encoder, CORPUS, tmp_path / "index")


def test_what_cannot_be_taken_over(encoder: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    rows = vectors(encoder)
    path = written(tmp_path / "f.index", rows)
    with pytest.raises(MismatchError, match=r"300 vectors, expected 16"):
        import_index(path, encoder, corpus, tmp_path / "index")
    with pytest.raises(MismatchError, match="8 numbers, expected 32"):
        import_index(
            written(tmp_path / "g.index", np.ascontiguousarray(rows[:, :8])),
            encoder,
            CORPUS,
            tmp_path / "index",
        )
    distances = faiss.IndexFlatL2(32)
    distances.add(rows)
    faiss.write_index(distances, str(tmp_path / "l2.index"))
    with pytest.raises(MismatchError, match="distances"):
        import_index(tmp_path / "l2.index", encoder, CORPUS, tmp_path / "index")
    own = faiss.IndexIDMap(faiss.IndexFlatIP(32))
    own.add_with_ids(rows, np.arange(300)[::-1].copy())
    faiss.write_index(own, str(tmp_path / "ids.index"))
    with pytest.raises(MismatchError, match="ids of its own"):
        import_index(tmp_path / "ids.index", encoder, CORPUS, tmp_path / "index")
    (tmp_path / "bad.index").write_bytes(b"no index at all")
    with pytest.raises(DataError, match="FAISS cannot open"):
        import_index(tmp_path / "bad.index", encoder, CORPUS, tmp_path / "index")
    with pytest.raises(DataError, match="no such file"):
        import_index(tmp_path / "gone.index", encoder, CORPUS, tmp_path / "index")
    import_index(path, encoder, CORPUS, tmp_path / "index")
    with pytest.raises(ConfigError, match="holds an index"):
        import_index(path, encoder, CORPUS, tmp_path / "index")


def test_a_file_changed_later_is_noticed(encoder: Encoder, tmp_path: Path) -> None:
    path = written(tmp_path / "f.index", vectors(encoder))
    import_index(path, encoder, CORPUS, tmp_path / "index")
    with path.open("r+b") as file:  # the index folder holds a link to this very file
        file.seek(2000)
        file.write(b"\xff\xff")
    with pytest.raises(DataError, match=INDEX_FILE):
        verify(tmp_path / "index")
