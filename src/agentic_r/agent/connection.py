"""HTTP to one language model server: a request made once, and what its answer means."""

from __future__ import annotations

import asyncio
import os
import re
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from agentic_r.errors import ConfigError, ContextError, LLMError

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed."""

DOWN = frozenset({429, 502, 503, 529})
"""Those of them that speak of the server and not of the request."""


class RefusedError(LLMError):
    """A server answered that it will not take this request, now or later."""


class TooLongError(RefusedError, ContextError):
    """A server answered that the prompt, or prompt and new tokens, are more than it reads."""


class Failure(NamedTuple):
    """One try that failed: why, whether the server is down, how long it asks to wait."""

    message: str
    down: bool
    wait: str | None = None
    cause: Exception | None = None


class Connection:
    """JSON requests below `url`; /v1 is added unless its path names a version.

    `role` says whose settings the messages name, "agent" or "judge". Raises ConfigError at once
    for something that is not an http address, for one with a password in it, and where the
    environment variable `api_key_env` is named and not set. `outstanding` counts the requests
    under way; after failures it rests until `rested`.
    """

    def __init__(
        self, url: str, *, concurrency: int, timeout: float, api_key_env: str, role: str = "agent"
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"got the model address {url!r}, expected http://HOST:PORT/v1")
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                f"got a model address on {parts.hostname} with a name or password in it; put the "
                f"key into an environment variable and name that in {setting(role, 'api_key_env')}"
            )
        url = url.rstrip("/")
        self.url = url if _VERSION.search(parts.path) else f"{url}/v1"
        self.answered = False
        self.outstanding = 0
        self.failures = 0
        self.rested = 0.0
        self._secret = _secret(api_key_env, setting(role, "api_key_env"))
        self._own = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self._concurrency = concurrency
        self._timeout = timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None

    @property
    def live(self) -> bool:
        """Whether requests should go here: one that failed is tried by one request at a time."""
        return not self.failures or (time.monotonic() >= self.rested and not self.outstanding)

    def rest(self, seconds: float) -> None:
        """Take the server out for a while."""
        self.failures += 1
        self.rested = time.monotonic() + seconds

    async def attempt(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> dict[str, Any] | Failure:
        """Make a request once. Raises RefusedError where a further try cannot help."""
        url = self.url + path
        self.outstanding += 1
        try:
            response = await self._open().request(method, url, json=body)
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            return Failure(f"no answer within {self._timeout:g} s", False, cause=error)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            return Failure(f"no connection ({reason})", True, cause=error)
        finally:
            self.outstanding -= 1
        self.answered = True
        if response.status_code < 400:
            self.failures = 0
            return _object(response, url)
        message = f"answer {response.status_code}: {self._message(response)}"
        if _TOO_LONG.search(message):
            raise TooLongError(f"{url}: got {message}")
        if response.status_code not in AGAIN:
            raise RefusedError(f"{url}: got {message}")
        down = response.status_code in DOWN
        return Failure(message, down, response.headers.get("retry-after"))

    async def aclose(self) -> None:
        """Close this event loop's connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()
        self._loop = None

    def _open(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self.outstanding = 1  # requests of another loop, now closed, will not come back
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(self._timeout, connect=min(10.0, self._timeout)),
                headers={"Authorization": f"Bearer {self._secret}"} if self._secret else {},
                limits=httpx.Limits(max_connections=self._concurrency),
                # A proxy of the environment cannot know this machine's own servers.
                trust_env=not self._own,
            )
        return self._client

    def _message(self, response: httpx.Response) -> str:
        """Return what a server says about an error, on one line and without the key."""
        said = _message(response)
        return said.replace(self._secret, "***") if self._secret else said


_TOO_LONG = re.compile(
    r"maximum context length|context[ _](?:length|window|size)|exceeds? .*max_model_len"
    r"|longer than the maximum model length|got a prompt of \d+ tokens",
    re.IGNORECASE,
)
"""How servers say that a prompt is too long: OpenAI, vLLM, SGLang, llama.cpp, and ours."""

_VERSION = re.compile(r"/v\d\w*(/|$)")
"""A part of a path that names the version of the interface, such as /v1."""


def setting(role: str, name: str) -> str:
    """Return the dotted key of a connection's setting, for messages."""
    return f"utility.judge_{name}" if role == "judge" else f"agent.{name}"


def _secret(variable: str, key: str) -> str:
    if not variable:
        return ""
    secret = os.environ.get(variable)
    if not secret:
        raise ConfigError(
            f"{key}: the environment variable {variable} is not set; set it to the key"
        )
    return secret


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
