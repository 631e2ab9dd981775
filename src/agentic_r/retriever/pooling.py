"""How a checkpoint turns token states into one vector: read from its files, done in one place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import torch

from agentic_r.errors import ConfigError

Pooling = Literal["mean", "cls", "last"]
"""Mean over the tokens, the first token, or the last one."""

SETTINGS_FILE = "agentic_r.json"
"""What `Encoder.save` writes beside the weights; read before anything else."""

_POOLING_KEYS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_BGE_QUERY = "Represent this sentence for searching relevant passages: "


class EncoderSettings(msgspec.Struct, frozen=True):
    """All of an encoder that is not in its weights and tokenizer.

    `trained_for` is the fingerprint of the encoder whose passage vectors the queries were trained
    for, where the query side alone was trained.
    """

    base: str
    pooling: Pooling = "mean"
    query_prefix: str = ""
    passage_prefix: str = ""
    max_length: int | None = None
    trained_for: str = ""


def read_settings(folder: Path, name: str) -> EncoderSettings:
    """Read pooling and prefixes of the checkpoint in `folder`, known as `name`.

    Looked at in this order: our own settings file; the sentence-transformers files
    (`modules.json`, the pooling module's `config.json`, prompts); what is known of the e5 and
    bge families by name; else mean pooling without prefixes. Raises ConfigError where a
    checkpoint has a module that this encoder does not compute, rather than leaving it out.
    """
    own = folder / SETTINGS_FILE
    if own.is_file():
        try:
            return msgspec.json.decode(own.read_bytes(), type=EncoderSettings)
        except msgspec.DecodeError as error:
            raise ConfigError(f"{own}: {error}; expected the settings of a saved encoder") from None
    query, passage = _prefixes(folder, name)
    return EncoderSettings(name, _pooling(folder), query, passage)


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Pool right-padded token states [n, t, d] under `mask` [n, t] into unit rows [n, d], fp32.

    Rows are always of unit length, also for checkpoints without a normalising module: scores
    are cosines everywhere, which is what the contrastive temperature is meant for.
    """
    states = states.float()
    if pooling == "cls":
        rows = states[:, 0]
    elif pooling == "last":
        rows = states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
    else:
        weights = mask.unsqueeze(-1).to(states.dtype)
        rows = (states * weights).sum(1) / weights.sum(1)
    return torch.nn.functional.normalize(rows, dim=-1)


def _pooling(folder: Path) -> Pooling:
    path = "1_Pooling"
    modules = folder / "modules.json"
    if modules.is_file():
        for module in cast("list[dict[str, Any]]", _read_json(modules)):
            kind = str(module.get("type", "")).rsplit(".", 1)[-1]
            if kind == "Pooling":
                path = str(module.get("path", path))
            elif kind not in {"Transformer", "Normalize"}:
                raise ConfigError(
                    f"{modules}: got a module {kind!r}, expected Transformer, Pooling and "
                    "Normalize only; use another base encoder"
                )
    file = folder / path / "config.json"
    if not file.is_file():
        return "mean"
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


def _prefixes(folder: Path, name: str) -> tuple[str, str]:
    file = folder / "config_sentence_transformers.json"
    prompts: dict[str, str] = {}
    if file.is_file():
        prompts = cast("dict[str, Any]", _read_json(file)).get("prompts") or {}
    if any(prompts.values()):
        return prompts.get("query", ""), prompts.get("passage") or prompts.get("document", "")
    last = Path(name).name.lower()
    if re.search(r"(^|[-_])e5([-_]|$)", last):
        return "query: ", "passage: "
    if re.search(r"(^|[-_])bge-(small|base|large)-en([-_]|$)", last):
        return _BGE_QUERY, ""
    return "", ""


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; expected JSON, get the checkpoint again") from None
