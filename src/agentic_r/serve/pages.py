"""The web page and the page of the API, from files of this package alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import msgspec

WEB = Path(__file__).parent / "web"

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@cache
def _file(name: str) -> bytes:
    return (WEB / name).read_bytes()


def _page(name: str, kind: str) -> Callable[[], tuple[str, bytes]]:
    return lambda: (f"{kind}; charset=utf-8", _file(name))


PAGES: dict[str, Callable[[], tuple[str, bytes]]] = {
    "/": _page("index.html", "text/html"),
    "/page.css": _page("page.css", "text/css"),
    "/page.js": _page("page.js", "text/javascript"),
    "/walk.js": _page("walk.js", "text/javascript"),
    "/icon.svg": _page("icon.svg", "image/svg+xml"),
}
"""Path -> its content type and its bytes: a request names one of these, never a file."""


def docs_page(document: dict[str, Any]) -> str:
    """Write the OpenAPI document as a page that a person can read."""
    parts = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(path, method, operation, document["components"]["schemas"]))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<title>agentic-r: API</title><link rel="stylesheet" href="/page.css">'
        '<link rel="icon" href="/icon.svg"></head><body><main class="docs">'
        f"<h1>API of this server</h1><p>{escape(document['info']['description'])} "
        'The same as a machine reads it: <a href="/openapi.json">openapi.json</a>. '
        '<a href="/">Back to the page</a>.</p>' + "".join(parts) + "</main></body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    text = operation["summary"]
    if operation["description"] != text:
        text += ". " + " ".join(operation["description"].split())
    statuses = ", ".join(
        f"{status} {escape(reply['description'].lower())}"
        for status, reply in operation["responses"].items()
    )
    parts = [f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(text)}</p>"]
    if body := operation.get("requestBody"):
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        parts.append(_schema("Takes", schemas[name]))
    reply = next(iter(operation["responses"]["200"]["content"].values()))["schema"]
    if "$ref" in reply:
        parts.append(_schema("Gives", schemas[reply["$ref"].rpartition("/")[2]]))
    parts.append(f"<p><small>{statuses}</small></p></section>")
    return "".join(parts)


def _schema(title: str, schema: dict[str, Any]) -> str:
    text = msgspec.json.format(msgspec.json.encode(schema.get("properties", schema)), indent=2)
    return f"<details><summary>{title}</summary><pre>{escape(text.decode())}</pre></details>"
