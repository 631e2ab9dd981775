"""Where every passage of a large corpus file stands: a table on the disk, mapped into memory.

    FILE.table           header, offsets [n + 1], hashes of the ids in order [n], their rows [n]
    FILE.unpacked.jsonl  the passages of a packed file (`.gz`, `.zst`, Parquet) one a line
    FILE.bm25/           the index of BM25, where one was asked for (`retriever.bm25`)

They lie beside the corpus file, or in the user's cache folder where that cannot be written. They
are made at the first opening and again when the file has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from agentic_r.data.passages import DECODER, EXPECTED, PACKED, passage, place, read_passages
from agentic_r.errors import DataError
from agentic_r.io import cannot_read, decode_line, digest_file, fingerprint, user_cache, written
from agentic_r.types import Passage

_MAGIC = b"agrtab01"
_PAGE = 4096
_BOM = b"\xef\xbb\xbf"


class Header(msgspec.Struct, frozen=True):
    """What a table was made from; `digest` is that of the passages, `sha256` that of the file."""

    count: int
    digest: str
    size: int
    modified: int
    sha256: str


class Table:
    """The passages of a corpus file, found by row or id without holding a text in memory."""

    def __init__(self, path: Path) -> None:
        """Open the table of a corpus file and make it first where there is none that fits.

        Raises DataError, with file and line, as `read_passages` does, where an id occurs twice
        and where there is no passage.
        """
        self.path = path
        table, text = _places(path)
        self.header = _fresh(path, table) or _make(path, table, text)
        count = self.header.count
        start = _start(table)
        self._offsets = np.memmap(table, "<u8", "r", start, (count + 1,))
        self._hashes = np.memmap(table, "<u8", "r", start + 8 * (count + 1), (count,))
        self._rows = np.memmap(table, "<u4", "r", start + 8 * (2 * count + 1), (count,))
        with text.open("rb") as file:
            self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return self.header.count

    @property
    def digest(self) -> str:
        """The digest of all passages, as the header has it."""
        return self.header.digest

    def passage(self, row: int) -> Passage:
        """Read one passage. Raises DataError where the file does not hold what it held."""
        line = self._text[int(self._offsets[row]) : int(self._offsets[row + 1])]
        where = f"{self.path}: row {row}"
        try:
            return passage(DECODER.decode(line.removeprefix(_BOM)), where)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(
                f"{where}: the file was changed while it was open, or its table is damaged "
                f"({error}); delete {_places(self.path)[0]} and run the same command again"
            ) from None

    def row(self, id: str) -> int | None:
        """Return the row of an id, or None where no passage has it."""
        wanted = _hash(id)
        at = int(np.searchsorted(self._hashes, np.uint64(wanted)))
        while at < len(self) and int(self._hashes[at]) == wanted:
            row = int(self._rows[at])
            if self.passage(row).id == id:
                return row
            at += 1
        return None

    def passages(self, start: int, stop: int) -> Iterator[Passage]:
        """Read the passages of rows `start` to `stop` one after the other."""
        return (self.passage(row) for row in range(start, min(stop, len(self))))


def table_place(path: Path) -> Path:
    """Return where the table of a corpus file lies."""
    return _places(path)[0]


def _places(path: Path) -> tuple[Path, Path]:
    """Return where the table and the text of a corpus file lie."""
    folder = path.parent
    if not (folder / f"{path.name}.table").exists() and not os.access(folder, os.W_OK):
        folder = user_cache() / "corpora" / fingerprint(str(path.resolve()))
    packed = path.suffix in PACKED
    return folder / f"{path.name}.table", (
        folder / f"{path.name}.unpacked.jsonl" if packed else path
    )


def _start(table: Path) -> int:
    """Return where the arrays of a table begin."""
    with table.open("rb") as file:
        file.seek(len(_MAGIC))
        length = int.from_bytes(file.read(8), "little")
    return -(-(len(_MAGIC) + 8 + length) // _PAGE) * _PAGE


def _fresh(path: Path, table: Path) -> Header | None:
    """Return the header of a table that still fits its corpus file, or None."""
    try:
        status = path.stat()
        with table.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return None
            header = msgspec.json.decode(
                file.read(int.from_bytes(file.read(8), "little")), type=Header
            )
    except FileNotFoundError as error:
        if path.exists():
            return None
        raise cannot_read(path, error) from None
    except msgspec.DecodeError:
        return None
    except OSError as error:
        raise cannot_read(path, error) from None
    expected = _start(table) + 8 * (2 * header.count + 1) + 4 * header.count
    whole = table.stat().st_size == expected and _places(path)[1].exists()
    if not whole or status.st_size != header.size:
        return None
    if status.st_mtime_ns != header.modified and digest_file(path) != header.sha256:
        return None
    return header


def _make(path: Path, table: Path, text: Path) -> Header:
    with held(path):
        found = _fresh(path, table)  # another process may have made it meanwhile
        if found is not None:
            return found
        table.parent.mkdir(parents=True, exist_ok=True)
        for name in (table.name, text.name):
            for left in table.parent.glob(f".{name}.*.tmp"):  # of processes that were killed
                left.unlink(missing_ok=True)
        before = path.stat()
        if text != path:
            _unpack(path, text)
        offsets, hashes, digest = _scan(path, text)
        order, rows = _sorted(path, hashes, text, offsets)
        header = Header(len(rows), digest, before.st_size, before.st_mtime_ns, digest_file(path))
        after = path.stat()
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise DataError(f"{path}: changed while it was read; run the same command again")
        raw = msgspec.json.encode(header)
        with written(table) as file:
            file.write(_MAGIC + len(raw).to_bytes(8, "little") + raw)
            file.write(b"\0" * (-file.tell() % _PAGE))
            for column in (np.frombuffer(offsets, "<u8"), order, rows):
                file.write(column.data)
    return header


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep other processes from making the same files at the same time; they wait."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _unpack(path: Path, text: Path) -> None:
    encoder = msgspec.json.Encoder()
    with written(text) as file:
        for _, found in read_passages(path):
            file.write(encoder.encode(found) + b"\n")


def _scan(path: Path, text: Path) -> tuple[array[int], array[int], str]:
    """Read all lines once: where they begin, the hashes of their ids, the passages' digest."""
    offsets, hashes, sha = array("Q"), array("Q"), hashlib.sha256()
    encoder = msgspec.json.Encoder()
    at = 0
    with text.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = raw.removeprefix(_BOM).strip()
            if line:
                found = passage(decode_line(path, number, line, DECODER), f"{path}:{number}")
                offsets.append(at)
                hashes.append(_hash(found.id))
                sha.update(encoder.encode(found) + b"\n")
            at += len(raw)
    if not offsets:
        raise DataError(f"{path}: got a corpus without passages, {EXPECTED} a line")
    offsets.append(at)
    return offsets, hashes, sha.hexdigest()


def _sorted(
    path: Path, hashes: array[int], text: Path, offsets: array[int]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """Sort the hashes and refuse ids that occur twice."""
    values = np.frombuffer(hashes, "<u8")
    rows = np.argsort(values, kind="stable").astype("<u4")
    order = values[rows]
    equal = np.flatnonzero(order[1:] == order[:-1])
    with text.open("rb") as file:

        def id_of(row: int) -> str:
            file.seek(offsets[row])
            line = file.read(offsets[row + 1] - offsets[row]).removeprefix(_BOM)
            return passage(DECODER.decode(line), str(path)).id

        for at in equal[np.argsort(rows[equal + 1], kind="stable")]:
            first, second = int(rows[at]), int(rows[at + 1])
            if id_of(first) == id_of(second):
                raise DataError(
                    f"{place(path, second)}: got id {id_of(first)!r}, which "
                    f"{place(path, first)} has too; expected unique ids"
                )
    return order, rows


def _hash(id: str) -> int:
    raw = id.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
