"""Vector engines that hold an index beyond one machine: what each has to do, and nothing more.

A version is one immutable set of vectors, whose point ids are the rows of the corpus; an alias is
the name that searches use. Both are of letters, digits and _ alone. `retriever.publish` fills a
version, tries it and moves the alias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Store(Protocol):
    """One engine. Every method raises OutageError where it cannot be reached or refuses."""

    def versions(self) -> Sequence[str]:
        """List the versions that it holds, also those of others."""
        ...

    def aliases(self) -> Mapping[str, str]:
        """Return alias -> version."""
        ...

    def create(self, version: str, dimension: int) -> None:
        """Make an empty version, searched by inner product."""
        ...

    def add(self, version: str, start: int, vectors: Vectors, ids: Sequence[str]) -> None:
        """Add the vectors of rows `start` on, with the ids of their passages."""
        ...

    def finish(self, version: str) -> None:
        """Wait until a version is ready to be searched as it will be, for a limited time."""
        ...

    def count(self, version: str) -> int:
        """Count the vectors of a version."""
        ...

    def search(self, name: str, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Search a version or an alias: scores [q, k] falling and rows [q, k], -1 where none."""
        ...

    def point(self, aliases: Mapping[str, str]) -> None:
        """Move these aliases, in one request where the engine can, else in this order."""
        ...

    def drop(self, version: str) -> None:
        """Remove a version."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
