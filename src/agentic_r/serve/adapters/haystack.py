"""A retriever for Haystack."""

from __future__ import annotations

from typing import Any

from haystack import Document, component

from agentic_r.protocols import Retriever


@component
class HaystackRetriever:
    """Searches with any retriever of ours: `HaystackRetriever(retriever)` in a pipeline."""

    def __init__(self, retriever: Retriever, top_k: int = 5) -> None:
        self.retriever, self.top_k = retriever, top_k

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(self, query: str, top_k: int | None = None) -> dict[str, Any]:
        """Return the documents for a query, best first."""
        hits = self.retriever.search([query], self.top_k if top_k is None else top_k)[0]
        documents = [
            Document(
                id=hit.passage.id,
                content=hit.passage.text,
                meta={"title": hit.passage.title},
                score=hit.score,
            )
            for hit in hits
        ]
        return {"documents": documents}
