"""An index split over several of our own servers, searched as one.

Every shard serves a part of the corpus with `agentic-r serve`. The router encodes a query once,
sends the vectors to all shards (`POST /shard/search`) and merges what they find: the scores of
exact search do not depend on the part, so the merged top k are those of one index. A shard that
does not answer is named and counted; the reply is refused, or says that it is partial.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import numpy as np

from agentic_r.data.passages import Line, passage
from agentic_r.errors import ConfigError, DataError, MismatchError, OutageError
from agentic_r.io import fingerprint
from agentic_r.protocols import Ruler
from agentic_r.serve import wire
from agentic_r.types import Hit, Passage

T = TypeVar("T")

AWAY = 2.0
"""Seconds for which a shard that did not answer is not asked again."""

Missing = Literal["refuse", "answer"]


class Encoder(Protocol):
    """What encodes queries and says whose passages it finds."""

    @property
    def passage_side(self) -> str:
        """The fingerprint of the encoder of the passages."""
        ...

    def encode(self, texts: Sequence[str], kind: Literal["query", "passage"]) -> Any:
        """Encode texts into a float32 array [n, dimension]."""
        ...


class Partial(list[Hit]):
    """Hits of a query that not every shard was asked for."""


class Shard:
    """One server that holds a part of the corpus. Raises OutageError where it does not answer."""

    def __init__(self, url: str, token: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        self.failures = 0
        self.version: str | None = None
        self.up = True
        """Whether it answered when it was asked last."""
        self._away_until = 0.0
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise ConfigError(f"serve.shards: got {url!r}: {error}") from None
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"serve.shards: got {url!r}, expected http://HOST:PORT")

    def ask(self, method: str, path: str, reply: type[T], body: bytes | None = None) -> T:
        """Send one request and read the reply; a lost connection is tried once more.

        Raises DataError for what is not there, OutageError for all else.
        """
        if time.monotonic() < self._away_until:
            raise OutageError(f"shard {self.url} did not answer a moment ago")
        headers = {"Content-Type": "application/json"} if body is not None else {}
        for again in (True, False):
            try:
                found = self._client.request(method, path, content=body, headers=headers)
                break
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                if not again:
                    raise self.failed(str(error) or type(error).__name__) from None
            except httpx.HTTPError as error:
                raise self.failed(str(error) or type(error).__name__) from None
        if found.status_code == 200:
            try:
                read = msgspec.json.decode(found.content, type=reply)
            except msgspec.DecodeError as error:
                raise self.failed(f"its reply cannot be read: {error}") from None
            self.up = True
            return read
        said = f"HTTP {found.status_code}: {found.text[:200]}"
        if found.status_code == 404:
            raise DataError(f"shard {self.url}: {said}")
        raise self.failed(said)

    def failed(self, why: str) -> OutageError:
        """Count a failure, leave the shard alone for a while, and say why."""
        self.failures += 1
        self.up = False
        self._away_until = time.monotonic() + AWAY
        return OutageError(f"shard {self.url}: {why}")


class Shards:
    """All shards, asked at once. It stands in the place of the corpus too.

    `missing` says what happens where one does not answer: "refuse" raises OutageError, "answer"
    goes on with the others, as long as there is one.
    """

    def __init__(
        self, urls: Sequence[str], missing: Missing, token: str = "", timeout: float = 30.0
    ) -> None:
        if not urls or len(set(urls)) < len(urls):
            raise ConfigError(f"serve.shards: got {list(urls)}, expected different addresses")
        self.shards = [Shard(url, token, timeout) for url in urls]
        self.missing = missing
        self._pool = ThreadPoolExecutor(len(self.shards), "shard")
        self._infos: list[wire.Info | None] = []

    def open(self, side: str) -> None:
        """Ask every shard what it has and refuse one without an index for the passage side `side`.

        The versions that are there now are those that will be searched. Raises MismatchError for
        another index, OutageError where a shard does not answer.
        """
        self._infos = self.ask(lambda shard: shard.ask("GET", "/v1/info", wire.Info))
        for shard, info in zip(self.shards, self._infos, strict=True):
            sides = [offer.index for offer in info.retrievers] if info is not None else [side]
            shard.version = info.version if info is not None else None
            if side not in sides:
                raise MismatchError(
                    f"shard {shard.url}: its index was built with encoder "
                    f"{', '.join(map(str, sides))}, got queries of encoder {side}; give router and "
                    "shards the same retriever.base"
                )

    def ask(self, one: Callable[[Shard], T]) -> list[T | None]:
        """Ask all shards at once: one answer each in their order, None for one that is away.

        Raises OutageError where one is away and may not be, or all are.
        """

        def asked(shard: Shard) -> T | OutageError:
            try:
                return one(shard)
            except OutageError as error:
                return error

        found = list(self._pool.map(asked, self.shards))
        away = [each for each in found if isinstance(each, OutageError)]
        if away and (self.missing == "refuse" or len(away) == len(found)):
            raise OutageError(
                f"{len(away)} of {len(found)} shards do not answer: "
                + "; ".join(str(each) for each in away)
            )
        return [None if isinstance(each, OutageError) else each for each in found]

    @property
    def digest(self) -> str:
        """What identifies the passages: the versions of all shards."""
        return fingerprint([info.version if info else "away" for info in self._infos])

    def __len__(self) -> int:
        return sum(info.passages for info in self._infos if info)

    def get(self, id: str) -> Passage:
        """Look a passage up by id. Raises DataError where no shard has it, and OutageError."""
        path = f"/passages/{quote(id, safe='')}"

        def one(shard: Shard) -> Line | Literal[False]:
            pinned = f"{path}?version={quote(shard.version, safe='')}" if shard.version else path
            try:
                return shard.ask("GET", pinned, Line)
            except DataError:
                return False

        found = self.ask(one)
        for each in found:
            if each:
                return passage(each, path)
        if None in found:
            raise OutageError("a shard that may have the passage does not answer")
        raise DataError(f"no shard has a passage with the id {id!r}")

    def prometheus(self) -> str:
        """Write of each shard whether it answered last, and how often it did not answer."""
        lines = ["# TYPE agentic_r_shard_up gauge"]
        lines += [f'agentic_r_shard_up{{shard="{s.url}"}} {int(s.up)}' for s in self.shards]
        lines.append("# TYPE agentic_r_shard_failures_total counter")
        lines += [
            f'agentic_r_shard_failures_total{{shard="{s.url}"}} {s.failures}' for s in self.shards
        ]
        return "\n".join(lines) + "\n"


class ShardedRetriever:
    """Finds passages on all shards by the vector of a query."""

    def __init__(self, shards: Shards, encoder: Encoder, ruler: Ruler | None = None) -> None:
        self._shards = shards
        self._encoder = encoder
        self.ruler = ruler

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return the `k` best hits of all shards for each query; equal scores in their order.

        Raises OutageError as `Shards` does, DataError for a passage that two shards have.
        """
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        vectors = np.ascontiguousarray(self._encoder.encode(list(queries), "query"), "<f4")
        rows, side = [each.tobytes() for each in vectors], self._encoder.passage_side

        def one(shard: Shard) -> wire.VectorHits:
            body = msgspec.json.encode(wire.SearchVectors(rows, k, side, shard.version))
            found = shard.ask("POST", "/shard/search", wire.VectorHits, body)
            if len(found.result) != len(queries):
                raise shard.failed(f"{len(found.result)} results for {len(queries)} queries")
            return found

        found = self._shards.ask(one)
        here = [part.result for part in found if part is not None]
        merged = [_best([part[at] for part in here], k) for at in range(len(queries))]
        return merged if len(here) == len(found) else [Partial(hits) for hits in merged]


def _best(parts: Sequence[Sequence[wire.Found]], k: int) -> list[Hit]:
    """Merge lists that fall in score; `sorted` keeps the order of equal ones."""
    every = sorted((hit for part in parts for hit in part), key=lambda hit: -hit.score)
    repeated = [id for id, count in Counter(hit.id for hit in every).items() if count > 1]
    if repeated:
        raise DataError(
            f"passage {repeated[0]!r} is on several shards; give each shard passages of its own"
        )
    return [Hit(Passage(hit.id, hit.text, hit.title), hit.score) for hit in every[:k]]
