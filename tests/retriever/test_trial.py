"""An engine is tried once for a model, a machine and its libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from agentic_r.errors import ConfigError
from agentic_r.retriever import quick, trial
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.engine import open_choice
from agentic_r.retriever.quick import QuickEncoder

from .conftest import make_checkpoint


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fingerprints of the encoders that were tried."""
    tried: list[str] = []
    fastest = quick.fastest

    def counted(encoder: Encoder) -> quick.Tried:
        tried.append(encoder.fingerprint)
        return fastest(encoder)

    monkeypatch.setattr(quick, "fastest", counted)
    return tried


def test_the_second_start_tries_nothing_and_computes_the_same(
    encoder: Encoder, tmp_path: Path, trials: list[str]
) -> None:
    first = QuickEncoder(encoder, tmp_path)
    second = QuickEncoder(encoder, tmp_path)
    assert trials == [encoder.fingerprint]
    assert (second.engine.name, second._call) == (first.engine.name, first._call)
    texts = ["kavron", "oskar was born in kavron"]
    np.testing.assert_array_equal(first.encode(texts, "query"), second.encode(texts, "query"))
    [kept] = tmp_path.iterdir()
    assert kept.name == f"{trial.key(encoder)}.json"


def test_another_model_or_machine_is_tried(
    encoder: Encoder, tmp_path: Path, trials: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    QuickEncoder(encoder, tmp_path / "kept")
    other = Encoder.load(str(make_checkpoint(tmp_path / "other", seed=1)), 32)
    QuickEncoder(other, tmp_path / "kept")
    assert trials == [encoder.fingerprint, other.fingerprint]
    keys = {trial.key(encoder)}
    for name, changed in (("_cpu", lambda: ["another"]), ("_version", lambda name: "9.9")):
        with monkeypatch.context() as patch:
            patch.setattr(trial, name, changed)
            keys.add(trial.key(encoder))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 99)
        keys.add(trial.key(encoder))
    assert len(keys) == 4


@pytest.mark.parametrize("kept", [b"", b"no json", b"{}", b'{"engine": "gpu fp8", "call": 1}'])
def test_what_cannot_be_read_is_tried_again_and_replaced(
    encoder: Encoder, tmp_path: Path, trials: list[str], kept: bytes
) -> None:
    path = tmp_path / f"{trial.key(encoder)}.json"
    path.write_bytes(kept)
    QuickEncoder(encoder, tmp_path)
    assert trials == [encoder.fingerprint]
    assert trial.remembered(tmp_path, encoder) is not None


def test_an_engine_that_does_not_open_any_more_is_tried_again(
    encoder: Encoder, tmp_path: Path, trials: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.remember(tmp_path, encoder, "openvino bf16", 3.0)

    def broken(*_: object) -> None:
        raise ConfigError("cannot convert this model")

    monkeypatch.setattr(trial, "open_choice", broken)
    QuickEncoder(encoder, tmp_path)
    assert trials == [encoder.fingerprint]


def test_a_folder_that_cannot_be_written_to_is_named(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    found = QuickEncoder(encoder, tmp_path / "file")
    assert found.encode(["kavron"], "query").shape == (1, encoder.dimension)
    assert "the engine trial is not kept" in caplog.text


def test_every_choice_says_what_it_is(encoder: Encoder) -> None:
    for choice in ("torch fp32", "torch bf16"):
        engine = open_choice(encoder, choice)  # type: ignore[arg-type]
        assert engine.choice == choice
        assert choice.partition(" ")[2] in engine.name
