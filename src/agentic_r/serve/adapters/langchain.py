"""A retriever for LangChain."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from agentic_r.protocols import Retriever


class LangChainRetriever(BaseRetriever):  # type: ignore[misc]
    """Searches with any retriever of ours: `LangChainRetriever(retriever=..., k=5)`."""

    retriever: Any
    k: int = 5

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Any]:
        retriever: Retriever = self.retriever
        return [
            Document(
                hit.passage.text,
                id=hit.passage.id,
                metadata={"title": hit.passage.title, "score": hit.score},
            )
            for hit in retriever.search([query], self.k)[0]
        ]
