"""Cuts texts to a number of tokens, by the agent's own tokens where they are known."""

from __future__ import annotations

import re
from typing import Any

from agentic_r.protocols import Ruler

_PIECE = re.compile(r"\w{1,4}|[^\w\s]")


class Estimate:
    """A ruler for models whose tokens are not known here: four letters, or one mark, a token."""

    limit = 2**31

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where each piece of `text` begins and ends."""
        return [match.span() for match in _PIECE.finditer(text)]


class TokenRuler:
    """A ruler that asks the tokenizer of a model in this process."""

    limit = 2**31

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where each token of `text` begins and ends."""
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        found = self._tokenizer(
            clean, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [(start, end) for start, end in found["offset_mapping"] if end > start]


def token_ruler(llm: object) -> Ruler | None:
    """Return the ruler of a model that brings its tokenizer, None for any other."""
    tokenizer = getattr(llm, "tokenizer", None)
    return TokenRuler(tokenizer) if getattr(tokenizer, "is_fast", False) else None


def first(text: str, tokens: int, ruler: Ruler | None) -> str:
    """Return the first `tokens` tokens of a text."""
    spans = _long(text, tokens, ruler)
    return text[: spans[tokens - 1][1]] if spans else text


def last(text: str, tokens: int, ruler: Ruler | None) -> str:
    """Return the last `tokens` tokens of a text."""
    spans = _long(text, tokens, ruler)
    return text[spans[-tokens][0] :] if spans else text


def outer(text: str, tokens: int, ruler: Ruler | None) -> str:
    """Return a text of fewer than `tokens` tokens whole, else its two ends.

    Each end has half of the tokens less twenty, as SimpleDeepSearcher cuts its documents.
    """
    spans = _long(text, tokens - 1, ruler)
    if not spans:
        return text
    half = tokens // 2 - 20
    return text[: spans[half - 1][1]] + text[spans[-half][0] :]


def _long(text: str, tokens: int, ruler: Ruler | None) -> list[tuple[int, int]]:
    """Return the spans of a text that has more than `tokens` tokens, else none."""
    # A token is at least one byte, so that short texts need not be measured.
    if len(text.encode("utf-8", "replace")) <= tokens:
        return []
    spans = list((ruler or Estimate()).spans(text))
    return spans if len(spans) > tokens else []
