"""A tiny random encoder with its own words, and the vector engines that tests can have."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from agentic_r.data.corpus import Corpus
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.stores import Store
from agentic_r.retriever.stores.milvus import MilvusStore
from agentic_r.retriever.stores.qdrant import QdrantStore
from agentic_r.types import Example, Passage

NAMES = ["kavron", "telmi", "oskar", "brund", "wexley", "doria", "maleth", "quill"]
WORDS = ["was", "born", "in", "runs", "the", "city", "of", "firm", "film", "who", "where", "which"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write a BERT of a few thousand weights and a word tokenizer."""
    tokens = [*SPECIAL, *NAMES, *WORDS]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(tokens)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def encoder(checkpoint: Path) -> Encoder:
    return Encoder.load(str(checkpoint), 32)


@pytest.fixture(scope="session")
def minilm() -> Encoder:
    return Encoder.load("all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    born = [Passage(f"b{i}", f"{name} was born in the city", name) for i, name in enumerate(NAMES)]
    runs = [Passage(f"r{i}", f"{name} runs the firm", name) for i, name in enumerate(NAMES)]
    return Corpus([*born, *runs])


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return [
        Example("d", f"q{i}", f"where was {name} [SEP] {name}", (f"b{i}",), (f"r{i}", "r0"))
        for i, name in enumerate(NAMES)
        if i
    ]


@pytest.fixture(scope="session")
def milvus_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Milvus server of the package index, in a process of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports pkg_resources
        milvus = pytest.importorskip("milvus")
    server = milvus.MilvusServer()
    server.show_startup_banner = False
    server.set_base_dir(str(tmp_path_factory.mktemp("milvus")))
    server.start()
    yield f"http://127.0.0.1:{server.listen_port}"
    server.stop()


@pytest.fixture(params=["qdrant", "milvus-lite", pytest.param("milvus", marks=pytest.mark.server)])
def open_any(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Open one of the engines, again and again with the same contents; all are emptied at the end.

    The mode of Qdrant that runs in memory forgets, so that it is opened in a folder.
    """
    pytest.importorskip("qdrant_client" if request.param == "qdrant" else "pymilvus")
    opened: list[Any] = []

    def store() -> Store:
        if request.param == "qdrant":
            opened.append(QdrantStore(str(tmp_path / "qdrant")))
        elif request.param == "milvus-lite":
            opened.append(MilvusStore(str(tmp_path / "milvus.db")))
        else:
            opened.append(MilvusStore(request.getfixturevalue("milvus_url")))
        return opened[-1]

    yield store
    if request.param == "milvus" and opened:  # the server is the same for all tests
        last = store()
        client = last._client
        for version in last.versions():
            for alias in client.list_aliases(version)["aliases"]:
                client.drop_alias(alias)
            last.drop(version)
    for each in opened:
        each.close()


@pytest.fixture
def any_store(open_any: Callable[[], Store]) -> Store:
    """One of the engines, empty."""
    return open_any()
