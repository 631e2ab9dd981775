"""The OpenAPI schema of the service, made from the types that read and write its messages."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from agentic_r.serve import wire
from agentic_r.settings import ServeConfig


class Operation(NamedTuple):
    """One method of one path: what it does, what it takes, what it gives."""

    method: str
    path: str
    about: str
    body: type | None = None
    reply: type | None = None
    kind: str = "application/json"
    parameters: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    statuses: tuple[int, ...] = ()
    optional: tuple[str, ...] = ()


_COMPUTED = (400, 408, 413, 415, 422, 503, 504)
_NUMBER = {"type": "integer", "minimum": 0, "maximum": 1_000_000_000}

OPERATIONS = (
    Operation(
        "POST",
        "/retrieve",
        "Find passages for queries",
        wire.Retrieve,
        wire.Retrieved,
        statuses=_COMPUTED,
    ),
    Operation(
        "POST",
        "/search",
        "Find passages for one query with a retriever of choice",
        wire.SearchOne,
        wire.SearchReply,
        statuses=_COMPUTED,
    ),
    Operation(
        "POST",
        "/shard/search",
        "Find passages for a router's vectors",
        wire.SearchVectors,
        wire.VectorHits,
        statuses=(*_COMPUTED, 409),
    ),
    Operation(
        "POST",
        "/rerank",
        "Put texts in order for a query",
        wire.Rerank,
        wire.Reranked,
        statuses=(*_COMPUTED, 404),
    ),
    Operation(
        "POST",
        "/v1/embeddings",
        "Encode texts",
        wire.Embeddings,
        wire.EmbeddingList,
        statuses=(*_COMPUTED, 404),
    ),
    Operation(
        "GET",
        "/passages/{id}",
        "Look a passage up",
        None,
        wire.Document,
        parameters=(
            ("id", "path", {"type": "string", "minLength": 1}),
            ("version", "query", {"type": "string", "minLength": 1}),
        ),
        statuses=(400, 404, 410, 422, 503),
        optional=("version",),
    ),
    Operation("GET", "/v1/info", "Say what is served", None, wire.Info, statuses=(503,)),
    Operation("GET", "/healthz", "Say that the process is alive", None, wire.Health),
    Operation(
        "GET",
        "/readyz",
        "Say whether model and index are loaded",
        None,
        wire.Health,
        statuses=(503,),
    ),
    Operation("GET", "/metrics", "Count, for Prometheus", None, str, "text/plain"),
    Operation(
        "POST",
        "/admin/reload",
        "Open the newest index beside this one and change over",
        None,
        wire.Reloaded,
        statuses=(403, 409, 503),
    ),
    Operation(
        "GET", "/run", "List the stages of the run that hold trajectories", statuses=(404, 503)
    ),
    Operation(
        "GET",
        "/run/trajectories",
        "List trajectories of a stage",
        parameters=(
            ("stage", "query", {"type": "string", "minLength": 1}),
            ("start", "query", _NUMBER),
        ),
        statuses=(404, 422, 503),
    ),
    Operation(
        "GET",
        "/run/trajectory",
        "Read one trajectory of a stage",
        parameters=(
            ("stage", "query", {"type": "string", "minLength": 1}),
            ("row", "query", _NUMBER),
        ),
        statuses=(404, 422, 503),
    ),
)


def schema(limits: ServeConfig, version: str, secured: bool) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document; the limits of this server are in it."""
    types = [t for op in OPERATIONS for t in (op.body, op.reply) if t not in (None, str)]
    _, components = msgspec.json.schema_components(
        [*dict.fromkeys(types), wire.Scored, wire.Error], ref_template="#/components/schemas/{name}"
    )
    _limit(components, limits)
    # Which of the two it is depends on `return_scores`; the type system has no such union.
    components["Retrieved"]["properties"]["result"]["items"]["items"] = {
        "anyOf": [_ref(wire.Scored), _ref(wire.Document)]
    }
    paths: dict[str, Any] = {}
    for op in OPERATIONS:
        paths.setdefault(op.path, {})[op.method.lower()] = _operation(op, secured)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "agentic-r",
            "version": version,
            "description": "Retrieval for search agents. Every error is a JSON object that says "
            "what was got and what was expected.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }
    if secured:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _operation(op: Operation, secured: bool) -> dict[str, Any]:
    statuses = set(op.statuses) | ({401} if secured and op.path != "/healthz" else set())
    statuses |= {403} if op.path == "/admin/reload" else set()
    found: dict[str, Any] = {
        "summary": op.about,
        "description": (op.body.__doc__ or "").strip() if op.body else op.about,
        "operationId": op.path.strip("/").replace("/", "_").replace("{", "").replace("}", ""),
        "responses": {
            "200": {"description": "Done", "content": {op.kind: {"schema": _reply(op)}}},
            **{
                str(status): {
                    "description": REASONS[status],
                    "content": {"application/json": {"schema": _ref(wire.Error)}},
                }
                for status in sorted(statuses)
            },
        },
    }
    if op.path == "/readyz":
        found["responses"]["503"]["content"]["application/json"]["schema"] = _ref(wire.Health)
    if op.path == "/healthz":
        found["security"] = []
    if op.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(op.body)}},
        }
    if op.parameters:
        found["parameters"] = [
            {"name": name, "in": where, "required": name not in op.optional, "schema": kind}
            for name, where, kind in op.parameters
        ]
    return found


REASONS = {
    400: "Not JSON, or not UTF-8",
    401: "No token, or a wrong one",
    403: "Not allowed",
    404: "There is none",
    405: "Another method is wanted",
    408: "The body did not arrive in time",
    409: "What is there cannot be opened",
    410: "That version is held no longer",
    411: "The body has no length",
    413: "The body is too large",
    415: "Another content type is wanted",
    421: "The Host header names another server",
    422: "A value that cannot be",
    500: "A fault of the server",
    503: "Not ready, stopping, or the queue is full: try again",
    504: "Not done in time",
}


def _ref(type: type) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{type.__name__}"}


def _reply(op: Operation) -> dict[str, Any]:
    if op.reply is None:
        return {"type": "object"}
    return {"type": "string"} if op.reply is str else _ref(op.reply)


def _limit(components: dict[str, Any], limits: ServeConfig) -> None:
    """Write the settings' limits into the schemas of the request bodies."""
    for op in OPERATIONS:
        if op.body is None:
            continue
        for name, field in components[op.body.__name__]["properties"].items():
            for option in field.get("anyOf", [field]):
                if option.get("type") == "integer" and name != "dimensions":
                    option["maximum"] = limits.max_topk
                if option.get("type") == "string" and "enum" not in option:
                    option["maxLength"] = limits.max_chars
                if option.get("type") == "array":
                    option["maxItems"] = limits.max_queries
                    option["items"]["maxLength"] = limits.max_chars
