"""What a retriever returned, kept on the disk, so that a query is searched once."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agentic_r.errors import DataError
from agentic_r.protocols import Retriever
from agentic_r.types import Hit

_TABLE = (
    "CREATE TABLE IF NOT EXISTS found (key TEXT, query TEXT, k INTEGER, hits BLOB, "
    "PRIMARY KEY (key, query, k)) WITHOUT ROWID"
)


class CachedRetriever:
    """Answers from a file what it has answered before; several processes may share the file.

    `key` says what the answers depend on (index, model, address): another key never sees them.
    Failures are not kept. Raises DataError where the file is no cache or cannot be used.
    """

    def __init__(self, inner: Retriever, path: Path | str, key: str) -> None:
        self._inner = inner
        self._path = Path(path)
        self._key = key
        self._decoder = msgspec.json.Decoder(list[Hit])
        self._run(_TABLE)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return what the inner retriever returns, asking it only for queries that are new."""
        unique = list(dict.fromkeys(queries))
        known = {}
        for query in unique:
            rows = self._run(
                "SELECT hits FROM found WHERE key = ? AND query = ? AND k = ?",
                [(self._key, _text(query), k)],
            )
            if rows:
                known[query] = self._decoder.decode(rows[0][0])
        new = [query for query in unique if query not in known]
        if new:
            found = self._inner.search(new, k)
            known |= dict(zip(new, found, strict=True))
            self._run(
                "INSERT OR REPLACE INTO found VALUES (?, ?, ?, ?)",
                [
                    (self._key, _text(query), k, msgspec.json.encode(hits))
                    for query, hits in zip(new, found, strict=True)
                ],
            )
        return [list(known[query]) for query in queries]

    def _run(
        self, statement: str, rows: Sequence[tuple[object, ...]] = ((),)
    ) -> list[tuple[bytes]]:
        # A connection a statement: nothing is shared between threads or processes.
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=60)
            try:
                with connection:
                    if statement.startswith("SELECT"):
                        return connection.execute(statement, rows[0]).fetchall()
                    connection.executemany(statement, rows)
                    return []
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"{self._path}: the retrieval cache cannot be used ({error}); delete it, or take "
                "another with --retriever.cache"
            ) from None


def _text(query: str) -> str:
    return query.encode("utf-8", "backslashreplace").decode()
