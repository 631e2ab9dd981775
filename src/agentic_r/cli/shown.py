"""What several verbs print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentic_r.evaluation.benchmark import Row


def say(text: str) -> None:
    """Print a heading at once, for what follows may take long."""
    print(f"\n== {text}", flush=True)


def show(rows: Sequence[Row]) -> None:
    """Print the table, and what it cannot say by itself."""
    from agentic_r.evaluation.report import notes, table

    print("\n".join(["", table(rows), *notes(rows)]))
