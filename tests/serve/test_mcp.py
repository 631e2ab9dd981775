"""The tools as the official client calls them: in this process, over stdio, and over HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentic_r.serve.routes import Service
from agentic_r.settings import ServeConfig
from tests.serve.conftest import served
from tests.serve.process import environment, process, write_config

mcp = pytest.importorskip("mcp")

from agentic_r.serve.mcp import tools  # noqa: E402


def called(name: str, arguments: dict[str, Any]) -> Any:
    """Call one tool of a service in this process."""

    async def work() -> Any:
        service = Service(lambda: served()[0], ServeConfig())
        await service.load()
        try:
            async with mcp.Client(tools(service, "0", "http://localhost:1")) as client:
                return await client.call_tool(name, arguments)
        finally:
            service.batcher.close()

    return asyncio.run(work())


def test_search_has_the_shape_that_deep_research_expects() -> None:
    reply = called("search", {"query": "ulm city"})
    assert not reply.is_error
    [item] = reply.content
    assert item.type == "text"
    assert json.loads(item.text) == reply.structured_content
    first = reply.structured_content["results"][0]
    assert first == {"id": "p2", "title": "Ulm", "url": "http://localhost:1/passages/p2"}
    for hit in reply.structured_content["results"]:
        assert set(hit) == {"id", "title", "url"}
        assert all(isinstance(value, str) and value for value in hit.values())


def test_fetch_reads_a_passage_by_its_id_alone() -> None:
    reply = called("fetch", {"id": "a/b c?é"}).structured_content
    assert set(reply) == {"id", "title", "text", "url", "metadata"}
    assert reply["text"] == "An id of any form."
    assert reply["url"] == "http://localhost:1/passages/a%2Fb%20c%3F%C3%A9"
    for id in ("nothing", "../../etc/passwd", "0"):
        refused = called("fetch", {"id": id})
        assert refused.is_error
        assert "no passage with the id" in refused.content[0].text


def test_the_question_goes_with_the_query() -> None:
    reply = called("search_in_context", {"question": "Q?", "query": "ulm", "k": 2})
    assert reply.structured_content["sent"] == "Q? [SEP] ulm"
    assert reply.structured_content["results"][0]["id"] == "p2"
    assert len(reply.structured_content["results"]) == 2


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("search", {}),
        ("search", {"query": 3}),
        ("search", {"query": None}),
        ("search", {"query": ["a"]}),
        ("search", {"query": "a" * 40_000}),
        ("fetch", {"id": 1}),
        ("search_in_context", {"question": "Q", "query": "q", "k": 0}),
        ("search_in_context", {"question": "Q", "query": "q", "k": "many"}),
        ("search_in_context", {"question": "Q", "query": "q", "k": 5000}),
        ("no_such_tool", {}),
    ],
)
def test_wrong_arguments_are_errors_the_model_can_read(name: str, arguments: Any) -> None:
    reply = called(name, arguments)
    assert reply.is_error
    assert reply.content[0].text


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("mcp"))


def check(reply: Any) -> None:
    assert not reply.is_error, reply
    assert len(reply.structured_content["results"]) == 10


def test_over_stdio_in_a_process_of_its_own(config: Path) -> None:
    from mcp.client.stdio import StdioServerParameters

    arguments = ["-m", "agentic_r.cli", "serve", str(config), "--mcp"]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment())

    async def work() -> None:
        async with mcp.Client(server) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names == ["search", "fetch", "search_in_context"]
            check(await client.call_tool("search", {"query": "where was ada born"}))
            found = await client.call_tool("fetch", {"id": "p3"})
            assert found.structured_content["title"] == "T3"

    asyncio.run(asyncio.wait_for(work(), 120))


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_while_the_client_says_nothing(
    config: Path, how: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "agentic_r.cli", "serve", str(config), "--mcp"]
    about = {"name": "test", "version": "1"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment()) as server:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(json.dumps(asked).encode() + b"\n")
        server.stdin.flush()
        assert json.loads(server.stdout.readline())["id"] == 1
        server.send_signal(how)
        assert server.wait(20) == code


def test_over_http(config: Path) -> None:
    with process(config) as (_, url):

        async def work() -> None:
            async with mcp.Client(f"{url}/mcp") as client:
                check(await client.call_tool("search", {"query": "where was ada born"}))

        asyncio.run(asyncio.wait_for(work(), 60))
        for host in ("evil.example", "evil.example:80"):
            reply = httpx.post(f"{url}/mcp", headers={"Host": host}, json={})
            assert reply.status_code == 421
        for body in (b"", b"[" * 1000, b'{"jsonrpc": "2.0"}', b'{"method": 1}'):
            headers = {"content-type": "application/json", "accept": "application/json"}
            assert 400 <= httpx.post(f"{url}/mcp", headers=headers, content=body).status_code < 500
