"""How long a retriever input may be: the encoder's own tokens, counted before anything is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentic_r.retriever.encoder import Encoder


class QueryRuler:
    """The `Ruler` of an encoder's queries: its limit without special tokens and prefix."""

    def __init__(self, encoder: Encoder) -> None:
        self._tokenizer = encoder.tokenizer
        self._prefix = encoder.settings.query_prefix
        own = self._tokenizer(self._prefix, return_attention_mask=False)["input_ids"]
        longest = encoder.settings.query_length or encoder.max_length
        self.limit = longest - encoder.settings.append_eos - len(own)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where each token of `text` lies, read behind the prefix as the encoder does."""
        # As in `Encoder.tokens`: a lone surrogate would be refused by the tokenizer.
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        found = self._tokenizer(
            self._prefix + clean,
            truncation=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        at = len(self._prefix)
        # Special tokens have the empty span (0, 0).
        return [
            (max(start - at, 0), end - at)
            for start, end in found["offset_mapping"]
            if end > max(start, at)
        ]
