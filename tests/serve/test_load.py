"""More clients than can be served: what is accepted is answered in bounded time, the rest told."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any, NamedTuple

import msgspec
import pytest

from agentic_r.serve.http import App
from tests.serve.conftest import Make, served

PAUSE = 0.05
"""Seconds of a batch: far more than what the shell around it costs."""

BATCH, QUEUE, CLIENTS = 8, 64, 400


class Answer(NamedTuple):
    status: int
    retry_after: int
    seconds: float


async def ask(app: App, text: str) -> Answer:
    """Send one request to an application in this process."""
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/retrieve", "headers": headers}
    body = [msgspec.json.encode({"queries": [text]})]
    never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    found: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body.pop()} if body else await never

    async def send(message: Any) -> None:
        found.append(message)

    began = time.perf_counter()
    await app(scope, receive, send)
    start, _ = found
    told = dict(start["headers"]).get(b"retry-after", b"0")
    return Answer(start["status"], int(told), time.perf_counter() - began)


class Crowd(NamedTuple):
    """Every answer, how long it took, and the longest that other programs kept us waiting."""

    answers: list[Answer]
    seconds: float
    stalled: float


async def crowd(app: App, seconds: float) -> Crowd:
    """Let all clients ask until the time is up."""
    answers: list[Answer] = []
    began = time.perf_counter()
    stalled = 0.0

    async def watch() -> None:
        nonlocal stalled
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            stalled = max(stalled, time.perf_counter() - before - 0.01)

    async def client(number: int) -> None:
        at = 0
        while time.perf_counter() - began < seconds:
            at += 1
            answers.append(await ask(app, f"client {number} asks {at}"))
            if answers[-1].status == 503:
                await asyncio.sleep(0.5)  # half of what it is told to wait

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    watcher.cancel()
    return Crowd(answers, time.perf_counter() - began, stalled)


async def alone(app: App, count: int) -> float:
    """Return the median seconds of requests one after the other."""
    return statistics.median([(await ask(app, f"alone {at}")).seconds for at in range(count)])


@pytest.fixture
def app(make: Make) -> Any:
    limits = {"queue": QUEUE, "batch": BATCH, "cache_mib": 0}
    client = make(limits, what=served(pause=PAUSE)[0])
    return client


def test_waiting_is_bounded_under_overload_and_over_when_it_ends(app: Any) -> None:
    before = app.run(alone(app.app, 15))
    answers, took, stalled = app.run(crowd(app.app, 4.0))
    accepted = [each for each in answers if each.status == 200]
    refused = [each for each in answers if each.status == 503]
    assert len(accepted) + len(refused) == len(answers)
    assert len(refused) > len(accepted) > 4 * QUEUE
    assert all(each.retry_after >= 1 for each in refused)
    assert app.app.service.metrics.events["rejected"] == len(refused)

    rate = len(accepted) / took
    slowest = statistics.quantiles([each.seconds for each in accepted], n=100)[98]
    bound = 1.5 * QUEUE / rate + stalled
    assert slowest <= bound, f"p99 {slowest:.3f} s at {rate:.0f} a second, {stalled:.3f} s stalled"
    # Whoever is turned away knows at once: before a single batch is done.
    assert statistics.median(each.seconds for each in refused) < PAUSE + stalled

    ended = time.perf_counter()
    while (now := app.run(alone(app.app, 9))) > 1.1 * before:
        assert time.perf_counter() - ended < 5, f"p50 {now:.3f} s, before the load {before:.3f} s"
    assert len(app.app.service.batcher) == 0
