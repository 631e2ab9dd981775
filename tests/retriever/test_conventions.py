from __future__ import annotations

import msgspec
import pytest

from agentic_r.retriever.conventions import FAMILIES, family
from agentic_r.retriever.pooling import EncoderSettings


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("intfloat/e5-base-v2", "e5"),
        ("/models/e5-small", "e5"),
        ("intfloat/multilingual-e5-large-instruct", "e5-instruct"),
        ("intfloat/multilingual-e5-base", "e5"),
        ("intfloat/e5-mistral-7b-instruct", "e5-mistral"),
        ("BAAI/bge-base-en-v1.5", "bge"),
        ("BAAI/bge-m3", "bge-m3"),
        ("BAAI/bge-large-zh-v1.5", "bge-zh"),
        ("facebook/contriever-msmarco", "contriever"),
        ("thenlper/gte-base", "gte"),
        ("Alibaba-NLP/gte-large-en-v1.5", "gte-en-v1.5"),
        ("Alibaba-NLP/gte-Qwen2-1.5B-instruct", "gte-qwen2"),
        ("Qwen/Qwen3-Embedding-0.6B", "qwen3-embedding"),
        ("facebook/dpr-ctx_encoder-single-nq-base", "dpr"),
        ("all-MiniLM-L6-v2", None),
        ("made5-up", None),
    ],
)
def test_a_name_has_its_family(name: str, expected: str | None) -> None:
    found = family(name)
    assert (found.name if found else None) == expected


@pytest.mark.parametrize("known", FAMILIES, ids=lambda known: known.name)
def test_conventions_are_settings(known: object) -> None:
    settings = known.settings  # type: ignore[attr-defined]
    made = msgspec.convert({"base": "x", **settings}, EncoderSettings, strict=True)
    assert set(settings) <= set(EncoderSettings.__struct_fields__)
    assert all(getattr(made, name) == value for name, value in settings.items())


def test_the_ones_that_matter_most() -> None:
    e5, qwen = family("e5-base-v2"), family("Qwen3-Embedding-8B")
    assert e5 is not None and e5.settings["passage_prefix"] == "passage: "
    assert qwen is not None and qwen.settings["pooling"] == "last"
