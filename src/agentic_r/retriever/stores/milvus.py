"""Milvus as a store: a server or a cluster by its URL, or Milvus Lite in this process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agentic_r.errors import MissingExtraError, OutageError
from agentic_r.retriever.stores import Rows, Vectors

PLAIN = 20_000
"""Up to this many vectors a version is searched without a graph, exactly."""

_AT_ONCE = 1_024
"""Queries of one request: their vectors must fit into a message of gRPC."""

_LONGEST = 65_535
"""Bytes of a passage's id at most: as long as a field of Milvus can be."""


class MilvusStore:
    """Collections are versions. `url` is a server's, or a path ending in .db for Milvus Lite.

    `build_timeout` is how many seconds a version may take to become searchable.
    """

    def __init__(
        self, url: str, token: str = "", timeout: float = 120.0, build_timeout: float = 21_600.0
    ) -> None:
        try:
            import pymilvus
        except ModuleNotFoundError:
            raise MissingExtraError("pymilvus", "milvus") from None
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what it logs is raised too
        self._url = url
        self._types: Any = pymilvus.DataType
        self._timeout, self._build_timeout = timeout, build_timeout
        self._loaded: set[str] = set()
        with self._told():
            self._client = pymilvus.MilvusClient(url, token=token, timeout=timeout)

    def versions(self) -> list[str]:
        """List the collections."""
        with self._told():
            return sorted(self._client.list_collections(timeout=self._timeout))

    def aliases(self) -> dict[str, str]:
        """Return alias -> collection."""
        found: dict[str, str] = {}
        for version in self.versions():
            with self._told():
                reply = self._client.list_aliases(version, timeout=self._timeout)
            found |= {alias: version for alias in reply["aliases"]}
        return found

    def create(self, version: str, dimension: int) -> None:
        """Make a collection: rows as keys, ids of passages, vectors; no index yet."""
        types = self._types
        with self._told():
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", types.INT64, is_primary=True)
            schema.add_field("passage", types.VARCHAR, max_length=_LONGEST)
            schema.add_field("vector", types.FLOAT_VECTOR, dim=dimension)
            self._client.create_collection(version, schema=schema, timeout=self._timeout)

    def add(self, version: str, start: int, vectors: Vectors, ids: Sequence[str]) -> None:
        """Put vectors and the ids of their passages; put twice, they are there once."""
        rows = [
            {"id": start + at, "passage": id, "vector": vectors[at]} for at, id in enumerate(ids)
        ]
        with self._told():
            self._client.upsert(version, rows, timeout=self._timeout)

    def finish(self, version: str) -> None:
        """Let it build its index, load it, and wait until all of it can be searched."""
        limit = self._build_timeout
        with self._told(
            f"{version} is not ready after {limit:g} s (retriever.store.build_timeout)"
        ):
            self._client.flush(version, timeout=limit)
            few = self._client.get_collection_stats(version)["row_count"] <= PLAIN
            index = self._client.prepare_index_params()
            kind = "FLAT" if few else "AUTOINDEX"
            index.add_index("vector", index_type=kind, metric_type="IP")
            self._client.create_index(version, index, timeout=limit)
            self._counted(version, limit)

    def count(self, version: str) -> int:
        """Count the vectors, all of them."""
        with self._told():
            return self._counted(version, self._timeout)

    def search(self, name: str, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Search a collection or an alias."""
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        rows = np.full((len(vectors), k), -1, np.int64)
        for start in range(0, len(vectors), _AT_ONCE):
            part = list(vectors[start : start + _AT_ONCE])
            with self._told():
                self._load(name)
                found = self._client.search(
                    name, part, limit=k, output_fields=["id"], timeout=self._timeout
                )
            for at, hits in enumerate(found, start):
                for rank, hit in enumerate(hits):
                    scores[at, rank], rows[at, rank] = hit["distance"], hit["id"]
        return scores, rows

    def point(self, aliases: Mapping[str, str]) -> None:
        """Move aliases one after the other, which is all that Milvus can."""
        there = self.aliases()
        for alias, version in aliases.items():
            if there.get(alias) == version:
                continue
            move = self._client.alter_alias if alias in there else self._client.create_alias
            with self._told():
                move(version, alias, timeout=self._timeout)
            self._loaded.discard(alias)

    def drop(self, version: str) -> None:
        """Delete a collection."""
        with self._told():
            self._client.drop_collection(version, timeout=self._timeout)
        self._loaded.clear()

    def close(self) -> None:
        """Close the connection, and a file's lock with it."""
        self._client.close()
        if self._url.endswith(".db"):  # else the file stays this process's until it ends
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self._url)

    def _load(self, name: str) -> None:
        # A server keeps what it has loaded; Milvus Lite begins anew with every process.
        if name not in self._loaded:
            self._client.load_collection(name, timeout=self._build_timeout)
            self._loaded.add(name)

    def _counted(self, version: str, timeout: float) -> int:
        self._load(version)
        # Strong: the answer waits for all that was added, and later searches then see it too.
        reply = self._client.query(
            version,
            filter="",
            output_fields=["count(*)"],
            consistency_level="Strong",
            timeout=timeout,
        )
        return int(reply[0]["count(*)"])

    @contextlib.contextmanager
    def _told(self, what: str = "") -> Iterator[None]:
        """Turn whatever the client raises into one line that names the address."""
        try:
            yield
        except Exception as error:  # the client raises those of gRPC as well as its own
            said = getattr(error, "message", "") or str(error) or type(error).__name__
            said = str(said).strip().splitlines()[0][:200]
            raise OutageError(f"Milvus at {self._url}: {f'{what}: ' * bool(what)}{said}") from error
