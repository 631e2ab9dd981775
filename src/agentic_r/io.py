"""Files that survive a kill: atomic writes, digests, JSON lines, append-only rows.

A row on disk is a `msgspec` type, one JSON object a line. Nothing here knows what the rows mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, TypeVar

import msgspec

from agentic_r.errors import DataError, RunError
from agentic_r.packed import open_bytes

T = TypeVar("T")

NOT_UTF8 = "the file is not UTF-8; save it as UTF-8"

_SHOWN = 60
"""Characters of a bad line that an error message quotes."""


def write_atomic(path: Path | str, data: str | bytes) -> None:
    """Write a whole file or nothing: temporary file in the same folder, fsync, rename, mode 0644.

    The folder is made where it is missing. Raises RunError where the file cannot be written, such
    as on a full disk; the earlier file is then untouched.
    """
    with written(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def written(path: Path | str) -> Iterator[IO[bytes]]:
    """Yield a file to write to; it takes the place of `path`, whole, when the block ends.

    Raises as `write_atomic` does; any error in the block leaves the earlier file untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        _discard(temporary)
        raise _cannot_write(path, error) from error
    except BaseException:
        _discard(temporary)
        raise


def digest_file(path: Path | str) -> str:
    """Return the sha256 of a file's bytes in hexadecimal. Raises DataError where it is missing."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise cannot_read(Path(path), error) from error


def digest_model(name: str) -> str:
    """Return what identifies a model: a digest of its folder's weights and settings, else its name.

    Raises DataError where a file of the folder cannot be read.
    """
    folder = Path(name)
    if not folder.is_dir():
        return name
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors")]
    return fingerprint([(path.name, digest_file(path)) for path in files])


def fingerprint(value: Any) -> str:
    """Return 16 hexadecimal characters that stand for any value msgspec can write as JSON.

    The JSON is canonical (sorted keys), so that equal values have equal fingerprints in every
    process.
    """
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:16]


def user_cache() -> Path:
    """Return the folder of this user for what can be made again."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "agentic-r"


def json_lines(path: Path | str) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) of a file, `.gz` and `.zst` unpacked, no blank lines.

    Raises DataError where the file is missing or cannot be read.
    """
    path = Path(path)
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, start=1):
                stripped = line.removeprefix(b"\xef\xbb\xbf").strip()
                if stripped:
                    yield number, stripped
    except (OSError, EOFError, zlib.error) as error:
        raise cannot_read(path, error) from error


def decode_line(path: Path | str, number: int, line: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode one line; raises DataError "FILE:LINE: got ..., expected ..."."""
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if line.startswith(b"["):
            raise DataError(
                f"{path}:{number}: got a JSON list, expected one JSON object a line; write each "
                "element of the list on a line of its own"
            ) from None
        raise DataError(f"{path}:{number}: got {_shown(line)}, expected {_why(error)}") from None


def read_jsonl(path: Path | str, type: type[T], allow_empty: bool = False) -> list[T]:
    """Read every line of a JSON lines file (`.gz` too) as `type`.

    Raises DataError with file and line where a line is malformed, and where the file is missing
    or, unless `allow_empty`, has no row.
    """
    decoder = msgspec.json.Decoder(type)
    rows = [decode_line(path, number, line, decoder) for number, line in json_lines(path)]
    if not rows and not allow_empty:
        raise DataError(f"{path}: got an empty file, expected one JSON object a line")
    return rows


