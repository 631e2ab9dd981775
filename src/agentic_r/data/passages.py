"""The forms a corpus file may have, each read as passages with the place where they stand.

JSON lines of FlashRAG and BEIR (`.gz` and `.zst` too) and Parquet with the same columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from agentic_r.errors import DataError, MissingExtraError
from agentic_r.io import cannot_read, decode_line, json_lines
from agentic_r.types import Passage

EXPECTED = 'expected "id" (or "_id") and "contents", or "title" and "text"'

PACKED = frozenset({".gz", ".zst", ".parquet"})
"""Endings of files that have to be unpacked before a passage can be read by its place."""


class Line(msgspec.Struct):
    """One line of a corpus file; fields that are not named here are ignored."""

    id: str | int | None = None
    beir_id: str | int | None = msgspec.field(default=None, name="_id")
    contents: str | None = None
    title: str | None = None
    text: str | None = None


DECODER = msgspec.json.Decoder(Line)


def read_passages(path: Path) -> Iterator[tuple[str, Passage]]:
    """Yield (where it stands, passage) in the order of the file.

    The place is "FILE:LINE", lines counted from 1, or "FILE: row N" in Parquet, rows from 0.
    Raises DataError with the place where a passage is malformed, lacks a field or is empty.
    """
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    for number, line in json_lines(path):
        where = f"{path}:{number}"
        yield where, passage(decode_line(path, number, line, DECODER), where)


def place(path: Path, row: int) -> str:
    """Say where the passage of a row stands, for an error message; reads the file up to it."""
    return next(islice(read_passages(path), row, None))[0]


def passage(line: Line, where: str) -> Passage:
    """Return the passage of a line. Raises DataError where it lacks a field or is empty."""
    id = line.id if line.id is not None else line.beir_id
    if id is None or (line.contents is None and line.text is None):
        given = [name for name in line.__struct_encode_fields__ if _held(line, name) is not None]
        raise DataError(f"{where}: got a line with {given or 'none of the fields'}, {EXPECTED}")
    if line.text is not None:
        title, text = line.title or "", line.text
    else:
        title, text = _split(line.contents or "")
    if not (title.strip() or text.strip()):
        raise DataError(f"{where}: got an empty passage, expected text")
    return Passage(str(id), text, title)


def _held(line: Line, name: str) -> Any:
    return line.beir_id if name == "_id" else getattr(line, name)


def _split(contents: str) -> tuple[str, str]:
    """Split contents as the field does: the first line is the title, the rest the text."""
    title, newline, text = contents.partition("\n")
    if not newline:
        return "", contents
    title = title.strip()
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return title, text


def _parquet(path: Path) -> Iterator[tuple[str, Passage]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise MissingExtraError("pyarrow", "corpora") from None
    row = 0
    try:
        with ParquetFile(path, memory_map=True) as file:
            wanted = set(Line.__struct_encode_fields__)
            names = [name for name in file.schema_arrow.names if name in wanted]
            for batch in file.iter_batches(batch_size=4096, columns=names):
                for values in batch.to_pylist():
                    where = f"{path}: row {row}"
                    yield where, passage(_converted(values, where), where)
                    row += 1
    except (OSError, ArrowException) as error:
        raise cannot_read(path, error) from None


def _converted(values: dict[str, Any], where: str) -> Line:
    try:
        return msgspec.convert(values, Line)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: {error}; {EXPECTED}") from None
