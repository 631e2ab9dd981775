"""What is known of encoder families by name, used where a checkpoint's own files do not say.

Each row: a pattern on the last part of the name, then what differs from mean pooling of unit
vectors without prefixes. The first row that fits counts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

_WEB = "Given a web search query, retrieve relevant passages that answer the query"
_BGE_ZH = "为这个句子生成表示以用于检索相关文章："


class Family(NamedTuple):
    """One family of encoders and its conventions, as fields of `EncoderSettings`."""

    name: str
    pattern: str
    settings: dict[str, Any]


FAMILIES = (
    Family(
        "e5-mistral",
        r"^e5-mistral",
        {
            "pooling": "last",
            "query_prefix": f"Instruct: {_WEB}\nQuery: ",
            "append_eos": True,
            "max_length": 4096,
        },
    ),
    Family(
        "e5-instruct",
        r"^multilingual-e5-.*-instruct$",
        {"query_prefix": f"Instruct: {_WEB}\nQuery: "},
    ),
    Family(
        "e5",
        r"(^|[-_])e5([-_]|$)",
        {"query_prefix": "query: ", "passage_prefix": "passage: "},
    ),
    Family("bge-m3", r"^bge-m3", {"pooling": "cls", "max_length": 8192}),
    Family(
        "bge",
        r"(^|[-_])bge-(small|base|large)-en([-_]|$)",
        {
            "pooling": "cls",
            "query_prefix": "Represent this sentence for searching relevant passages: ",
        },
    ),
    Family(
        "bge-zh",
        r"(^|[-_])bge-(small|base|large)-zh([-_]|$)",
        {"pooling": "cls", "query_prefix": _BGE_ZH},
    ),
    Family("contriever", r"contriever", {"normalise": False}),
    Family("gte-en-v1.5", r"^gte-(base|large)-en-v1\.5", {"pooling": "cls", "max_length": 8192}),
    Family("gte-modernbert", r"^gte-modernbert", {"pooling": "cls", "max_length": 8192}),
    Family(
        "gte-qwen2",
        r"^gte-qwen2",
        {"pooling": "last", "query_prefix": f"Instruct: {_WEB}\nQuery: ", "append_eos": True},
    ),
    Family("gte", r"^gte-(small|base|large|tiny)", {}),
    Family(
        "qwen3-embedding",
        r"^qwen3-embedding",
        # The tokenizer ends every text with the token that is pooled.
        {"pooling": "last", "query_prefix": f"Instruct: {_WEB}\nQuery:", "max_length": 8192},
    ),
    Family("dpr", r"^dpr[-_]", {"pooling": "cls", "normalise": False}),
)


def family(name: str) -> Family | None:
    """Return the family of a model name or folder, None where it is of no known one."""
    last = Path(name).name.lower()
    return next((known for known in FAMILIES if re.search(known.pattern, last)), None)
