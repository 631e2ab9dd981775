"""When two texts are copies of each other: the one notion of it, in labels and in training."""

from __future__ import annotations

import hashlib


def content_key(text: str) -> bytes:
    """Return a digest that is equal for texts that differ in case and white space at most."""
    return hashlib.sha256(" ".join(text.split()).casefold().encode("utf-8", "replace")).digest()
