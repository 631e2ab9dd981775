from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import agentic_r as ar
from agentic_r.errors import ConfigError
from agentic_r.finding import compose
from agentic_r.protocols import Retriever
from agentic_r.settings import Config
from agentic_r.testing import TableRetriever

CORPUS = ar.Corpus([ar.Passage("1", "Ulm is a city.", "Ulm"), ar.Passage("2", "A river.", "Po")])


def config(**settings: object) -> Config:
    return msgspec.convert({"retriever": settings}, Config)


def dense() -> tuple[Retriever, str]:
    return TableRetriever({"river": [CORPUS[1]], "city": [CORPUS[1]]}), "table"


def never() -> tuple[Retriever, str]:
    raise AssertionError("the dense retriever was opened for nothing")


def test_every_kind_is_put_together(tmp_path: Path) -> None:
    retriever, key = compose(config(), CORPUS, dense)
    assert key == "table" and isinstance(retriever, TableRetriever)
    retriever, key = compose(config(kind="bm25"), CORPUS, never)
    assert retriever.search(["city"], 1)[0][0].passage.id == "1"
    retriever, fused = compose(config(kind="fused"), CORPUS, dense)
    assert {hit.passage.id for hit in retriever.search(["city"], 2)[0]} == {"1", "2"}
    assert fused != key
    cached, _ = compose(config(kind="bm25", cache=str(tmp_path / "c.db")), CORPUS, never)
    assert cached.search(["city"], 1) == cached.search(["city"], 1)
    assert (tmp_path / "c.db").is_file()


def test_a_kind_without_its_address_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"retriever\.remote\.url"):
        compose(config(kind="remote"), CORPUS, never)
    with pytest.raises(ConfigError, match="api_key_env"):
        compose(config(kind="web"), CORPUS, never)
    _, key = compose(config(kind="remote", remote={"url": "http://h"}), CORPUS, never)
    assert key == "remote:http://h"
