"""Schemathesis drives the service by its own OpenAPI schema: never a 500, and no growth."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import httpx
import msgspec
import pytest

from tests.serve.conftest import Make

schemathesis = pytest.importorskip("schemathesis")

pytestmark = pytest.mark.slow

CASES = 5000
REQUESTS = 100_000


def test_five_thousand_requests_and_no_500(make: Make) -> None:
    """Valid and invalid ones, made from the schema; what the schema forbids is refused."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode

    client = make(token="")
    document = msgspec.json.decode(client.get("/openapi.json").content)
    schema = schemathesis.openapi.from_dict(document)
    operations = [
        found.ok()
        for found in schema.get_all_operations()
        if found.ok().body or found.ok().query or found.ok().path_parameters
    ]
    each = CASES // len(operations)  # twice, but not everything can be made wrong
    seen: dict[str, set[int]] = {}
    count = 0
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            cases = operation.as_strategy(generation_mode=mode)

            @given(case=cases)
            @settings(
                max_examples=each,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def one(case: Any) -> None:
                nonlocal count
                count += 1
                wanted = case.as_transport_kwargs(base_url="http://localhost")
                kept = {
                    k: wanted[k] for k in ("params", "json", "content", "headers") if k in wanted
                }
                if "data" in wanted:
                    kept["content"] = wanted["data"]
                try:
                    reply = client.request(case.method, case.formatted_path, **kept)
                except (UnicodeError, httpx.InvalidURL):
                    return  # what no client can send
                assert reply.status_code < 500, (case, reply.text)
                seen.setdefault(case.operation.label, set()).add(reply.status_code)

            try:
                one()
            except Unsatisfiable:  # such as a path, of which every string is right
                assert mode is GenerationMode.NEGATIVE, operation.label
    assert count >= CASES
    assert {200, 422} <= seen["POST /retrieve"]
    assert {200, 422} <= seen["POST /v1/embeddings"]


def resident() -> int:
    """Bytes of memory in use now, else the most so far."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_memory_does_not_grow(make: Make) -> None:
    """100,000 requests, good and bad, after the cache has filled: less than 5 % more memory."""
    client = make({"cache_mib": 1})
    app = client.app
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]

    async def post(body: bytes) -> int:
        scope = {"type": "http", "method": "POST", "path": "/retrieve", "headers": headers}
        status = 0
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        first = True

        async def receive() -> Any:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": body}
            return await waiting

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        await app(scope, receive, send)
        return status

    async def many(start: int, count: int) -> None:
        for at in range(start, start + count, 50):
            bodies = [
                b'{"queries": ["number %d"]}' % (n % 30_011) if n % 5 else b'{"queries": [%d]}' % n
                for n in range(at, at + 50)
            ]
            statuses = await asyncio.gather(*(post(body) for body in bodies))
            assert set(statuses) == {200, 422}

    client.run(many(0, 20_000))
    before = resident()
    client.run(many(20_000, REQUESTS))
    assert resident() < 1.05 * before
