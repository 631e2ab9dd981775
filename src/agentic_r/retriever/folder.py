"""What lies beside an encoder's weights so that sentence-transformers and people can read them.

Written with plain JSON and without that library: its file names and keys, in the form that every
version since 2 reads, are stable, and importing it takes longer than writing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentic_r.io import write_atomic
from agentic_r.retriever.pooling import SETTINGS_FILE, EncoderSettings

_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"))
_NORMALIZE = ("2_Normalize", "Normalize")
_MODES = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weighted_mean": "pooling_mode_weightedmean_tokens",
    "last": "pooling_mode_lasttoken",
}


def write_folder(
    folder: Path, settings: EncoderSettings, dimension: int, notes: Sequence[str] = ()
) -> None:
    """Write settings, module files, prompts and model card of an encoder of `dimension`.

    `notes` are lines of the card about how the encoder came to be. Weights and tokenizer are the
    caller's. Raises RunError where a file cannot be written.
    """
    normalised = (_NORMALIZE,) if settings.normalise else ()
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate((*_MODULES, *normalised))
    ]
    pooling = {key: settings.pooling == mode for mode, key in _MODES.items()}
    prompts = {
        "query": settings.query_prefix,
        "passage": settings.passage_prefix,
        "document": settings.passage_prefix,
    }
    files: dict[str, Any] = {
        "modules.json": modules,
        "1_Pooling/config.json": {
            "word_embedding_dimension": dimension,
            **pooling,
            "include_prompt": True,
        },
        "sentence_bert_config.json": {
            "max_seq_length": settings.max_length,
            "do_lower_case": False,
        },
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "prompts": prompts,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if settings.normalise else "dot",
        },
        SETTINGS_FILE: settings,
    }
    for name, value in files.items():
        write_atomic(folder / name, msgspec.json.format(msgspec.json.encode(value), indent=2))
    write_atomic(folder / "README.md", card(settings, dimension, notes))


def card(settings: EncoderSettings, dimension: int, notes: Sequence[str] = ()) -> str:
    """Say in Markdown what the encoder is and how to use it."""
    lines = "".join(f"- {note}\n" for note in notes)
    passages = (
        f"Only the query side was trained: passages have to be encoded by the encoder "
        f"{settings.trained_for}, whose index stays valid.\n\n"
        if settings.trained_for
        else ""
    )
    longest = f"{settings.max_length} tokens"
    if settings.query_length:
        longest += f", of queries: {settings.query_length} tokens"
    if settings.append_eos:
        longest += "; the token of the end is put after each text, which counts among them"
    end = " + model.tokenizer.eos_token" if settings.append_eos else ""
    unit = "unit vectors" if settings.normalise else "vectors"
    scores = "then unit length; scores are cosines" if settings.normalise else "scores are products"
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- feature-extraction
- sentence-similarity
- agentic-r
---

# A retriever for a search agent

Text to {unit} of {dimension} numbers, trained by agentic-r on the passages that helped an
agent to answer. Started from `{Path(settings.base).name}`.

- pooling: {settings.pooling}, {scores}
- longest input: {longest}
- prompt of queries: {settings.query_prefix!r}, of passages: {settings.passage_prefix!r}
{lines}
{passages}```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER")
queries = model.encode_query(["question [SEP] query"{end}])
passages = model.encode_document(["Title\\nText of the passage"{end}])
print(model.similarity(queries, passages))
```
"""
