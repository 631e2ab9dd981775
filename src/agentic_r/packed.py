"""Files that may be packed with gzip or Zstandard, unpacked while they are read."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, Any, cast

from agentic_r.errors import MissingExtraError


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file to read its bytes, `.gz` and `.zst` unpacked on the way.

    Raises MissingExtraError where `.zst` needs a package that is not installed. A damaged `.zst`
    raises OSError at reading, as a damaged `.gz` does.
    """
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return cast("IO[bytes]", io.BufferedReader(_Unpacked(path), 1 << 20))
    return path.open("rb")


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of a `.zst` file; a cut or damaged file is an OSError."""

    def __init__(self, path: Path) -> None:
        try:
            import zstandard
        except ModuleNotFoundError:
            raise MissingExtraError("zstandard", "corpora") from None
        self._damage = zstandard.ZstdError
        self._packed = path.open("rb")
        self._frame: Any = None
        self._new = zstandard.ZstdDecompressor
        self._ready = b""

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; 0 at the end of the file."""
        while not self._ready and self._more():
            pass
        taken = self._ready[: len(buffer)]
        self._ready = self._ready[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        """Close the packed file too."""
        self._packed.close()
        super().close()

    def _more(self) -> bool:
        """Unpack some more of the file; a file may hold several frames one after the other."""
        block = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
        block = block or self._packed.read(1 << 17)
        if not block:
            if self._frame is not None and not self._frame.eof:
                raise OSError("the file ends too early")
            return False
        if self._frame is None or self._frame.eof:
            self._frame = self._new().decompressobj()
        try:
            self._ready = self._frame.decompress(block)
        except self._damage as error:
            raise OSError(str(error)) from None
        return True
