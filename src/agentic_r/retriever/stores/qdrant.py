"""Qdrant as a store: a server or a cluster by its URL, or in this process for a trial."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agentic_r.errors import MissingExtraError, OutageError
from agentic_r.retriever.stores import Rows, Vectors

_NO_GRAPH = 0
"""Indexing threshold at which Qdrant builds no graph: while vectors are added."""

_GRAPH = 10_000
"""Kilobytes of a segment from which it builds one."""

_LOOK = 1.0
"""Seconds between two looks at whether the graph is there."""


class QdrantStore:
    """Collections are versions. `url` is a server's, a folder's, or ":memory:".

    `build_timeout` is how many seconds a version may take to build its graph.
    """

    def __init__(
        self, url: str, api_key: str = "", timeout: float = 120.0, build_timeout: float = 21_600.0
    ) -> None:
        try:
            from qdrant_client import QdrantClient, models
        except ModuleNotFoundError:
            raise MissingExtraError("qdrant-client", "qdrant") from None
        self._url = url
        self._build_timeout = build_timeout
        self._models: Any = models
        with self._told():
            if url.startswith(("http://", "https://")):
                self._client = QdrantClient(
                    url=url,
                    api_key=api_key or None,
                    timeout=max(1, int(timeout)),
                    check_compatibility=False,  # it would warn from a thread of its own
                )
            elif url == ":memory:":
                self._client = QdrantClient(url)
            else:
                self._client = QdrantClient(path=url)

    def versions(self) -> list[str]:
        """List the collections."""
        with self._told():
            return sorted(c.name for c in self._client.get_collections().collections)

    def aliases(self) -> dict[str, str]:
        """Return alias -> collection."""
        with self._told():
            found = self._client.get_aliases().aliases
        return {alias.alias_name: alias.collection_name for alias in found}

    def create(self, version: str, dimension: int) -> None:
        """Make a collection that keeps vectors on the disk and builds no graph yet."""
        models = self._models
        with self._told():
            self._client.create_collection(
                version,
                vectors_config=models.VectorParams(
                    size=dimension, distance=models.Distance.DOT, on_disk=True
                ),
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=_NO_GRAPH),
            )

    def add(self, version: str, start: int, vectors: Vectors, ids: Sequence[str]) -> None:
        """Put points whose payload is the id of the passage; put twice, they are there once."""
        points = self._models.Batch(
            ids=list(range(start, start + len(vectors))),
            vectors=vectors.tolist(),
            payloads=[{"id": id} for id in ids],
        )
        with self._told():
            self._client.upsert(version, points, wait=True)

    def finish(self, version: str) -> None:
        """Let it build its graph and wait until it has.

        Raises OutageError where it fails, or is not done within `build_timeout`.
        """
        models, colour = self._models, self._models.CollectionStatus
        ends = time.monotonic() + self._build_timeout
        with self._told():
            self._client.update_collection(
                version,
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=_GRAPH),
            )
        while (found := self._collection(version)).status != colour.GREEN:
            done = f"{found.indexed_vectors_count or 0:,} of {found.points_count or 0:,} vectors"
            if found.status == colour.RED:
                said = getattr(found.optimizer_status, "error", found.optimizer_status)
                raise OutageError(
                    f"Qdrant at {self._url}: {version}: building its graph failed with {done} in "
                    f"it: {str(said)[:200]}; see the server's log"
                )
            if time.monotonic() >= ends:
                raise OutageError(
                    f"Qdrant at {self._url}: {version} is {found.status.value} after "
                    f"{self._build_timeout:g} s with {done} in its graph, expected green; look at "
                    "the server's optimizer, or give it longer with retriever.store.build_timeout"
                )
            time.sleep(_LOOK)

    def _collection(self, version: str) -> Any:
        with self._told():
            return self._client.get_collection(version)

    def count(self, version: str) -> int:
        """Count the points, all of them."""
        with self._told():
            return int(self._client.count(version, exact=True).count)

    def search(self, name: str, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Search a collection or an alias, all queries in one request."""
        request = self._models.QueryRequest
        asked = [request(query=vector.tolist(), limit=k) for vector in vectors]
        with self._told():
            found = self._client.query_batch_points(name, asked) if asked else []
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        rows = np.full((len(vectors), k), -1, np.int64)
        for at, reply in enumerate(found):
            for rank, point in enumerate(reply.points):
                scores[at, rank], rows[at, rank] = point.score, point.id
        return scores, rows

    def point(self, aliases: Mapping[str, str]) -> None:
        """Move aliases in one request, which Qdrant carries out as a whole."""
        models, there = self._models, self.aliases()
        steps: list[Any] = []
        for alias, version in aliases.items():
            if alias in there:
                old = models.DeleteAlias(alias_name=alias)
                steps.append(models.DeleteAliasOperation(delete_alias=old))
            new = models.CreateAlias(collection_name=version, alias_name=alias)
            steps.append(models.CreateAliasOperation(create_alias=new))
        with self._told():
            self._client.update_collection_aliases(steps)

    def drop(self, version: str) -> None:
        """Delete a collection."""
        with self._told():
            self._client.delete_collection(version)

    def close(self) -> None:
        """Close the connection, and a folder's lock with it."""
        self._client.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn whatever the client raises into one line that names the address."""
        try:
            with warnings.catch_warnings():
                # The in-process mode warns of what it is: slow above 20,000 points.
                warnings.simplefilter("ignore")
                yield
        except Exception as error:  # the client's errors have no common base
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise OutageError(f"Qdrant at {self._url}: {said[:200]}") from error
