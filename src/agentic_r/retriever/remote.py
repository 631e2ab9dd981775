"""Retrievers behind a URL: a server that speaks Search-R1's `/retrieve`, and a web search."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
import msgspec

from agentic_r.data.passages import DECODER, Line, passage
from agentic_r.errors import ConfigError, DataError, OutageError
from agentic_r.types import Hit, Passage

T = TypeVar("T")

RETRIES = 4
_AT_ONCE = 512
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Found(msgspec.Struct):
    document: Any
    score: float | None = None


class _Reply(msgspec.Struct):
    result: list[list[_Found]]


class _Page(msgspec.Struct):
    link: str = ""
    title: str = ""
    snippet: str = ""


class _Pages(msgspec.Struct):
    organic: list[_Page] = []


class RemoteRetriever:
    """Asks a server's POST /retrieve (contracts A2), 512 queries a request at most."""

    def __init__(self, url: str, *, timeout: float = 120.0, api_key_env: str = "") -> None:
        url = url.rstrip("/")
        self._url = url if url.endswith("/retrieve") else f"{url}/retrieve"
        token = _key(api_key_env)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(timeout=timeout, headers=headers)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return what the server finds, best first; a hit without a score counts by its rank.

        Raises ConfigError for k < 1, OutageError where the server stays away, DataError where its
        reply is none.
        """
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        found: list[list[Hit]] = []
        for start in range(0, len(queries), _AT_ONCE):
            part = [_clean(query) for query in queries[start : start + _AT_ONCE]]
            body = {"queries": part, "topk": k, "return_scores": True}
            reply = _read(self._url, _post(self._client, self._url, body), _Reply)
            if len(reply.result) != len(part):
                raise DataError(
                    f"{self._url}: got {len(reply.result)} results for {len(part)} queries, "
                    "expected one a query; check that it is a retrieval server"
                )
            found.extend(_hits(self._url, hits)[:k] for hits in reply.result)
        return found


class WebRetriever:
    """Searches the web through a Serper-compatible API; a passage is a page's title and snippet."""

    def __init__(
        self,
        url: str = "https://google.serper.dev/search",
        *,
        api_key_env: str,
        timeout: float = 60.0,
        concurrency: int = 8,
    ) -> None:
        self._url = url
        token = _key(api_key_env)
        if not token:
            raise ConfigError(
                "retriever.remote.api_key_env: got none, expected the name of the environment "
                "variable that holds the search API's key"
            )
        self._client = httpx.Client(timeout=timeout, headers={"X-API-KEY": token})
        self._concurrency = concurrency

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return up to `k` pages a query; the score is 1 / rank. Raises as `RemoteRetriever`."""
        if k < 1:
            raise ConfigError(f"got k = {k}, expected at least 1")
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(lambda query: self._one(query, k), queries))

    def _one(self, query: str, k: int) -> list[Hit]:
        body = {"q": _clean(query), "num": k}
        pages = _read(self._url, _post(self._client, self._url, body), _Pages).organic
        with_text = [page for page in pages if page.snippet or page.title][:k]
        return [
            Hit(Passage(page.link, page.snippet, page.title), 1 / rank)
            for rank, page in enumerate(with_text, 1)
        ]


def _key(variable: str) -> str:
    if not variable:
        return ""
    found = os.environ.get(variable, "")
    if not found:
        raise ConfigError(
            f"retriever.remote.api_key_env: the environment variable {variable} is not set"
        )
    return found


def _post(client: httpx.Client, url: str, body: dict[str, Any]) -> bytes:
    """Post JSON; what passes (an overload, a lost connection) is tried again, longer each time."""
    for attempt in range(RETRIES + 1):
        wait = min(30.0, 0.5 * 2**attempt) * random.uniform(0.5, 1.0)
        try:
            reply = client.post(url, json=body)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            problem = str(error) or type(error).__name__
            if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
                raise ConfigError(f"retriever.remote.url: got {url!r}: {problem}") from None
        else:
            if reply.status_code == 200:
                return reply.content
            problem = f"HTTP {reply.status_code}: {reply.text[:200]}"
            if reply.status_code not in _TRY_AGAIN:
                raise DataError(f"{url}: {problem}; check the address, the key and the request")
            after = reply.headers.get("Retry-After", "")
            wait = min(60.0, float(after)) if after.isdecimal() else wait
        if attempt < RETRIES:
            time.sleep(wait)
    raise OutageError(
        f"{url}: {problem}, tried {RETRIES + 1} times; start the server and run the same command "
        "again"
    )


def _read(url: str, raw: bytes, type: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=type)
    except msgspec.DecodeError as error:
        raise DataError(
            f"{url}: got a reply that cannot be read ({error}), expected {type.__name__[1:]!r}; "
            "check that it is a retrieval server"
        ) from None


def _hits(url: str, found: Sequence[_Found]) -> list[Hit]:
    """Read documents as all servers of the contract write them: a struct or a bare string."""
    hits = []
    for rank, one in enumerate(found, 1):
        if isinstance(one.document, str):
            line = Line(id=one.document, contents=one.document)
        else:
            try:
                line = DECODER.decode(msgspec.json.encode(one.document))
            except msgspec.DecodeError as error:
                raise DataError(f"{url}: got a document that cannot be read ({error})") from None
        if line.id is None and line.beir_id is None:  # web servers of the contract give no id
            line.id = line.contents
        score = 1 / rank if one.score is None else one.score
        hits.append(Hit(passage(line, f"{url}: document {rank}"), score))
    return hits


def _clean(query: str) -> str:
    return query.encode("utf-8", "replace").decode()
