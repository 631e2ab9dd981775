"""A service over a table of words, in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from agentic_r.data.corpus import Corpus
from agentic_r.serve.http import App
from agentic_r.serve.offer import Offer, Served
from agentic_r.serve.routes import Service
from agentic_r.settings import ServeConfig
from agentic_r.types import Hit, Passage

PASSAGES = [
    Passage("p1", "Hives is a novel by Ada Bo.", "Hives"),
    Passage("p2", "Ulm is a city on the Danube.", "Ulm"),
    Passage("a/b c?é", "An id of any form.", ""),
    *(Passage(f"n{at}", f"Number {at} is a number.", f"N{at}") for at in range(20)),
]


class Words:
    """Ranks passages by shared words; `pause` is how long a batch takes, `calls` what was asked."""

    def __init__(self, corpus: Corpus, pause: float = 0.0, add: float = 0.0) -> None:
        self.corpus, self.pause, self.add = corpus, pause, add
        self.calls: list[list[str]] = []

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        self.calls.append(list(queries))
        time.sleep(self.pause)
        return [self._one(query, k) for query in queries]

    def _one(self, query: str, k: int) -> list[Hit]:
        words = set(query.lower().split())
        hits = [
            Hit(p, len(words & set(p.contents.lower().split())) + self.add) for p in self.corpus
        ]
        return sorted(hits, key=lambda hit: -hit.score)[:k]


class Letters:
    """Encodes a text as how long it is and whether it is a query."""

    dimension = 2

    def encode(self, texts: Sequence[str], kind: str) -> Any:
        return np.array([[len(t), kind == "query"] for t in texts], np.float32).reshape(-1, 2)


class Longest:
    """A re-ranker that likes long texts."""

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [float(len(text)) for _, text in pairs]


def served(
    key: str = "v1", pause: float = 0.0, add: float = 0.0, **more: Any
) -> tuple[Served, Words]:
    corpus = Corpus(PASSAGES)
    words = Words(corpus, pause, add)
    main = Offer("latest", key, "words", "question+query", words, Letters())
    plain = Offer("untouched", "base", "words", "query", Words(corpus))
    return Served(corpus, (main, plain), **more), words


class Client:
    """Calls an application in this process, in an event loop of its own."""

    def __init__(self, make: Callable[[], App]) -> None:
        self.runner = asyncio.Runner()
        self.app: App = self.run(self._made(make))
        self.transport = httpx.ASGITransport(self.app)

    async def _made(self, make: Callable[[], App]) -> App:
        app = make()
        await app.service.load()
        return app

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        reply: httpx.Response = self.run(self.send(method, path, **more))
        return reply

    async def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        url = "http://localhost"
        async with httpx.AsyncClient(transport=self.transport, base_url=url) as client:
            return await client.request(method, path, **more)

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.request("POST", path, json=body, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def close(self) -> None:
        self.app.service.batcher.close()
        self.runner.close()


Make = Callable[..., Client]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make clients of applications: settings, then what is served."""
    made: list[Client] = []

    def client(
        limits: dict[str, Any] | None = None, *, token: str = "", what: Served | None = None
    ) -> Client:
        settings = msgspec.convert(limits or {}, ServeConfig)
        offered = what or served()[0]
        made.append(Client(lambda: App(Service(lambda: offered, settings), "0", token=token)))
        return made[-1]

    yield client
    for each in made:
        each.close()


@pytest.fixture
def client(make: Make) -> Client:
    return make()
