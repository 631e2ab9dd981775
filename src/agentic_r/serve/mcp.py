"""The service as tools for language models: MCP over stdio, and over HTTP at /mcp.

`search` and `fetch` have the shapes that deep-research clients ask for; `search_in_context`
knows the question behind the query, which is what the retriever was trained with.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import urllib.parse
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field, StrictInt, StrictStr

from agentic_r.serve import wire
from agentic_r.serve.http import ASGI
from agentic_r.serve.offer import Opener
from agentic_r.serve.routes import Service
from agentic_r.serve.wire import BadRequest
from agentic_r.settings import ServeConfig

SHOWN = 10
"""Hits of `search`, which cannot be asked for a number."""

Query = Annotated[StrictStr, Field(description="What to search for, in words.")]


class Result(BaseModel):
    """A passage that was found: `fetch` takes its id."""

    id: str
    title: str
    url: str


class Results(BaseModel):
    """Passages, best first."""

    results: list[Result]


class Fetched(BaseModel):
    """A whole passage."""

    id: str
    title: str
    text: str
    url: str
    metadata: dict[str, str]


class InContext(Result):
    """A passage with its text and score."""

    text: str
    score: float


class ContextResults(BaseModel):
    """Passages, best first, and the exact input that the retriever was sent."""

    results: list[InContext]
    sent: str


async def _found(service: Service, body: wire.SearchOne) -> wire.SearchReply:
    """Search; a tool's error is text for the model that called it."""
    try:
        reply = await service.search(body)
    except BadRequest as bad:
        raise ToolError(bad.message) from None
    if reply.partial:  # the shape of a result has no room to say so
        raise ToolError("a part of the corpus does not answer; try again in some seconds")
    return reply


def tools(service: Service, version: str, base_url: str) -> MCPServer[Any]:
    """Make the MCP server of a service; passages are cited by their address below `base_url`."""
    server: MCPServer[Any] = MCPServer(
        "agentic-r",
        version=version,
        instructions="Search a corpus of passages. search finds, fetch reads a passage whole, "
        "search_in_context finds better where the question behind the query is known.",
        log_level="WARNING",
    )
    logging.getLogger("mcp").setLevel(logging.WARNING)
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)

    def url(id: str) -> str:
        return f"{base_url}/passages/{urllib.parse.quote(id, safe='')}"

    async def search(query: Query) -> Results:
        """Find passages for a query; read them whole with fetch."""
        reply = await _found(service, wire.SearchOne(query, topk=SHOWN))
        return Results(
            results=[Result(id=h.id, title=h.title or h.id, url=url(h.id)) for h in reply.hits]
        )

    async def fetch(
        id: Annotated[StrictStr, Field(description="Id of a passage that a search found.")],
    ) -> Fetched:
        """Read one passage whole."""
        try:
            passage, held = await service.found_before(id)
        except BadRequest as bad:
            raise ToolError(bad.message) from None
        return Fetched(
            id=passage.id,
            title=passage.title or passage.id,
            text=passage.text,
            url=url(passage.id),
            metadata={"index_version": held},
        )

    async def search_in_context(
        question: Annotated[StrictStr, Field(description="The whole question to be answered.")],
        query: Query,
        k: Annotated[StrictInt, Field(ge=1, description="How many passages.")] = 5,
    ) -> ContextResults:
        """Find passages for a query that is one step towards answering a question."""
        reply = await _found(service, wire.SearchOne(query, question=question, topk=k))
        results = [
            InContext(id=h.id, title=h.title or h.id, url=url(h.id), text=h.text, score=h.score)
            for h in reply.hits
        ]
        return ContextResults(results=results, sent=reply.sent)

    for tool in (search, fetch, search_in_context):
        server.add_tool(tool, annotations=reads)
    return server


def over_http(
    service: Service, version: str, base_url: str, local: bool
) -> tuple[ASGI, Callable[[asyncio.Event], Coroutine[Any, Any, None]]]:
    """Return the ASGI application for `/mcp`, and what has to run as long as it is used.

    Each request stands for itself, so that a restart loses no session. `local` refuses the Host
    and Origin headers of other machines.
    """
    server = tools(service, version, base_url)
    security = None if local else TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(
        stateless_http=True, json_response=True, transport_security=security
    )

    async def keep(stopped: asyncio.Event) -> None:
        async with server.session_manager.run():
            await stopped.wait()

    return app, keep


async def over_stdio(opener: Opener, limits: ServeConfig, version: str) -> None:
    """Serve the tools over standard input and output until the client closes it, or a signal.

    Ctrl-C and SIGTERM end the process at once, with 130 and 143: the thread that waits for a line
    of the client cannot be told to stop, and there is nothing to keep.
    """
    main = threading.current_thread() is threading.main_thread()
    for number in (signal.SIGINT, signal.SIGTERM) if main else ():
        asyncio.get_running_loop().add_signal_handler(number, os._exit, 128 + number)
    service = Service(opener, limits)
    await service.load()
    await tools(service, version, "urn:agentic-r").run_stdio_async()
