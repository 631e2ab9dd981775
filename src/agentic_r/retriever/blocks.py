"""Large files that are known to be whole: their size and a digest of each block.

FAISS loads a file with flipped bits without a word, so every file of an index is checked against
what its manifest says.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agentic_r.errors import DataError

BLOCK = 16 << 20
"""Bytes that one digest stands for."""

AT_ONCE = 64 << 20
"""Files of together up to this size (bytes) are checked before anything is read from them."""


class Whole(msgspec.Struct, frozen=True):
    """What a file was when it was written: its bytes and the sha256 of each block, 32 digits."""

    size: int
    blocks: list[str]


def measure(path: Path) -> Whole:
    """Digest a file block by block."""
    with path.open("rb") as file:
        blocks = [_digest(block) for block in iter(lambda: file.read(BLOCK), b"")]
    return Whole(path.stat().st_size, blocks)


def check_sizes(
    folder: Path, files: Mapping[str, Whole], remedy: str, what: str = "an index"
) -> None:
    """Raise DataError where a file is missing or has another size."""
    for name, whole in files.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path}: there is no such file, expected {what}; {remedy}")
        size = path.stat().st_size
        if size != whole.size:
            raise DataError(f"{path}: damaged: got {size} bytes, expected {whole.size}; {remedy}")


def check(folder: Path, files: Mapping[str, Whole], remedy: str, what: str = "an index") -> None:
    """Read every file and compare every block. Raises DataError naming the first damaged one."""
    check_sizes(folder, files, remedy, what)
    for name, whole in files.items():
        path = folder / name
        with path.open("rb") as file:
            for number, expected in enumerate(whole.blocks):
                found = _digest(file.read(BLOCK))
                if found != expected:
                    raise DataError(
                        f"{path}: damaged in the block at byte {number * BLOCK}: got sha256 "
                        f"{found[:16]}, expected {expected[:16]}; {remedy}"
                    )


class Check:
    """The check of some files: at once where they are small, else in a thread of its own."""

    def __init__(self, folder: Path, files: Mapping[str, Whole], remedy: str) -> None:
        self._problem: DataError | None = None
        self._thread: threading.Thread | None = None
        self._arguments = (folder, files, remedy)
        check_sizes(*self._arguments)
        if sum(whole.size for whole in files.values()) <= AT_ONCE:
            check(*self._arguments)
            return
        self._thread = threading.Thread(target=self._run, name="check index", daemon=True)
        self._thread.start()

    @property
    def finished(self) -> bool:
        """Whether every block has been looked at."""
        return self._thread is None or not self._thread.is_alive()

    def wait(self) -> None:
        """Wait until every block has been looked at. Raises DataError where one is damaged."""
        if self._thread is not None:
            self._thread.join()
        self.refuse()

    def refuse(self) -> None:
        """Raise DataError where damage has been found so far."""
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        try:
            check(*self._arguments)
        except DataError as error:
            self._problem = error
        except OSError as error:
            self._problem = DataError(f"{self._arguments[0]}: cannot be read: {error}")


def _digest(block: bytes) -> str:
    return hashlib.sha256(block).hexdigest()[:32]
