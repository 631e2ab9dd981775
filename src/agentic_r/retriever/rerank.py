"""The best passages of a retriever, ranked anew by a model that sees query and passage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import transformers

from agentic_r.errors import ConfigError
from agentic_r.protocols import Retriever
from agentic_r.retriever.blend import blended, order
from agentic_r.retriever.encoder import plan
from agentic_r.retriever.loading import find_folder, first_line, quiet
from agentic_r.retriever.sealed import check_seal
from agentic_r.types import Hit


class Reranker(Protocol):
    """Anything that scores pairs."""

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the relevance of each (query, passage text), higher is better."""
        ...


class CrossEncoder:
    """Scores (query, passage) pairs with any sequence classifier of one output."""

    def __init__(self, name: str, max_length: int = 512, batch_tokens: int = 4096) -> None:
        folder = find_folder(name)
        check_seal(folder)
        model_class = transformers.AutoModelForSequenceClassification
        try:
            with quiet():
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                    folder, local_files_only=True
                )
                self._model: Any = model_class.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
                ).eval()
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"retriever.rerank.model: {name!r}: {first_line(error)}; expected a cross-encoder"
            ) from None
        outputs = int(self._model.config.num_labels)
        if outputs != 1:
            raise ConfigError(
                f"retriever.rerank.model: {name!r} has {outputs} outputs, expected 1, the relevance"
            )
        if torch.cuda.is_available():
            self._model.to("cuda")
        self._max_length = min(max_length, int(self._tokenizer.model_max_length))
        self._batch_tokens = batch_tokens

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the relevance of each (query, passage text), higher is better."""
        if not pairs:
            return []
        clean = [tuple(x.encode("utf-8", "replace").decode() for x in pair) for pair in pairs]
        encoded = self._tokenizer(
            [query for query, _ in clean],
            [text for _, text in clean],
            truncation="longest_first",
            max_length=self._max_length,
        )
        found = [0.0] * len(pairs)
        with torch.inference_mode():
            for rows in plan([len(x) for x in encoded["input_ids"]], self._batch_tokens):
                part = {name: [values[row] for row in rows] for name, values in encoded.items()}
                batch = self._tokenizer.pad(part, return_tensors="pt").to(self._model.device)
                logits = self._model(**batch).logits[:, 0].float().tolist()
                for row, score in zip(rows, logits, strict=True):
                    found[row] = score
        return found


class RerankedRetriever:
    """Asks a retriever for `depth` passages and ranks them by a re-ranker's scores.

    With a `weight` below 1 the retriever's own scores count for the rest.
    """

    def __init__(
        self, inner: Retriever, model: Reranker, *, depth: int = 50, weight: float = 1.0
    ) -> None:
        self._inner = inner
        self._model = model
        self._depth = depth
        self._weight = weight

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return the `k` best hits for each query; a pair that occurs twice is scored once.

        Raises ConfigError for k < 1, and as the retriever does.
        """
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        if not self._weight:
            return self._inner.search(queries, k)
        found = self._inner.search(queries, max(k, self._depth))
        pairs = [
            (query, hit.passage.contents)
            for query, hits in zip(queries, found, strict=True)
            for hit in hits
        ]
        unique = list(dict.fromkeys(pairs))
        scores = dict(zip(unique, self._model.scores(unique), strict=True))
        ranked = []
        for query, hits in zip(queries, found, strict=True):
            own = [hit.score for hit in hits]
            again = [scores[query, hit.passage.contents] for hit in hits]
            mixed = blended(own, again, self._weight)
            ranked.append([Hit(hits[at].passage, mixed[at]) for at in order(mixed)[:k]])
        return ranked
