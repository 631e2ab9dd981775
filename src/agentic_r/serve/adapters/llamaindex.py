"""A retriever for LlamaIndex."""

from __future__ import annotations

from typing import Any

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from agentic_r.protocols import Retriever


class LlamaIndexRetriever(BaseRetriever):  # type: ignore[misc]
    """Searches with any retriever of ours: `LlamaIndexRetriever(retriever, k=5)`."""

    def __init__(self, retriever: Retriever, k: int = 5) -> None:
        self.ours, self.k = retriever, k
        super().__init__()

    def _retrieve(self, query_bundle: Any) -> list[Any]:
        return [
            NodeWithScore(
                node=TextNode(
                    id_=hit.passage.id,
                    text=hit.passage.text,
                    metadata={"title": hit.passage.title},
                ),
                score=hit.score,
            )
            for hit in self.ours.search([query_bundle.query_str], self.k)[0]
        ]
