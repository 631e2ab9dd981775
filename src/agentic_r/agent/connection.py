"""HTTP to a language model server: bounded, timed, tried again, and clear when it fails."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any
from urllib.parse import urlsplit

import httpx

from agentic_r.errors import ConfigError, LLMError

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed."""

LONGEST_PAUSE = 30.0


class RefusedError(LLMError):
    """A server answered that it will not take this request, now or later."""


class Connection:
    """JSON requests below `url`, which is made to end in /v1.

    Raises ConfigError at once for something that is not an http address, or where the
    environment variable `api_key_env` is named and not set.
    """

    def __init__(
        self,
        url: str,
        *,
        concurrency: int,
        timeout: float,
        api_key_env: str,
        retries: int,
        pause: float,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"got the model address {url!r}, expected http://HOST:PORT/v1")
        if concurrency < 1:
            raise ConfigError(f"agent.concurrency: got {concurrency}, expected at least 1")
        url = url.rstrip("/")
        self.url = url if url.endswith("/v1") else f"{url}/v1"
        self._headers = _authorisation(api_key_env)
        self._own = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self._concurrency = concurrency
        self._timeout = timeout
        self._retries = retries
        self._pause = pause
        # Jitter keeps many clients apart; it has no part in any result.
        self._random = random.Random(os.getpid())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(concurrency)

    async def get(self, path: str) -> dict[str, Any]:
        """GET a JSON object."""
        return await self._request("GET", path, None)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST a JSON object and return the reply's."""
        return await self._request("POST", path, body)

    async def aclose(self) -> None:
        """Close this event loop's connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()
        self._loop = None

    async def _request(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        client = self._open()
        async with self._slots:
            for attempt in range(self._retries + 1):
                wait, failure = None, ""
                cause: Exception | None = None
                try:
                    response = await client.request(method, self.url + path, json=body)
                except httpx.TimeoutException as error:
                    cause, failure = error, f"no answer within {self._timeout:g} s"
                except httpx.TransportError as error:
                    cause, failure = error, f"no connection ({error or type(error).__name__})"
                else:
                    if response.status_code < 400:
                        return _object(response, self.url + path)
                    failure = f"answer {response.status_code}: {_message(response)}"
                    if response.status_code not in AGAIN:
                        raise RefusedError(f"{self.url}{path}: got {failure}")
                    wait = response.headers.get("retry-after")
                if attempt < self._retries:
                    await asyncio.sleep(self._wait(attempt, wait))
        raise LLMError(
            f"{self.url}{path}: got {failure} in each of {self._retries + 1} tries; check that "
            "the server runs, that its address is right and that it is not overloaded"
        ) from cause

    def _wait(self, attempt: int, asked: str | None) -> float:
        """Return seconds to wait: doubling, by a random half to whole, or as the server asks."""
        pause: float = self._pause * 2.0**attempt * self._random.uniform(0.5, 1.0)
        if asked and asked.strip().isdigit():
            pause = max(pause, float(asked))
        return min(pause, LONGEST_PAUSE)

    def _open(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self._slots = asyncio.Semaphore(self._concurrency)
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(self._timeout, connect=min(10.0, self._timeout)),
                headers=self._headers,
                limits=httpx.Limits(max_connections=self._concurrency),
                # A proxy of the environment cannot know this machine's own servers.
                trust_env=not self._own,
            )
        return self._client


def _authorisation(variable: str) -> dict[str, str]:
    if not variable:
        return {}
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(
            f"agent.api_key_env: the environment variable {variable} is not set; set it to the key"
        )
    return {"Authorization": f"Bearer {key}"}


def _object(response: httpx.Response, where: str) -> dict[str, Any]:
    try:
        reply = response.json()
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise LLMError(
            f"{where}: got {response.text[:80]!r}, expected JSON of an OpenAI-compatible server"
        )
    return reply


def _message(response: httpx.Response) -> str:
    """Return what a server says about an error, on one line."""
    try:
        reply = response.json()
    except ValueError:
        reply = response.text
    if isinstance(reply, dict):
        error = reply.get("error", reply.get("detail", reply.get("message", reply)))
        reply = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(reply).split())[:300] or "no reason given"
