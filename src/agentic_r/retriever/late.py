"""Late interaction: a vector a token, and for each token of the query its best one in the passage.

sentence-transformers reads and computes such models (ColBERT's own files and PyLate's too); with 21
million passages their vectors would take 376 GB, so they rank anew what another retriever found.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentic_r.errors import ConfigError, MissingExtraError
from agentic_r.retriever.loading import first_line, quiet
from agentic_r.retriever.sealed import check_seal

_KINDS = frozenset({"MultiVectorEncoder", "ColBERT"})
_BATCH = 32


def is_late(folder: Path) -> bool:
    """Say whether a checkpoint is of a late-interaction model, by what its own files name."""
    about = _read(folder / "config_sentence_transformers.json")
    if about.get("model_type"):
        return about["model_type"] in _KINDS
    return "HF_ColBERT" in (_read(folder / "config.json").get("architectures") or [])


class LateInteraction:
    """Scores (query, passage) pairs: the sum over query tokens of the best product (MaxSim)."""

    def __init__(self, folder: Path) -> None:
        """Load a model; its own files say how long queries and passages may be.

        Raises MissingExtraError without sentence-transformers, ConfigError for no such model.
        """
        check_seal(folder)
        try:
            from sentence_transformers import MultiVectorEncoder
        except ImportError:
            raise MissingExtraError("sentence-transformers", "late") from None
        try:
            with quiet():
                self._model: Any = MultiVectorEncoder(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ConfigError(
                f"retriever.rerank.model: {folder}: {first_line(error)}; expected a "
                "late-interaction model"
            ) from None

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the score of each (query, passage text), higher is better; texts go in once."""
        if not pairs:
            return []
        queries = list(dict.fromkeys(query for query, _ in pairs))
        texts = list(dict.fromkeys(text for _, text in pairs))
        asked = dict(zip(queries, self._encoded(self._model.encode_query, queries), strict=True))
        read = dict(zip(texts, self._encoded(self._model.encode_document, texts), strict=True))
        found = self._model.similarity_pairwise(
            [asked[query] for query, _ in pairs], [read[text] for _, text in pairs]
        )
        return [float(score) for score in found]

    def _encoded(self, encode: Any, texts: Sequence[str]) -> list[Any]:
        # A lone surrogate, which JSON can carry, would be refused by the tokenizer.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        return list(encode(clean, batch_size=_BATCH, show_progress_bar=False))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
