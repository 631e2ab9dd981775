"""How a checkpoint turns token states into one vector: read from its files, done in one place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import torch

from agentic_r.errors import ConfigError
from agentic_r.retriever.conventions import family

Pooling = Literal["mean", "cls", "last"]
"""Mean over the tokens, the first token, or the last one."""

SETTINGS_FILE = "agentic_r.json"
"""What `Encoder.save` writes beside the weights; read before anything else."""

_POOLING_KEYS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}


class EncoderSettings(msgspec.Struct, frozen=True):
    """All of an encoder that is not in its weights and tokenizer.

    `trained_for` is the fingerprint of the encoder whose passage vectors the queries were trained
    for, where the query side alone was trained. `query_length` is that of `max_length` where it
    is None.
    """

    base: str
    pooling: Pooling = "mean"
    query_prefix: str = ""
    passage_prefix: str = ""
    max_length: int | None = None
    normalise: bool = True
    append_eos: bool = False
    query_length: int | None = None
    trained_for: str = ""


def read_settings(folder: Path, name: str) -> EncoderSettings:
    """Read pooling, prefixes, length and normalisation of the checkpoint known as `name`.

    Looked at in this order: our own settings file; the sentence-transformers files
    (`modules.json`, the pooling module's `config.json`, prompts, longest sequence); what is known
    of the family by name; else mean pooling of unit vectors without prefixes. Raises ConfigError
    where a checkpoint has a module that this encoder does not compute, rather than leaving it out.
    """
    own = folder / SETTINGS_FILE
    if own.is_file():
        try:
            return msgspec.json.decode(own.read_bytes(), type=EncoderSettings)
        except msgspec.DecodeError as error:
            raise ConfigError(f"{own}: {error}; expected the settings of a saved encoder") from None
    known = family(name)
    found: dict[str, Any] = dict(known.settings) if known is not None else {}
    found |= _modules(folder)
    found |= _prompts(folder)
    return EncoderSettings(name, **found)


def model_folder(folder: Path) -> Path:
    """Return where the transformer of a sentence-transformers checkpoint lies: most often here."""
    for module in _module_list(folder):
        if str(module.get("type", "")).rsplit(".", 1)[-1] == "Transformer":
            return folder / str(module.get("path", ""))
    return folder


def pool(
    states: torch.Tensor, mask: torch.Tensor, pooling: Pooling, normalise: bool = True
) -> torch.Tensor:
    """Pool right-padded token states [n, t, d] under `mask` [n, t] into rows [n, d], fp32.

    Rows are of unit length unless the checkpoint is one whose dot product counts: then scores
    are cosines, which is what the contrastive temperature is meant for.
    """
    states = states.float()
    if pooling == "cls":
        rows = states[:, 0]
    elif pooling == "last":
        rows = states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
    else:
        weights = mask.unsqueeze(-1).to(states.dtype)
        rows = (states * weights).sum(1) / weights.sum(1)
    return torch.nn.functional.normalize(rows, dim=-1) if normalise else rows


def _modules(folder: Path) -> dict[str, Any]:
    """Read pooling, normalisation and longest sequence from the sentence-transformers files."""
    found: dict[str, Any] = {}
    path = "1_Pooling"
    modules = _module_list(folder)
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    for module, kind in zip(modules, kinds, strict=True):
        if kind == "Pooling":
            path = str(module.get("path", path))
        elif kind not in {"Transformer", "Normalize"}:
            raise ConfigError(
                f"{folder / 'modules.json'}: got a module {kind!r}, expected Transformer, Pooling "
                "and Normalize only; use another base encoder"
            )
    if (folder / path / "config.json").is_file():
        found["pooling"] = _pooling(folder / path / "config.json")
    own = folder / "config_sentence_transformers.json"
    if modules and own.is_file():
        similarity = cast("dict[str, Any]", _read_json(own)).get("similarity_fn_name")
        found["normalise"] = "Normalize" in kinds or similarity not in ("dot", "dot_score")
    longest = model_folder(folder) / "sentence_bert_config.json"
    if longest.is_file():
        length = cast("dict[str, Any]", _read_json(longest)).get("max_seq_length")
        found |= {"max_length": int(length)} if length else {}
    return found


def _module_list(folder: Path) -> list[dict[str, Any]]:
    file = folder / "modules.json"
    return cast("list[dict[str, Any]]", _read_json(file)) if file.is_file() else []


def _pooling(file: Path) -> Pooling:
    config = cast("dict[str, Any]", _read_json(file))
    named = str(config.get("pooling_mode", "")).removesuffix("token")
    chosen = {_POOLING_KEYS.get(k, k) for k, v in config.items() if v is True and "mode_" in k}
    chosen |= {named} if named else set()
    if len(chosen) != 1 or not chosen <= {"mean", "cls", "last"}:
        raise ConfigError(
            f"{file}: got pooling {', '.join(sorted(chosen)) or 'none'}, "
            "expected exactly one of mean, cls, last; use another base encoder"
        )
    return cast("Pooling", chosen.pop())


def _prompts(folder: Path) -> dict[str, str]:
    file = folder / "config_sentence_transformers.json"
    prompts: dict[str, str] = {}
    if file.is_file():
        prompts = cast("dict[str, Any]", _read_json(file)).get("prompts") or {}
    if not any(prompts.values()):
        return {}
    passage = prompts.get("passage") or prompts.get("document", "")
    return {"query_prefix": prompts.get("query", ""), "passage_prefix": passage}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; expected JSON, get the checkpoint again") from None
