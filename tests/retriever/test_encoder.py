from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agentic_r.errors import ConfigError
from agentic_r.retriever.encoder import Encoder, plan

from .conftest import NAMES, WORDS, make_checkpoint

TEXTS = [" ".join([*NAMES, *WORDS][i : i + 1 + i % 7]) for i in range(14)]


def test_rows_are_unit_float32_in_order(encoder: Encoder) -> None:
    rows = encoder.encode(TEXTS, "passage")
    assert rows.shape == (14, encoder.dimension) == (14, 32)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(rows[[3]], encoder.encode([TEXTS[3]], "passage"))
    assert encoder.encode([], "query").shape == (0, 32)


def test_a_real_encoder_finds_paraphrases_and_agrees_with_itself(minilm: Encoder) -> None:
    texts = ["Who directed the film?", "The movie's director", "Prices of cabbage in Lima", "x"]
    rows = minilm.encode(texts, "query")
    assert rows[0] @ rows[1] > 0.6 > 0.2 > rows[0] @ rows[2]
    alone = np.concatenate([minilm.encode([text], "query") for text in texts])
    # A text has one vector, whatever it is batched with: a resumed run ranks as the first did.
    np.testing.assert_array_equal(rows, alone)


def test_equal_texts_get_equal_vectors(encoder: Encoder) -> None:
    rows = encoder.encode([TEXTS[5], TEXTS[1], TEXTS[5]], "query")
    np.testing.assert_array_equal(rows[0], rows[2])


def test_the_separator_is_one_token(minilm: Encoder) -> None:
    (ids,) = minilm.tokens(["who [SEP] what"], "query")
    assert ids.count(minilm.tokenizer.sep_token_id) == 2


def test_long_and_broken_text_is_encoded(encoder: Encoder) -> None:
    (ids,) = encoder.tokens(["kavron " * 500], "query")
    assert len(ids) == 32
    assert np.isfinite(encoder.encode(["\ud800 kavron", "", " "], "query")).all()


def test_save_and_load_keep_the_fingerprint_and_the_vectors(
    encoder: Encoder, tmp_path: Path
) -> None:
    encoder.save(tmp_path / "saved")
    loaded = Encoder.load(str(tmp_path / "saved"))
    assert loaded.max_length == 32
    assert loaded.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(loaded.encode(TEXTS, "query"), encoder.encode(TEXTS, "query"))
    assert json.loads((tmp_path / "saved" / "agentic_r.json").read_text())["pooling"] == "mean"


def test_the_fingerprint_tells_weights_length_and_pooling_apart(
    encoder: Encoder, checkpoint: Path, tmp_path: Path
) -> None:
    other = Encoder.load(str(make_checkpoint(tmp_path / "other", seed=1)), 32)
    longer = Encoder.load(str(checkpoint), 40)
    first = make_checkpoint(tmp_path / "cls")
    (first / "1_Pooling").mkdir()
    (first / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    cls = Encoder.load(str(first), 32)
    assert cls.settings.pooling == "cls"
    prints = {x.fingerprint for x in (encoder, other, longer, cls)}
    assert len(prints) == 4
    encoder.encode(TEXTS, "query")
    assert Encoder.load(str(checkpoint), 32).fingerprint == encoder.fingerprint


def test_e5_has_prefixes_by_name(tmp_path: Path) -> None:
    encoder = Encoder.load(str(make_checkpoint(tmp_path / "e5-tiny")), 32)
    assert (encoder.settings.query_prefix, encoder.settings.passage_prefix) == (
        "query: ",
        "passage: ",
    )
    ids = encoder.tokens(["kavron"], "query")[0], encoder.tokens(["kavron"], "passage")[0]
    assert all(len(x) > 3 for x in ids)


@pytest.mark.parametrize(
    ("module", "expected"),
    [("sentence_transformers.models.Dense", "'Dense'"), ("a.Pooling", "mean, cls, last")],
)
def test_what_cannot_be_computed_is_refused(tmp_path: Path, module: str, expected: str) -> None:
    folder = make_checkpoint(tmp_path / "odd")
    (folder / "modules.json").write_text(json.dumps([{"type": module, "path": "1_Pooling"}]))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ConfigError, match=expected):
        Encoder.load(str(folder), 32)


def test_what_cannot_be_loaded_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        Encoder.load(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="transformers checkpoint"):
        Encoder.load(str(tmp_path))
    with pytest.raises(ConfigError, match="got 65, expected 3 to 64"):
        Encoder.load(str(checkpoint), 65)


def test_a_file_says_more_than_the_name_and_a_change_more_than_both(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "bge-small-en-v1.5")
    by_name = Encoder.load(str(folder))
    assert by_name.settings.pooling == "cls"
    assert by_name.max_length == 64  # all positions that it has
    (folder / "modules.json").write_text(
        json.dumps([{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "P"}])
    )
    (folder / "P").mkdir()
    (folder / "P" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    (folder / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "q: ", "document": "d: "}, "similarity_fn_name": "dot"}'
    )
    by_file = Encoder.load(str(folder))
    assert (by_file.settings.pooling, by_file.max_length) == ("mean", 20)
    assert (by_file.settings.query_prefix, by_file.settings.passage_prefix) == ("q: ", "d: ")
    assert not by_file.settings.normalise
    changed = Encoder.load(str(folder), changes={"pooling": "last", "normalise": True})
    assert (changed.settings.pooling, changed.settings.normalise) == ("last", True)
    prints = {x.fingerprint for x in (by_name, by_file, changed)}
    assert len(prints) == 3


def test_vectors_that_are_not_normalised_keep_their_length(checkpoint: Path) -> None:
    plain = Encoder.load(str(checkpoint), 32, changes={"normalise": False})
    unit = Encoder.load(str(checkpoint), 32)
    rows = plain.encode(TEXTS, "passage")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    assert norms.std() > 0 and abs(norms.mean() - 1) > 0.1
    np.testing.assert_allclose(rows / norms, unit.encode(TEXTS, "passage"), atol=1e-6)


def test_queries_may_be_shorter_and_end_with_the_end_token(checkpoint: Path) -> None:
    encoder = Encoder.load(str(checkpoint), 32, changes={"query_length": 8})
    assert [len(encoder.tokens(["kavron " * 50], kind)[0]) for kind in ("query", "passage")] == [
        8,
        32,
    ]
    encoder = Encoder.load(str(checkpoint), 32, changes={"append_eos": True, "pooling": "last"})
    encoder.tokenizer.eos_token = "[MASK]"
    for text in ("kavron", "kavron " * 50):
        (ids,) = encoder.tokens([text], "passage")
        assert ids[-1] == encoder.tokenizer.eos_token_id and len(ids) <= 32
    with pytest.raises(ConfigError, match="query_length: got 65"):
        Encoder.load(str(checkpoint), 32, changes={"query_length": 65})


def test_a_query_side_names_its_passage_side(encoder: Encoder, checkpoint: Path) -> None:
    assert encoder.passage_side == encoder.fingerprint
    side = Encoder.load(str(checkpoint), 32, changes={"trained_for": "feed"})
    assert side.passage_side == "feed"
    # Equal weights with other passages find something else.
    assert side.fingerprint not in (encoder.fingerprint, "feed")


def test_plan_covers_every_row_within_the_budget() -> None:
    lengths = [5, 30, 2, 9, 9, 31, 1, 200]
    groups = plan(lengths, 64)
    assert sorted(row for group in groups for row in group) == list(range(8))
    assert groups[0] == [7]
    assert all(len(g) * max(lengths[r] for r in g) <= 64 for g in groups[1:])
    assert plan([], 64) == []
