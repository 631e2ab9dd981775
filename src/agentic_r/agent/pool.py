"""Several servers of one model as one: balanced, bounded, tried again, and clear when all fail."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from typing import Any

from agentic_r.agent.connection import Connection, Failure, setting
from agentic_r.errors import ConfigError, LLMError, OutageError

LONGEST_PAUSE = 30.0

FIRST_RETRIES = 2
"""Further tries while no server has ever answered: rather a wrong address than a hiccup."""


class Pool:
    """Requests to whichever server has the fewest under way.

    At most `concurrency` requests are open per server. A server that is lost or overloaded is
    taken out for a growing, jittered while and its requests go to the others; when none is left
    they wait, `retries` times, and then fail: with OutageError where the servers are down, with
    LLMError where they are slow or broken.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        concurrency: int,
        timeout: float,
        api_key_env: str,
        retries: int,
        pause: float,
        role: str = "agent",
    ) -> None:
        if concurrency < 1:
            key = setting(role, "concurrency")
            raise ConfigError(f"{key}: got {concurrency}, expected at least 1")
        self.servers = [
            Connection(
                url, concurrency=concurrency, timeout=timeout, api_key_env=api_key_env, role=role
            )
            for url in urls
        ]
        self.capacity = concurrency * len(self.servers)
        self._retries = retries
        self._pause = pause
        # Jitter keeps many clients apart; it has no part in any result.
        self._random = random.Random(os.getpid())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(self.capacity)

    @property
    def url(self) -> str:
        """The servers' addresses, for messages."""
        return ", ".join(server.url for server in self.servers)

    async def get(self, path: str) -> dict[str, Any]:
        """GET a JSON object."""
        return await self._request("GET", path, None, self._retries)

    async def post(
        self, path: str, body: dict[str, Any], *, retries: int | None = None
    ) -> dict[str, Any]:
        """POST a JSON object and return the reply's."""
        return await self._request(
            "POST", path, body, self._retries if retries is None else retries
        )

    async def aclose(self) -> None:
        """Close this event loop's connections; the next request opens new ones."""
        for server in self.servers:
            await server.aclose()

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None, retries: int
    ) -> dict[str, Any]:
        if self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._slots = asyncio.Semaphore(self.capacity)
        async with self._slots:
            tries = waits = 0
            tried: set[Connection] = set()  # since the last pause
            while True:
                server = self._pick(tried)
                found = await server.attempt(method, path, body)
                if not isinstance(found, Failure):
                    return found
                tries += 1
                pause = self._wait(waits, found.wait)
                if found.down or found.cause is not None:
                    server.rest(pause)
                    tried.add(server)
                    if any(other.live for other in self.servers if other not in tried):
                        continue
                if waits >= self._allowed(self._retries if found.down else retries):
                    self._give_up(server.url + path, found, tries)
                waits += 1
                tried.clear()
                await asyncio.sleep(pause)

    def _pick(self, tried: set[Connection]) -> Connection:
        """Take the live server with the fewest requests, else the one that has rested longest."""
        return min(
            self.servers,
            key=lambda s: (s in tried, not s.live, 0.0 if s.live else s.rested, s.outstanding),
        )

    def _allowed(self, retries: int) -> int:
        """Return how many further rounds a request has."""
        answered = any(server.answered for server in self.servers)
        return retries if answered else min(retries, FIRST_RETRIES)

    def _wait(self, attempt: int, asked: str | None) -> float:
        """Return seconds to wait: doubling, by a random half to whole, or as the server asks."""
        pause: float = self._pause * 2.0**attempt * self._random.uniform(0.5, 1.0)
        if asked and asked.strip().isdigit():
            pause = max(pause, float(asked))
        return min(pause, LONGEST_PAUSE)

    def _give_up(self, where: str, found: Failure, tries: int) -> None:
        all_of = f" (and {len(self.servers) - 1} more servers)" if len(self.servers) > 1 else ""
        raise (OutageError if found.down else LLMError)(
            f"{where}{all_of}: got {found.message} in each of {tries} tries; check "
            "that the server runs, that its address is right and that it is not overloaded"
        ) from found.cause
