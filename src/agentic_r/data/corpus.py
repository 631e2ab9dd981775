"""The passages that are searched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from agentic_r.errors import DataError
from agentic_r.io import decode_line, json_lines
from agentic_r.types import Passage

_EXPECTED = 'expected "id" and "contents", or "id", "title" and "text"'


class _Line(msgspec.Struct):
    """One line of a corpus file; fields that are not named here are ignored."""

    id: str | int | None = None
    contents: str | None = None
    title: str | None = None
    text: str | None = None


class Corpus:
    """Passages in a fixed order, found by row or by id.

    Raises DataError where there is no passage or an id occurs twice.
    """

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

    @classmethod
    def load(cls, path: Path | str) -> Corpus:
        """Read a FlashRAG JSON lines corpus (`.gz` too), one passage a line.

        A line is {"id", "contents"}, contents being the title in double quotes, a newline and the
        text (contracts A6), or {"id", "title", "text"}; ids that are integers become strings.
        Raises DataError, with file and line, where a line is malformed, lacks a field or repeats
        an id, and where the file is missing or has no passage.
        """
        decoder = msgspec.json.Decoder(_Line)
        passages: list[Passage] = []
        lines: dict[str, int] = {}
        for number, line in json_lines(path):
            passage = _passage(decode_line(path, number, line, decoder), f"{path}:{number}")
            first = lines.setdefault(passage.id, number)
            if first != number:
                raise DataError(
                    f"{path}:{number}: got id {passage.id!r}, which line {first} has too; "
                    "expected unique ids"
                )
            passages.append(passage)
        if not passages:
            raise DataError(f"{path}: got a corpus without passages, {_EXPECTED} a line")
        return cls(passages)

    def __len__(self) -> int:
        return len(self._passages)

    def __iter__(self) -> Iterator[Passage]:
        return iter(self._passages)

    def __getitem__(self, row: int) -> Passage:
        return self._passages[row]

    def get(self, id: str) -> Passage:
        """Return the passage with this id. Raises DataError where the corpus has none."""
        return self._passages[self.row(id)]

    def row(self, id: str) -> int:
        """Return the row, from 0, of the passage with this id. Raises DataError for none."""
        try:
            return self._rows[id]
        except KeyError:
            raise DataError(
                f"the corpus of {len(self)} passages has no passage {id!r}; "
                "check that the corpus and the file that names this id belong together"
            ) from None

    def __contains__(self, value: object) -> bool:
        """Say whether an id (a string) or a passage is in the corpus."""
        if isinstance(value, Passage):
            return value.id in self._rows and self.get(value.id) == value
        return value in self._rows

    @cached_property
    def digest(self) -> str:
        """A sha256 of all ids, titles and texts in order: equal corpora have equal digests."""
        sha = hashlib.sha256()
        encoder = msgspec.json.Encoder()
        for passage in self._passages:
            sha.update(encoder.encode(passage))
            sha.update(b"\n")
        return sha.hexdigest()


def _passage(line: _Line, where: str) -> Passage:
    given = [name for name in line.__struct_fields__ if getattr(line, name) is not None]
    if line.id is None or (line.contents is None and line.text is None):
        raise DataError(f"{where}: got a line with {given or 'none of the fields'}, {_EXPECTED}")
    if line.text is not None:
        title, text = line.title or "", line.text
    else:
        title, text = _split(line.contents or "")
    if not (title.strip() or text.strip()):
        raise DataError(f"{where}: got an empty passage, expected text")
    return Passage(str(line.id), text, title)


def _split(contents: str) -> tuple[str, str]:
    """Split contents as the field does: the first line is the title, the rest the text."""
    title, newline, text = contents.partition("\n")
    if not newline:
        return "", contents
    title = title.strip()
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return title, text
