"""The shell of the service: one ASGI application that checks, reads, answers and counts.

Every request is answered with what it asked for, or with a 4xx that says what was wrong, a 503
with Retry-After where the server cannot take it now, or a 504. Plain ASGI, because at hundreds
of small requests a second a framework costs as much as the search.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import logging
import urllib.parse
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any, NamedTuple

import msgspec

from agentic_r.serve import wire
from agentic_r.serve.openapi import REASONS, schema
from agentic_r.serve.pages import PAGES, SECURITY, docs_page
from agentic_r.serve.routes import Service, encoded, unless_gone
from agentic_r.serve.wire import BadRequest

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]

HELD = 256 << 20
"""Bytes of request bodies held at once at most, over all clients."""

BODY_SECONDS = 60.0
"""Time for a body to arrive."""

LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})

log = logging.getLogger("agentic_r.serve")


class Reply(NamedTuple):
    """What is sent back."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    headers: Mapping[str, str] = {}


class GoneError(Exception):
    """The client went away: nothing is sent."""


class Request:
    """One request as its handler sees it."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: bytes = scope.get("raw_path") or self.path.encode()
        self.query: str = scope.get("query_string", b"").decode("latin-1")
        self.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        self.receive = receive

    async def gone(self) -> None:
        """Wait until the client has gone away; the body must have been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


Handler = Callable[[Request], Coroutine[Any, Any, Reply]]


class App:
    """The ASGI application around a `Service`.

    `token` guards everything but `/healthz`; `local` refuses Host headers of other machines,
    which a web page that rebinds its name would send. `mcp` answers `/mcp`.
    """

    def __init__(
        self,
        service: Service,
        version: str,
        *,
        token: str = "",
        local: bool = True,
        mcp: ASGI | None = None,
    ) -> None:
        self.service = service
        self.mcp = mcp
        self._token = token.encode()
        self._local = local
        self._held = 0
        self._schema = msgspec.json.encode(schema(service.limits, version, bool(token)))
        self._docs = docs_page(msgspec.json.decode(self._schema)).encode()
        self._routes: dict[str, dict[str, Handler]] = {
            "/retrieve": {"POST": self._retrieve},
            "/search": {"POST": self._computed(wire.SearchOne, service.search)},
            "/shard/search": {"POST": self._computed(wire.SearchVectors, service.shard_search)},
            "/rerank": {"POST": self._computed(wire.Rerank, service.rerank)},
            "/v1/embeddings": {"POST": self._computed(wire.Embeddings, service.embeddings)},
            "/v1/info": {"GET": self._plain(service.info)},
            "/healthz": {"GET": self._plain(lambda: wire.Health("ok"))},
            "/readyz": {"GET": self._ready},
            "/metrics": {"GET": self._metrics},
            "/admin/reload": {"POST": self._reload},
            "/run": {"GET": self._plain(lambda: {"stages": service.runs.stages()})},
            "/run/trajectories": {"GET": self._trajectories},
            "/run/trajectory": {"GET": self._trajectory},
            "/openapi.json": {"GET": self._openapi},
            "/docs": {"GET": self._docs_page},
            **{path: {"GET": self._page(path)} for path in PAGES},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        began = self.service.metrics.clock()
        route = request.path if request.path in self._routes else "other"
        route = "/passages" if request.path.startswith("/passages/") else route
        try:
            self._check_host(request)
            self._check_token(request)
            if self.mcp is not None and request.path == "/mcp":
                await self.mcp(scope, receive, send)
                return
            reply = await self._answer(request)
        except GoneError:
            self.service.metrics.events["disconnected"] += 1
            return
        except BadRequest as bad:
            reply = refusal(bad)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            reply = refusal(BadRequest(500, "the server made a mistake; its log says more"))
        self.service.metrics.answered(route, reply.status, self.service.metrics.clock() - began)
        await self._send(send, reply)

    async def _send(self, send: Send, reply: Reply) -> None:
        headers = {"content-type": reply.kind, "content-length": str(len(reply.body))}
        headers |= {**SECURITY, **reply.headers}
        if self.service.draining or reply.status in (408, 413):
            headers["connection"] = "close"
        listed = [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()]
        with contextlib.suppress(OSError):
            await send({"type": "http.response.start", "status": reply.status, "headers": listed})
            await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, request: Request) -> Reply:
        if request.path.startswith("/passages/"):
            methods: dict[str, Handler] = {"GET": self._passage}
        elif request.path in self._routes:
            methods = self._routes[request.path]
        elif request.path == "/mcp":
            raise BadRequest(404, "MCP is not installed; pip install 'agentic-r[mcp]'")
        else:
            raise BadRequest(404, f"there is no {request.path[:80]!r}; /docs lists what there is")
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join(methods)
            raise BadRequest(
                405,
                f"{request.path[:80]}: got {request.method[:20]}, expected {allowed}",
                {"Allow": allowed},
            )
        return await handler(request)

    def _check_host(self, request: Request) -> None:
        if not self._local:
            return
        host = request.headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in LOCAL:
            raise BadRequest(
                421, f"Host: got {host[:80]!r}, expected localhost: this server is bound to it"
            )

    def _check_token(self, request: Request) -> None:
        """Let in who has the token: as a bearer, or as the password that a browser asks for."""
        if not self._token or request.path == "/healthz":
            return
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        given = value.strip().encode("latin-1")
        if kind.lower() == "basic" and request.path != "/admin/reload":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                given = b""
        elif kind.lower() != "bearer":
            given = b""
        if not hmac.compare_digest(given, self._token):
            raise BadRequest(
                401,
                "expected the header Authorization: Bearer TOKEN with this server's token",
                {"WWW-Authenticate": 'Bearer, Basic realm="agentic-r: the token as password"'},
            )

    async def _body(self, request: Request) -> bytes:
        """Read the body: JSON of at most the limit. Raises BadRequest 408, 413, 415, 503."""
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise BadRequest(415, f"content type: got {kind[:80]!r}, expected application/json")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise BadRequest(415, "content encoding: expected none; send the JSON as it is")
        limit = self.service.limits.max_body_mib << 20
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > limit:
            raise BadRequest(413, f"body: got {length} bytes, expected at most {limit}")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise GoneError
                    part = message.get("body", b"")
                    size += len(part)
                    self._held += len(part)
                    parts.append(part)
                    if size > limit:
                        raise BadRequest(413, f"body: got more than {limit} bytes")
                    if self._held > HELD:
                        raise BadRequest(
                            503, "too many large requests at once", {"Retry-After": "5"}
                        )
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise BadRequest(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None
        finally:
            self._held -= size

    async def _run(self, request: Request, work: Awaitable[Any]) -> Any:
        """Await a computation that is dropped when the client goes away."""
        found = await unless_gone(work, request.gone)
        if found is None:
            raise GoneError
        return found

    async def _retrieve(self, request: Request) -> Reply:
        body = read(await self._body(request), _RETRIEVE)
        reply, version = await self._run(request, self.service.retrieve(body))
        return Reply(reply, headers={"X-Index-Version": version})

    def _computed(self, kind: type, work: Callable[[Any], Awaitable[Any]]) -> Handler:
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)

        async def handler(request: Request) -> Reply:
            body = read(await self._body(request), decoder)
            return Reply(encoded(await self._run(request, work(body))))

        return handler

    def _plain(self, work: Callable[[], Any]) -> Handler:
        async def handler(request: Request) -> Reply:
            return Reply(encoded(work()))

        return handler

    async def _ready(self, request: Request) -> Reply:
        health = self.service.health()
        body = msgspec.json.encode(health)
        if health.status == "ok":
            return Reply(body)
        return Reply(body, 503, headers={"Retry-After": "1"})

    async def _metrics(self, request: Request) -> Reply:
        return Reply(self.service.prometheus().encode(), kind="text/plain; version=0.0.4")

    async def _reload(self, request: Request) -> Reply:
        if not self._token:
            raise BadRequest(
                403, "this server has no token, so only SIGHUP reloads; set serve.token_env"
            )
        return Reply(encoded(await self.service.reload()))

    async def _passage(self, request: Request) -> Reply:
        try:
            id = urllib.parse.unquote(
                request.raw_path.partition(b"?")[0].decode("ascii"), errors="strict"
            ).removeprefix("/passages/")
        except UnicodeDecodeError:
            raise BadRequest(400, "the passage id is not UTF-8") from None
        passage, version = await self.service.passage(id, parameter(request, "version"))
        body = msgspec.json.encode(wire.Document(passage.id, wire.contents(passage)))
        return Reply(body, headers={"X-Index-Version": version})

    async def _trajectories(self, request: Request) -> Reply:
        stage, start = parameters(request, "stage", "start")
        runs = self.service.runs
        return Reply(encoded(await asyncio.to_thread(runs.listing, stage, start)))

    async def _trajectory(self, request: Request) -> Reply:
        stage, row = parameters(request, "stage", "row")
        runs = self.service.runs
        return Reply(encoded(await asyncio.to_thread(runs.trajectory, stage, row)))

    async def _openapi(self, request: Request) -> Reply:
        return Reply(self._schema)

    async def _docs_page(self, request: Request) -> Reply:
        return Reply(self._docs, kind="text/html; charset=utf-8")

    def _page(self, path: str) -> Handler:
        async def handler(request: Request) -> Reply:
            kind, body = PAGES[path]()
            return Reply(body, kind=kind, headers={"Cache-Control": "no-cache"})

        return handler


