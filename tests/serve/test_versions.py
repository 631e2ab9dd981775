"""A client that has searched in one version reads its passages after the index has changed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from agentic_r.data.corpus import Corpus
from agentic_r.serve.http import App
from agentic_r.serve.offer import Offer, Served
from agentic_r.serve.routes import Service
from agentic_r.settings import ServeConfig
from agentic_r.types import Passage
from tests.serve.conftest import Client, Words


def version(number: int) -> Served:
    """A corpus whose p1 changes with the version, and which has one passage of its own."""
    corpus = Corpus([Passage("p1", f"as of {number}"), Passage(f"only{number}", "mine")])
    return Served(corpus, (Offer("latest", f"v{number}", "words", "query", Words(corpus)),))


@pytest.fixture
def client() -> Iterator[Client]:
    """A service that has version 0 and finds 1 and 2 when it is reloaded."""
    opened = iter([version(at) for at in range(3)])
    made = Client(lambda: App(Service(lambda: next(opened), ServeConfig()), "0"))
    yield made
    made.close()


def test_a_passage_is_read_in_the_version_that_was_searched(client: Client) -> None:
    found = client.post("/retrieve", {"queries": ["as of"], "topk": 2})
    searched = found.headers["x-index-version"]
    client.run(client.app.service.reload())
    texts = {each["id"]: each["contents"] for each in found.json()["result"][0]}
    for id, text in texts.items():
        reply = client.get(f"/passages/{id}", params={"version": searched})
        assert (reply.json()["contents"], reply.headers["x-index-version"]) == (text, searched)
    now = client.get("/passages/p1")
    assert now.json()["contents"] == "as of 1"
    assert now.headers["x-index-version"] == client.get("/v1/info").json()["version"]
    assert client.get("/passages/only0").status_code == 404
    assert client.get("/passages/only1", params={"version": searched}).status_code == 404
    client.run(client.app.service.reload())
    gone = client.get("/passages/p1", params={"version": searched})
    assert gone.status_code == 410
    assert f"got '{searched}'" in gone.json()["error"]["message"]
    assert "search again" in gone.json()["error"]["message"]


@pytest.mark.parametrize(
    "query", ["version", "version=a&version=b", "v=1", "version=a&k=3", "version=%ff", "&", "="]
)
def test_what_is_no_version_is_refused(client: Client, query: str) -> None:
    assert client.get(f"/passages/p1?{query}").status_code == 422


def test_a_version_that_never_was(client: Client) -> None:
    assert client.get("/passages/p1?version=").status_code == 410
    assert client.get("/passages/p1?version=..%2Fetc").status_code == 410


def test_while_loading_there_is_no_version() -> None:
    service = Service(lambda: version(0), ServeConfig())
    client = Client(lambda: App(service, "0"))
    client.app.service._served = None
    assert client.get("/passages/p1?version=x").status_code == 503
    client.close()


def test_tools_fetch_what_a_search_before_the_change_has_found() -> None:
    mcp = pytest.importorskip("mcp")
    from agentic_r.serve.mcp import tools

    async def work() -> list[Any]:
        opened = iter([version(at) for at in range(3)])
        service = Service(lambda: next(opened), ServeConfig())
        await service.load()
        names = [service.served.version]
        try:
            async with mcp.Client(tools(service, "0", "http://localhost:1")) as client:
                await service.reload()
                names.append(service.served.version)
                kept = await client.call_tool("fetch", {"id": "only0"})
                newer = await client.call_tool("fetch", {"id": "p1"})
                await service.reload()
                return [*names, kept, newer, await client.call_tool("fetch", {"id": "only0"})]
        finally:
            service.batcher.close()

    first, second, kept, newer, gone = asyncio.run(work())
    assert kept.structured_content["metadata"] == {"index_version": first}
    assert newer.structured_content["text"] == "as of 1"
    assert newer.structured_content["metadata"] == {"index_version": second}
    assert gone.is_error


def test_nothing_is_kept_of_a_change_that_changes_nothing() -> None:
    one = version(0)
    client = Client(lambda: App(Service(lambda: dataclasses.replace(one), ServeConfig()), "0"))
    client.run(client.app.service.reload())
    assert client.app.service._before is None
    client.close()
