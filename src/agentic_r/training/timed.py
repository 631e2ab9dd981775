"""How long the searches of a training take."""

from __future__ import annotations

import time
from collections.abc import Sequence

from agentic_r.protocols import Retriever
from agentic_r.types import Hit


class Timed:
    """A retriever that counts its own seconds, failed searches included."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self.seconds = 0.0

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return what the retriever finds."""
        began = time.perf_counter()
        try:
            return self._retriever.search(queries, k)
        finally:
            self.seconds += time.perf_counter() - began