_RETRIEVE = msgspec.json.Decoder(wire.Retrieve)


def refusal(bad: BadRequest) -> Reply:
    """Write what was wrong as JSON."""
    kind = REASONS[bad.status].lower()
    message = bad.message.encode("utf-8", "replace").decode()
    body = msgspec.json.encode(wire.Error(wire.ErrorBody(message, kind)))
    return Reply(body, bad.status, headers=bad.headers)


def read(body: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Decode a body. Raises BadRequest 422 for a wrong value, 400 for what is no JSON."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest(422, f"body: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(400, f"body: expected JSON in UTF-8: {error}") from None


def parameter(request: Request, name: str) -> str | None:
    """Read the one query parameter that there may be. Raises BadRequest 422 for others."""
    if not request.query:
        return None
    pairs = _pairs(request, f"?{name}=... or nothing")
    if set(pairs) != {name} or len(pairs[name]) != 1:
        raise BadRequest(422, f"expected {name}, once, and nothing else")
    return pairs[name][0]


def _pairs(request: Request, expected: str) -> dict[str, list[str]]:
    try:
        return urllib.parse.parse_qs(
            request.query, keep_blank_values=True, strict_parsing=True, errors="strict"
        )
    except (ValueError, UnicodeDecodeError):
        raise BadRequest(422, f"expected {expected}") from None


def parameters(request: Request, text: str, number: str) -> tuple[str, int]:
    """Read the two query parameters of a listing. Raises BadRequest 422."""
    pairs = _pairs(request, f"?{text}=...&{number}=...")
    if set(pairs) != {text, number} or any(len(v) != 1 for v in pairs.values()):
        raise BadRequest(422, f"expected {text} and {number}, each once, and nothing else")
    digits = pairs[number][0]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise BadRequest(422, f"{number}: got {digits[:40]!r}, expected an integer of at least 0")
    return pairs[text][0], int(digits)