def read_json_list(path: Path | str, type: type[T], expected: str) -> list[T]:
    """Read one JSON list, each element as `type`; `expected` names them in errors.

    Raises DataError where there is no such file or it holds something else.
    """
    path = Path(path)
    try:
        return msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), type=list[type])  # type: ignore[valid-type]
    except OSError as error:
        raise cannot_read(path, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: {_unread(error)}; expected a JSON list of {expected}") from error


def write_jsonl(path: Path | str, rows: Iterable[Any]) -> None:
    """Write rows as JSON lines, all or nothing. Raises RunError where it cannot be written."""
    with written(path) as file:
        encoder = msgspec.json.Encoder()
        for row in rows:
            file.write(encoder.encode(row) + b"\n")


class Rows(Generic[T]):
    """The rows of an append-only file: what is finished is read, what comes is appended safely.

    A last line without its newline was torn by a kill and is cut off; any other malformed line
    raises DataError with file and line. `after` is called after each append.
    """

    def __init__(
        self,
        path: Path | str,
        type: type[T],
        *,
        writable: bool = True,
        after: Callable[[], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self._writable = writable
        self._after = after
        self._file: IO[bytes] | None = None
        self._size = self._cut() if self.path.exists() else 0
        self.rows: list[T] = read_jsonl(self.path, type, allow_empty=True) if self._size else []
        """All finished rows, in the order of the file."""

    def extend(self, rows: Iterable[T]) -> None:
        """Append rows with one write, flushed to the disk before it returns.

        Raises RunError where the disk refuses; the file then holds what it held before.
        """
        added = list(rows)
        if not added:
            return
        file, raw = self._open(), _encode(added)
        try:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            self._undo()
            raise _cannot_write(self.path, error) from error
        self._size += len(raw)
        self.rows.extend(added)
        if self._after is not None:
            self._after()

    def close(self, order: Callable[[T], Any] | None = None) -> None:
        """Close the file; with `order`, rewrite it first in that canonical order, atomically.

        `order` is a sort key; rows of equal key keep their order.
        """
        if self._file is not None:
            self._file.close()
            self._file = None
        if order is not None:
            self._check_writable()
            self.rows.sort(key=order)
            raw = _encode(self.rows)
            write_atomic(self.path, raw)
            self._size = len(raw)

    def __enter__(self) -> Rows[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _cut(self) -> int:
        """Cut a torn last line and return the bytes that are left."""
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            keep = _after_last_newline(file, size)
        if keep < size and self._writable:
            with self.path.open("r+b") as file:
                file.truncate(keep)
                os.fsync(file.fileno())
        return keep

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._check_writable()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: after a failed write nothing is left to be flushed at close.
            self._file = self.path.open("ab", buffering=0)
        return self._file

    def _undo(self) -> None:
        if self._file is not None:
            self._file.truncate(self._size)
            self._file.close()
            self._file = None

    def _check_writable(self) -> None:
        if not self._writable:
            raise RunError(f"{self.path} belongs to a finished stage and cannot be appended to")


def _after_last_newline(file: IO[bytes], size: int, block: int = 1 << 16) -> int:
    end = size
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _encode(rows: Iterable[Any]) -> bytes:
    return msgspec.json.Encoder().encode_lines(list(rows))


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _why(error: Exception) -> str:
    if isinstance(error, msgspec.ValidationError):
        said = str(error).replace(" | null", "")
        wrong_type = said.startswith("Expected ")
        return said.removeprefix("Expected ") if wrong_type else f"a well-formed row: {said}"
    return f"one JSON object a line ({_unread(error)})"


def _unread(error: Exception) -> str:
    return NOT_UTF8 if isinstance(error, UnicodeDecodeError) else str(error)


def cannot_read(path: Path, error: Exception) -> DataError:
    """Return the error to raise where a file cannot be read."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: there is no such file; check the path")
    if isinstance(error, IsADirectoryError):
        return DataError(f"{path}: got a folder, expected a file")
    return DataError(f"{path}: cannot be read: {_reason(error)}")


def _cannot_write(path: Path, error: OSError) -> RunError:
    if isinstance(error, IsADirectoryError):
        return RunError(f"{path}: a folder is there, expected a file; name another target")
    if isinstance(error, FileExistsError | NotADirectoryError):
        return RunError(
            f"{path}: a file is where its folder should be; name another target, or move the file"
        )
    return RunError(
        f"{path}: cannot be written: {_reason(error)}; finished work is kept, "
        "so make room or fix the permissions and run the same command again"
    )


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the caller is about to raise the first error, which is the one that matters


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
