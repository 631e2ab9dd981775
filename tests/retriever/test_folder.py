from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agentic_r.data.corpus import Corpus
from agentic_r.errors import MismatchError
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.index import Index
from agentic_r.retriever.sealed import SEAL_FILE

from .conftest import NAMES, WORDS, make_checkpoint

TEXTS = [" ".join([*NAMES, *WORDS][i : i + 1 + 3 * (i % 7)]) for i in range(14)]


def prefixed(encoder: Encoder, **changes: object) -> Encoder:
    settings = msgspec.structs.replace(
        encoder.settings, query_prefix="who ", passage_prefix="the film ", **changes
    )
    return Encoder(encoder.model, encoder.tokenizer, settings)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_sentence_transformers_gives_the_same_vectors(
    checkpoint: Path, tmp_path: Path, pooling: str
) -> None:
    transformers = pytest.importorskip("sentence_transformers")
    plain = Encoder.load(str(checkpoint), 12)
    saved = prefixed(plain, pooling=pooling)
    saved.save(tmp_path)
    model = transformers.SentenceTransformer(str(tmp_path), device="cpu")
    assert model.max_seq_length == 12
    np.testing.assert_allclose(model.encode_query(TEXTS), saved.encode(TEXTS, "query"), atol=1e-5)
    np.testing.assert_allclose(
        model.encode_document(TEXTS), saved.encode(TEXTS, "passage"), atol=1e-5
    )
    named = model.encode(TEXTS, prompt_name="passage")
    np.testing.assert_allclose(named, saved.encode(TEXTS, "passage"), atol=1e-5)
    assert not np.allclose(model.encode_query(TEXTS), model.encode_document(TEXTS), atol=1e-3)


@pytest.mark.slow
def test_a_real_encoder_comes_out_as_it_went_in(minilm: Encoder, tmp_path: Path) -> None:
    transformers = pytest.importorskip("sentence_transformers")
    minilm.save(tmp_path)
    model = transformers.SentenceTransformer(str(tmp_path), device="cpu")
    texts = ["Who directed the film?", "A long text. " * 90, "naïve — Ærø\n\nšć", ""]
    np.testing.assert_allclose(model.encode_query(texts), minilm.encode(texts, "query"), atol=1e-5)
    assert model.similarity_fn_name == "cosine"


def test_what_sentence_transformers_saved_goes_in(checkpoint: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("sentence_transformers")
    first = prefixed(Encoder.load(str(checkpoint), 12))
    first.save(tmp_path / "ours")
    model = transformers.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    model.save(str(tmp_path / "theirs"))
    loaded = Encoder.load(str(tmp_path / "theirs"), 12)
    assert loaded.settings.query_prefix == "who "
    assert loaded.settings.passage_prefix == "the film "
    np.testing.assert_allclose(
        loaded.encode(TEXTS, "passage"), first.encode(TEXTS, "passage"), atol=1e-6
    )


def test_the_folder_can_be_read_by_others_and_says_what_it_is(
    encoder: Encoder, tmp_path: Path
) -> None:
    prefixed(encoder).save(tmp_path, ["loss: info-nce", "examples: 7"])
    assert all(f.stat().st_mode & 0o044 == 0o044 for f in tmp_path.rglob("*") if f.is_file())
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: sentence-transformers\n")
    assert "- loss: info-nce\n- examples: 7\n" in card
    assert "prompt of queries: 'who '" in card
    # A card is published: it names the encoder, not the place where it lay.
    assert str(Path(encoder.settings.base).parent) not in card
    kinds = [
        m["type"].rpartition(".")[2] for m in json.loads((tmp_path / "modules.json").read_text())
    ]
    assert kinds == ["Transformer", "Pooling", "Normalize"]


def test_lengths_the_end_token_and_vectors_of_any_length_are_kept(
    checkpoint: Path, tmp_path: Path
) -> None:
    changes = {"normalise": False, "append_eos": True, "query_length": 8, "pooling": "last"}
    first = Encoder.load(str(checkpoint), 32, changes=changes)
    first.tokenizer.eos_token = "[MASK]"
    first.save(tmp_path)
    loaded = Encoder.load(str(tmp_path))
    kept = {name: getattr(loaded.settings, name) for name in changes}
    assert kept == changes
    for kind in ("query", "passage"):
        rows = loaded.encode(TEXTS, kind)
        np.testing.assert_allclose(rows, first.encode(TEXTS, kind), atol=1e-6)
        assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() > 0.1
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert [m["type"].rpartition(".")[2] for m in modules] == ["Transformer", "Pooling"]
    about = json.loads((tmp_path / "config_sentence_transformers.json").read_text())
    assert about["similarity_fn_name"] == "dot"
    card = (tmp_path / "README.md").read_text()
    assert "Text to vectors of" in card and "cosines" not in card
    assert "of queries: 8 tokens" in card and "model.tokenizer.eos_token" in card
    # Without our own file, the others say the same of the vectors.
    for name in ("agentic_r.json", SEAL_FILE):
        (tmp_path / name).unlink()
    assert not Encoder.load(str(tmp_path)).settings.normalise


def test_an_index_fits_the_query_side_that_was_trained_for_it(
    encoder: Encoder, corpus: Corpus, tmp_path: Path
) -> None:
    Index.build(encoder, corpus, tmp_path / "index")
    other = Encoder.load(str(make_checkpoint(tmp_path / "other", seed=1)), 32)
    settings = msgspec.structs.replace(other.settings, trained_for=encoder.fingerprint)
    query_side = Encoder(other.model, other.tokenizer, settings)
    query_side.save(tmp_path / "saved")
    loaded = Encoder.load(str(tmp_path / "saved"))
    assert loaded.fingerprint == query_side.fingerprint != other.fingerprint
    assert len(Index.open(tmp_path / "index", loaded, corpus)) == len(corpus)
    with pytest.raises(MismatchError, match="built with encoder"):
        Index.open(tmp_path / "index", other, corpus)
    with pytest.raises(MismatchError, match="query side alone"):
        Index.build(loaded, corpus)
