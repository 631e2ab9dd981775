"""One process's retriever, lent to the others of a training.

An index may fill a machine's memory and a client of a service cannot be copied, so there is one
retriever, the first process's, and the others ask it over a socket. What travels are strings,
numbers and passages (msgpack), never code; a key that only the processes know opens the line.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Client, Connection, Listener

import msgspec

from agentic_r.errors import OutageError
from agentic_r.protocols import Retriever
from agentic_r.types import Hit


class _Asked(msgspec.Struct, array_like=True):
    queries: list[str]
    k: int


class _Told(msgspec.Struct, array_like=True):
    hits: list[list[Hit]] = []
    error: str = ""


class Borrowed:
    """The retriever of another process.

    Raises OutageError where that process is gone, and where its search failed.
    """

    def __init__(self, address: tuple[str, int], key: bytes) -> None:
        self._address, self._key = address, key
        self._line: Connection | None = None

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return what the other process's retriever finds."""
        try:
            if self._line is None:
                self._line = Client(self._address, authkey=self._key)
            self._line.send_bytes(msgspec.msgpack.encode(_Asked(list(queries), k)))
            told = msgspec.msgpack.decode(self._line.recv_bytes(), type=_Told)
        except (OSError, EOFError) as error:
            raise OutageError(
                f"the first process does not answer searches at {self._address[0]} port "
                f"{self._address[1]} ({type(error).__name__}); look at its output"
            ) from error
        if told.error:
            raise OutageError(f"the first process cannot search: {told.error}")
        return told.hits


class _InTurn:
    """A retriever that several threads may ask, one at a time."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._lock = threading.Lock()

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        with self._lock:
            return self._retriever.search(queries, k)


@contextlib.contextmanager
def lent(retriever: Retriever) -> Iterator[tuple[Retriever, Borrowed]]:
    """Lend `retriever` inside: yields what this process asks from now on, and what others ask.

    The line is at the address that `torchrun` gave out for the first process.
    """
    host, key = os.environ.get("MASTER_ADDR", "127.0.0.1"), secrets.token_bytes(32)
    shared = _InTurn(retriever)
    with Listener((host, 0), backlog=64, authkey=key) as listener:
        address, over = (host, int(listener.address[1])), threading.Event()
        server = threading.Thread(target=_serve, args=(listener, shared, over), daemon=True)
        server.start()
        try:
            yield shared, Borrowed(address, key)
        finally:
            over.set()
            # A thread that waits in accept would still take one caller after the socket is closed.
            with contextlib.suppress(OSError):
                socket.create_connection(address, timeout=5).close()
            server.join(timeout=5)


def _serve(listener: Listener, retriever: Retriever, over: threading.Event) -> None:
    while not over.is_set():
        try:
            line = listener.accept()
        except Exception:  # somebody without the key, or who hung up: the others go on
            continue
        if over.is_set():
            line.close()
            return
        threading.Thread(target=_answer, args=(line, retriever), daemon=True).start()


def _answer(line: Connection, retriever: Retriever) -> None:
    with line, contextlib.suppress(OSError, EOFError):
        while True:
            asked = msgspec.msgpack.decode(line.recv_bytes(), type=_Asked)
            try:
                told = _Told(retriever.search(asked.queries, asked.k))
            except Exception as error:
                told = _Told(error=f"{type(error).__name__}: {error}")
            line.send_bytes(msgspec.msgpack.encode(told))
