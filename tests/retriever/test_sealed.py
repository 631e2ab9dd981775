from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agentic_r.errors import DataError
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.sealed import SEAL_FILE, check_seal, sealed


@pytest.fixture
def model(encoder: Encoder, tmp_path: Path) -> Path:
    encoder.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_is_sealed_and_loads(model: Path, encoder: Encoder) -> None:
    assert check_seal(model) >= 6
    assert Encoder.load(str(model)).fingerprint == encoder.fingerprint
    assert sealed(model.parent) == [model]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
def test_a_flipped_bit_is_refused_by_name(model: Path, name: str) -> None:
    raw = bytearray((model / name).read_bytes())
    raw[len(raw) // 2] ^= 4
    (model / name).write_bytes(raw)
    with pytest.raises(DataError, match=rf"{name}: damaged.*train it again"):
        Encoder.load(str(model))


def test_a_file_that_is_gone_or_a_seal_that_is_none(model: Path) -> None:
    (model / "config.json").rename(model / "other.json")
    with pytest.raises(DataError, match=r"config.json: there is no such file, expected a model"):
        check_seal(model)
    (model / SEAL_FILE).write_text("{")
    with pytest.raises(DataError, match="damaged"):
        check_seal(model)


def test_a_card_may_be_written_in_and_an_unsealed_model_loads(
    model: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (model / "README.md").write_text("Mine.")
    Encoder.load(str(model))
    assert check_seal(checkpoint) == 0
    copied = shutil.copytree(model, tmp_path / "copy")  # a seal travels with its folder
    assert check_seal(copied) == check_seal(model)
