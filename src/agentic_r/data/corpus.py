"""The passages that are searched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agentic_r.data.passages import EXPECTED, PACKED, read_passages
from agentic_r.errors import DataError
from agentic_r.io import cannot_read
from agentic_r.types import Passage

if TYPE_CHECKING:
    from agentic_r.data.table import Table

SMALL = 16 << 20
"""Files up to this size (bytes; a quarter of it where packed) are read into memory whole."""


class Corpus:
    """Passages in a fixed order, found by row or by id.

    A corpus of values is held in memory; that of a large file stays on the disk and is read by
    place. Ids are strings of any form and never rows. Raises DataError where there is no passage
    or an id occurs twice.
    """

    source: Path | None = None
    """The file that this corpus reads from, None where it is in memory."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages: _Memory | Table = _Memory(passages)

    @classmethod
    def load(cls, path: Path | str) -> Corpus:
        """Open a FlashRAG or BEIR corpus: JSON lines (`.gz` and `.zst` too) or Parquet.

        A passage is {"id", "contents"}, contents being the title in double quotes, a newline and
        the text (contracts A6), or {"id" or "_id", "title", "text"}; ids that are integers become
        strings. The first opening of a large file makes a table beside it (see `data.table`).
        Raises DataError, with file and line, where a passage is malformed, empty, lacks a field or
        repeats an id, and where the file is missing or has no passage.
        """
        path = Path(path)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise cannot_read(path, error) from None
        if size > (SMALL // 4 if path.suffix in PACKED else SMALL):
            from agentic_r.data.table import Table  # numpy is not for `import agentic_r.data`

            corpus = cls.__new__(cls)
            corpus.source, corpus._passages = path, Table(path)
            return corpus
        return cls(_read(path))

    def __len__(self) -> int:
        return len(self._passages)

    def __iter__(self) -> Iterator[Passage]:
        return self.passages(0, len(self))

    def passages(self, start: int, stop: int) -> Iterator[Passage]:
        """Read the passages of rows `start` to `stop` (not included), one after the other."""
        return self._passages.passages(start, stop)

    def __getitem__(self, row: int) -> Passage:
        count = len(self)
        if not -count <= row < count:
            raise IndexError(f"got row {row}, the corpus has {count} passages")
        return self._passages.passage(row % count)

    def get(self, id: str) -> Passage:
        """Return the passage with this id. Raises DataError where the corpus has none."""
        return self[self.row(id)]

    def row(self, id: str) -> int:
        """Return the row, from 0, of the passage with this id. Raises DataError for none."""
        row = self._passages.row(id)
        if row is None:
            raise DataError(
                f"the corpus of {len(self)} passages has no passage {id!r}; "
                "check that the corpus and the file that names this id belong together"
            )
        return row

    def __contains__(self, value: object) -> bool:
        """Say whether an id (a string) or a passage is in the corpus."""
        if isinstance(value, Passage):
            return value.id in self and self.get(value.id) == value
        return isinstance(value, str) and self._passages.row(value) is not None

    @property
    def beside(self) -> Path | None:
        """Where files made from a corpus that is on the disk go: this name with an ending."""
        if self.source is None:
            return None
        from agentic_r.data.table import table_place

        return table_place(self.source).with_name(self.source.name)

    @property
    def digest(self) -> str:
        """A sha256 of all ids, titles and texts in order: equal corpora have equal digests."""
        return self._passages.digest


class _Memory:
    """Passages held in memory."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = tuple(passages)
        if not self._passages:
            raise DataError("got a corpus without passages, expected at least one")
        self._rows: dict[str, int] = {}
        for row, passage in enumerate(self._passages):
            first = self._rows.setdefault(passage.id, row)
            if first != row:
                raise DataError(
                    f"passage id {passage.id!r} is on rows {first} and {row}, expected unique ids"
                )

    def __len__(self) -> int:
        return len(self._passages)

    def passage(self, row: int) -> Passage:
        return self._passages[row]

    def row(self, id: str) -> int | None:
        return self._rows.get(id)

    def passages(self, start: int, stop: int) -> Iterator[Passage]:
        return iter(self._passages[start:stop])

    @cached_property
    def digest(self) -> str:
        sha = hashlib.sha256()
        encoder = msgspec.json.Encoder()
        for passage in self._passages:
            sha.update(encoder.encode(passage) + b"\n")
        return sha.hexdigest()


def _read(path: Path) -> list[Passage]:
    """Read a small file whole."""
    passages: list[Passage] = []
    places: dict[str, str] = {}
    for where, passage in read_passages(path):
        first = places.setdefault(passage.id, where)
        if first != where:
            raise DataError(
                f"{where}: got id {passage.id!r}, which {first} has too; expected unique ids"
            )
        passages.append(passage)
    if not passages:
        raise DataError(f"{path}: got a corpus without passages, {EXPECTED} a line")
    return passages
