"""What multiplies the matrices when many passages are encoded: torch, or OpenVINO on a CPU."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from agentic_r.errors import ConfigError, MissingExtraError
from agentic_r.retriever.encoder import Encoder, Vectors, padded
from agentic_r.retriever.loading import quiet
from agentic_r.retriever.pooling import pool
from agentic_r.retriever.precision import autocast, bf16_pays, resolve

EnginePrecision = Literal["auto", "fp32", "bf16", "openvino"]
"""What a config may ask for: `openvino` is bf16 where that is faster, else fp32."""

EXACT = 20_000
"""Up to this many passages `auto` takes fp32: the whole costs a few minutes at most."""

Forward = Callable[[Sequence[Sequence[int]]], Vectors]


Choice = Literal["torch fp32", "torch bf16", "openvino fp32", "openvino bf16"]
"""What there is to choose from, exact fp32 first."""


class Engine(NamedTuple):
    """Encodes one batch of token lists into rows [n, d]; `name` is what the user is told."""

    name: str
    forward: Forward
    choice: Choice = "torch fp32"


def open_engine(encoder: Encoder, precision: EnginePrecision, passages: int) -> Engine:
    """Choose what encodes `passages` passages.

    `auto` is exact fp32 for a small corpus. For a large one it is bf16: on a CPU through
    OpenVINO where that is installed and can convert the model, else in torch; fp32 by the same
    ways where the processor multiplies no faster in bf16. Raises MissingExtraError and ConfigError
    where OpenVINO was asked for by name and is not installed or cannot convert the model.
    """
    cpu = encoder.device.type == "cpu"
    if precision == "auto" and passages > EXACT and cpu:
        if importlib.util.find_spec("openvino") is None:
            return _plain(encoder)
        try:
            return _openvino(encoder)
        except ConfigError as error:
            engine = _plain(encoder)
            return Engine(f"{engine.name}; {error}", engine.forward)
    if precision == "openvino":
        if not cpu:
            raise ConfigError(
                f"retriever.index.precision: got openvino, expected auto, fp32 or bf16 on "
                f"{encoder.device}"
            )
        return _openvino(encoder)
    if precision == "auto":
        return _plain(encoder) if passages > EXACT else _torch(encoder, "fp32")
    return _torch(encoder, precision)


def engines(encoder: Encoder) -> Iterator[Engine]:
    """Open every engine that this machine has for an encoder, exact fp32 in torch first.

    An OpenVINO that cannot convert the model, or converts it wrongly, is left out.
    """
    cpu = encoder.device.type == "cpu"
    openvino = cpu and importlib.util.find_spec("openvino") is not None
    support = bf16_pays(encoder.device)
    for choice in get_args(Choice):
        if choice.endswith("bf16") and not support:
            continue
        if choice.startswith("openvino") and not openvino:
            continue
        try:
            yield open_choice(encoder, choice)
        except ConfigError:
            return


def open_choice(encoder: Encoder, choice: Choice) -> Engine:
    """Open one engine of those that `engines` lists. Raises as `open_engine` does."""
    bf16 = choice.endswith("bf16")
    if choice.startswith("openvino"):
        return _openvino(encoder, bf16=bf16)._replace(choice=choice)
    return _torch(encoder, "bf16" if bf16 else "fp32")._replace(choice=choice)


def _plain(encoder: Encoder) -> Engine:
    return _torch(encoder, "bf16" if bf16_pays(encoder.device) else "fp32")


def _torch(encoder: Encoder, precision: Literal["auto", "fp32", "bf16"]) -> Engine:
    bf16, name = resolve(precision, encoder.device)

    def forward(ids: Sequence[Sequence[int]]) -> Vectors:
        with torch.inference_mode(), autocast(bf16, encoder.device):
            rows: Vectors = encoder.forward(ids).cpu().numpy()
            return rows

    return Engine(f"{name} in torch on {encoder.device}", forward)


class _Pooled(torch.nn.Module):
    """The model with its pooling: what OpenVINO converts as one graph."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model = encoder.model
        self.settings = encoder.settings

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.model(input_ids=input_ids, attention_mask=attention_mask)
        settings = self.settings
        return pool(states.last_hidden_state, attention_mask, settings.pooling, settings.normalise)


def _openvino(encoder: Encoder, *, bf16: bool = True) -> Engine:
    """Convert an encoder for OpenVINO; half a minute at most. Raises as `open_engine` does.

    bf16 is taken where the processor has it.
    """
    try:
        import openvino
    except ModuleNotFoundError:
        raise MissingExtraError("openvino", "openvino") from None
    support = bf16_pays(encoder.device) if bf16 else ""
    compiled = _compiled(openvino, encoder, "bf16" if support else "f32")

    def forward(ids: Sequence[Sequence[int]]) -> Vectors:
        tokens, mask = padded(ids, encoder.pad)
        rows: Vectors = compiled({0: tokens, 1: mask})[0]
        return rows

    # A conversion can succeed and be wrong, for instance where a branch was traced away.
    words = int(encoder.model.config.vocab_size)
    lengths = (5, 40, encoder.max_length)
    sample = [[1 + n % min(words - 1, 900) for n in range(length)] for length in lengths]
    exact, fast = _torch(encoder, "fp32").forward(sample), forward(sample)
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(fast, axis=1)
    cosine = float(((exact * fast).sum(1) / norms).min())
    if not cosine >= 0.999:
        raise ConfigError(f"OpenVINO's vectors have cosine {cosine:.4f} with torch's")
    return Engine(f"{f'bf16 ({support})' if support else 'fp32'} through OpenVINO", forward)


def _compiled(openvino: Any, encoder: Encoder, precision: str) -> Any:
    example = {
        "input_ids": torch.tensor([[1, 2, 3], [1, 2, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    log = logging.getLogger("nncf")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with torch.inference_mode(), quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = openvino.convert_model(_Pooled(encoder), example_input=example)
    except Exception as error:  # whatever a tracer and a converter may raise for a new model
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"OpenVINO cannot convert this model ({said[:120]})") from None
    finally:
        log.setLevel(level)
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }
    return openvino.Core().compile_model(model, "CPU", options)
