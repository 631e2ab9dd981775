"""HTTP to a language model server: bounded, timed, tried again, and clear when it fails."""

from __future__ import annotations

import asyncio
import os
import random
import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from agentic_r.errors import ConfigError, LLMError, OutageError

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed."""

DOWN = frozenset({429, 502, 503, 529})
"""Those of them that speak of the server and not of the request."""

LONGEST_PAUSE = 30.0

FIRST_RETRIES = 2
"""Further tries while the server has never answered: rather a wrong address than a hiccup."""


class RefusedError(LLMError):
    """A server answered that it will not take this request, now or later."""


class _Failure(NamedTuple):
    """One try that failed: why, whether the server is down, how long it asks to wait."""

    message: str
    down: bool
    wait: str | None = None
    cause: Exception | None = None


class Connection:
    """JSON requests below `url`; /v1 is added unless its path names a version.

    `role` says whose settings the messages name, "agent" or "judge". Raises ConfigError at once
    for something that is not an http address, for one with a password in it, and where the
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
        role: str = "agent",
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"got the model address {url!r}, expected http://HOST:PORT/v1")
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                f"got a model address on {parts.hostname} with a name or password in it; put the "
                f"key into an environment variable and name that in {setting(role, 'api_key_env')}"
            )
        if concurrency < 1:
            key = setting(role, "concurrency")
            raise ConfigError(f"{key}: got {concurrency}, expected at least 1")
        url = url.rstrip("/")
        self.url = url if _VERSION.search(parts.path) else f"{url}/v1"
        self._headers = _authorisation(api_key_env, setting(role, "api_key_env"))
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
        self._answered = False

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
            tries = 0
            while True:
                found = await self._try(client, method, self.url + path, body)
                if not isinstance(found, _Failure):
                    return found
                tries += 1
                if tries > self._allowed():
                    raise (OutageError if found.down else LLMError)(
                        f"{self.url}{path}: got {found.message} in each of {tries} tries; check "
                        "that the server runs, that its address is right and that it is not "
                        "overloaded"
                    ) from found.cause
                await asyncio.sleep(self._wait(tries - 1, found.wait))

    async def _try(
        self, client: httpx.AsyncClient, method: str, url: str, body: dict[str, Any] | None
    ) -> dict[str, Any] | _Failure:
        """Make a request once. Raises RefusedError where a further try cannot help."""
        try:
            response = await client.request(method, url, json=body)
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            return _Failure(f"no answer within {self._timeout:g} s", False, cause=error)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            return _Failure(f"no connection ({reason})", True, cause=error)
        self._answered = True
        if response.status_code < 400:
            return _object(response, url)
        message = f"answer {response.status_code}: {_message(response)}"
        if response.status_code not in AGAIN:
            raise RefusedError(f"{url}: got {message}")
        down = response.status_code in DOWN
        return _Failure(message, down, response.headers.get("retry-after"))

    def _allowed(self) -> int:
        """Return how many further tries a request has."""
        return self._retries if self._answered else min(self._retries, FIRST_RETRIES)

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


_VERSION = re.compile(r"/v\d\w*(/|$)")
"""A part of a path that names the version of the interface, such as /v1."""


def setting(role: str, name: str) -> str:
    """Return the dotted key of a connection's setting, for messages."""
    return f"utility.judge_{name}" if role == "judge" else f"agent.{name}"


def _authorisation(variable: str, key: str) -> dict[str, str]:
    if not variable:
        return {}
    secret = os.environ.get(variable)
    if not secret:
        raise ConfigError(
            f"{key}: the environment variable {variable} is not set; set it to the key"
        )
    return {"Authorization": f"Bearer {secret}"}


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
