"""Our retrievers inside LangChain, LlamaIndex and Haystack, where these are installed."""

from __future__ import annotations

import pytest

from agentic_r.data.corpus import Corpus
from tests.serve.conftest import PASSAGES, Words

pytestmark = pytest.mark.filterwarnings("ignore")


def test_langchain() -> None:
    pytest.importorskip("langchain_core")
    from agentic_r.serve.adapters.langchain import LangChainRetriever

    found = LangChainRetriever(retriever=Words(Corpus(PASSAGES)), k=2).invoke("ulm danube")
    assert [len(found), found[0].id, found[0].metadata["title"]] == [2, "p2", "Ulm"]
    assert found[0].page_content == PASSAGES[1].text


def test_llamaindex() -> None:
    pytest.importorskip("llama_index.core")
    from agentic_r.serve.adapters.llamaindex import LlamaIndexRetriever

    found = LlamaIndexRetriever(Words(Corpus(PASSAGES)), k=2).retrieve("ulm danube")
    assert [len(found), found[0].node_id, found[0].score] == [2, "p2", 1.0]
    assert found[0].get_content() == PASSAGES[1].text


def test_haystack() -> None:
    haystack = pytest.importorskip("haystack")
    from agentic_r.serve.adapters.haystack import HaystackRetriever

    pipeline = haystack.Pipeline()
    pipeline.add_component("ours", HaystackRetriever(Words(Corpus(PASSAGES))))
    found = pipeline.run({"ours": {"query": "ulm danube", "top_k": 2}})["ours"]["documents"]
    assert [len(found), found[0].id, found[0].meta["title"]] == [2, "p2", "Ulm"]
