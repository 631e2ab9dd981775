from __future__ import annotations

import numpy as np
import pytest
import torch

from agentic_r.errors import ConfigError, MissingExtraError
from agentic_r.retriever import engine
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.engine import EXACT, open_engine
from agentic_r.retriever.precision import bf16_pays

TEXTS = [
    "The Kraus House stands in Kirkwood, Missouri, and was built by Frank Lloyd Wright. " * 4,
    "Merrimack River",
    "It rises near Salem and flows 218 miles to the Meramec.",
    "",
] * 6


def cosines(encoder: Encoder, found: engine.Engine) -> np.ndarray:
    ids = encoder.tokens(TEXTS, "passage")
    exact = encoder.encode(TEXTS, "passage")
    rows = found.forward(ids)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)
    return (rows * exact).sum(1)


@pytest.mark.parametrize("precision", ["openvino", "bf16", "fp32"])
def test_every_engine_stays_close_to_fp32(minilm: Encoder, precision: str) -> None:
    if precision == "openvino":
        pytest.importorskip("openvino")
    found = open_engine(minilm, precision, 10**6)  # type: ignore[arg-type]
    assert cosines(minilm, found).min() >= 0.999
    assert ("OpenVINO" in found.name) == (precision == "openvino")


def test_a_small_corpus_is_encoded_exactly(encoder: Encoder) -> None:
    found = open_engine(encoder, "auto", EXACT)
    assert found.name == "fp32 in torch on cpu"
    ids = encoder.tokens(TEXTS, "passage")
    np.testing.assert_array_equal(found.forward(ids), encoder.encode(TEXTS, "passage")[:])


def test_auto_takes_what_the_machine_has_and_says_so(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = bf16_pays(torch.device("cpu"))
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    found = open_engine(encoder, "auto", EXACT + 1)
    assert found.name == (f"bf16 ({has}) in torch on cpu" if has else "fp32 in torch on cpu")
    monkeypatch.undo()

    def fails(*_: object) -> None:
        raise ConfigError("OpenVINO cannot convert this model (odd)")

    monkeypatch.setattr(engine, "_compiled", fails)
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: name)
    if pytest.importorskip("openvino"):
        assert "cannot convert this model (odd)" in open_engine(encoder, "auto", EXACT + 1).name
        with pytest.raises(ConfigError, match="odd"):
            open_engine(encoder, "openvino", 5)


def test_a_conversion_that_is_wrong_is_noticed(
    minilm: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    wrong = np.random.default_rng(0).normal(size=(3, 384)).astype(np.float32)
    monkeypatch.setattr(engine, "_compiled", lambda *_: lambda inputs: [wrong])
    with pytest.raises(ConfigError, match="cosine"):
        open_engine(minilm, "openvino", 5)


def test_without_openvino_asking_for_it_names_the_extra(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"agentic-r\[openvino\]"):
        open_engine(encoder, "openvino", 5)
