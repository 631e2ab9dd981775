"""An index over several servers: the merged top k are those of one, and a dead one is told."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.config import load_config
from agentic_r.errors import ConfigError, DataError, MismatchError, OutageError
from agentic_r.serve import shards as module
from agentic_r.serve import wire
from agentic_r.serve.http import App
from agentic_r.serve.offer import Opener
from agentic_r.serve.routes import Service
from agentic_r.serve.shards import Partial, ShardedRetriever, Shards, _best
from agentic_r.served import Opening
from agentic_r.settings import ServeConfig
from tests.serve.process import find, process, write_config

uvicorn = pytest.importorskip("uvicorn")


class Vectors:
    passage_side = "side"

    def encode(self, texts: Any, kind: str) -> Any:
        return np.array([[len(text), 1] for text in texts], np.float32)


class Fake:
    """A shard of our own protocol; `answer` makes what it says to /shard/search."""

    def __init__(self, answer: Any, side: str = "side") -> None:
        fake = self
        self.asked: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                offer = {"name": "x", "model": "m", "key": "k", "input": "query", "dimension": 2}
                offers = [{**offer, "engine": None, "index": side}]
                info = {"version": "v", "passages": 7, "retrievers": offers, "topk": 3}
                self.reply(200, {**info, "reranker": False, "run": None, "limits": {}})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fake.asked.append(msgspec.json.decode(body, type=wire.SearchVectors))
                self.reply(*answer(fake.asked[-1]))

            def reply(self, status: int, body: Any) -> None:
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def scored(*pairs: tuple[str, float]) -> Any:
    """Answer each vector with these hits, as many as are wanted."""

    def answer(asked: wire.SearchVectors) -> tuple[int, Any]:
        hits = [{"id": id, "title": "", "text": id, "score": score} for id, score in pairs]
        return 200, {"version": "v", "result": [hits[: asked.topk]] * len(asked.vectors)}

    return answer


@pytest.fixture
def fakes() -> Iterator[list[Fake]]:
    made: list[Fake] = []
    yield made
    for each in made:
        each.close()


def test_vectors_go_to_all_and_the_best_come_back(fakes: list[Fake]) -> None:
    fakes += [Fake(scored(("a", 3.0), ("b", 1.0))), Fake(scored(("c", 3.0), ("d", 2.0)))]
    shards = Shards([each.url for each in fakes], "refuse")
    shards.open("side")
    assert len(shards) == 14
    found = ShardedRetriever(shards, Vectors()).search(["xx", "yyyy"], 3)
    assert [[hit.passage.id for hit in hits] for hits in found] == [["a", "c", "d"]] * 2
    for each in fakes:
        [asked] = each.asked
        assert [np.frombuffer(v, "<f4").tolist() for v in asked.vectors] == [[2, 1], [4, 1]]
        assert (asked.topk, asked.index, asked.version) == (3, "side", "v")


BROKEN = [
    lambda _: (500, {}),
    lambda _: (503, {"error": {"message": "loading"}}),
    lambda _: (409, {"error": {"message": "another version"}}),
    lambda _: (200, b"no json"),
    lambda _: (200, {"version": "v", "result": [[{"id": "a"}]]}),
    lambda _: (200, {"version": "v", "result": []}),
]


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_a_shard_that_is_away_is_told_and_counted(
    fakes: list[Fake], monkeypatch: pytest.MonkeyPatch, broken: Any
) -> None:
    monkeypatch.setattr(module, "AWAY", 0.3)
    fakes += [Fake(scored(("a", 3.0))), Fake(broken)]
    urls = [each.url for each in fakes]
    strict, lenient = Shards(urls, "refuse"), Shards(urls, "answer")
    for shards in (strict, lenient):
        shards.open("side")
    with pytest.raises(OutageError, match=f"1 of 2 shards do not answer: shard {urls[1]}"):
        ShardedRetriever(strict, Vectors()).search(["x"], 2)
    [hits] = ShardedRetriever(lenient, Vectors()).search(["x"], 2)
    assert isinstance(hits, Partial) and [hit.passage.id for hit in hits] == ["a"]
    assert f'agentic_r_shard_up{{shard="{urls[1]}"}} 0' in lenient.prometheus()
    asked = len(fakes[1].asked)
    ShardedRetriever(lenient, Vectors()).search(["x"], 2)
    assert len(fakes[1].asked) == asked, "asked again at once"
    time.sleep(0.35)
    ShardedRetriever(lenient, Vectors()).search(["x"], 2)
    assert len(fakes[1].asked) > asked
    assert f'agentic_r_shard_failures_total{{shard="{urls[1]}"}} 2' in lenient.prometheus()


def test_what_does_not_belong_together_is_refused(fakes: list[Fake]) -> None:
    fakes += [Fake(scored(("a", 1.0))), Fake(scored(("a", 2.0)), "another")]
    with pytest.raises(MismatchError, match="encoder another, got queries of encoder side"):
        Shards([each.url for each in fakes], "answer").open("side")
    twice = Shards([each.url for each in fakes], "answer")
    with pytest.raises(DataError, match="'a' is on several shards"):
        ShardedRetriever(twice, Vectors()).search(["x"], 2)
    for urls in ([], ["http://h:1", "http://h:1"], ["h:1"], ["http://[::1"]):
        with pytest.raises(ConfigError, match=r"serve\.shards"):
            Shards(urls, "refuse")
    nobody = Shards(["http://127.0.0.1:9", "http://127.0.0.1:1"], "answer")
    with pytest.raises(OutageError, match="2 of 2"):
        nobody.open("side")


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=4), st.integers(1, 9))
def test_merging_is_sorting_all_of_it(scores: list[list[int]], k: int) -> None:
    parts = [
        [wire.Found(f"{s}-{at}", "", "", float(x)) for at, x in enumerate(sorted(part)[::-1])]
        for s, part in enumerate(scores)
    ]
    every = [hit for part in parts for hit in part]
    wanted = sorted(range(len(every)), key=lambda at: (-every[at].score, at))[:k]
    assert [hit.passage.id for hit in _best(parts, k)] == [every[at].id for at in wanted]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("shards"))


def part_of(whole: Path, number: int, parts: int) -> list[tuple[str, str]]:
    """The settings that serve one part of the corpus."""
    lines = whole.with_name("corpus.jsonl").read_text().splitlines(keepends=True)
    size = -(-len(lines) // parts)
    path = whole.with_name(f"part-{number}-of-{parts}.jsonl")
    path.write_text("".join(lines[number * size : (number + 1) * size]))
    return [("data.corpus", str(path)), ("name", path.stem)]


class Listening:
    """A server on a port of its own, in a thread."""

    def __init__(self, opener: Opener, limits: ServeConfig) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._main(opener, limits)))
        self.thread.start()
        assert self.ready.wait(300)

    async def _main(self, opener: Opener, limits: ServeConfig) -> None:
        service = Service(opener, limits)
        await service.load()
        settings = uvicorn.Config(App(service, "0"), log_level="error", lifespan="off")
        self.server = uvicorn.Server(settings)
        self.ready.set()
        await self.server.serve([self.socket])

    def kill(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=60)


def opening(path: Path, more: list[tuple[str, str]]) -> Opening:
    return Opening(load_config(path, more))


def test_three_servers_find_what_one_does_and_one_is_killed(whole: Path) -> None:
    queries = [f"where was {name} born" for name in ("ada", "bo", "oskar", "the city of 7")]
    one = opening(whole, [])().main.retriever.search(queries, 5)
    with ExitStack() as stack:

        def start(more: list[tuple[str, str]]) -> Listening:
            found = opening(whole, more)
            made = Listening(found, found.config.serve)
            stack.callback(made.kill)
            return made

        shards = [start(part_of(whole, number, 3)) for number in range(3)]
        urls = json.dumps([each.url for each in shards])
        flags = [("serve.cache_mib", "0"), ("serve.shards", urls)]
        strict = start(flags).url
        lenient = start([*flags, ("serve.missing_shard", "answer")]).url
        for url in (strict, lenient):
            reply = find(url, *queries, topk=5, return_scores=True).json()
            assert set(reply) == {"result"}
            for hits, expected in zip(reply["result"], one, strict=True):
                ids = [hit["document"]["id"] for hit in hits]
                assert ids == [hit.passage.id for hit in expected]
                scores = [hit.score for hit in expected]
                assert [hit["score"] for hit in hits] == pytest.approx(scores, abs=1e-5)
        assert get(f"{strict}/v1/info").json()["passages"] == 42
        assert get(f"{strict}/passages/p41").json()["id"] == "p41"
        assert get(f"{strict}/passages/p42").status_code == 404
        shards[1].kill()
        refused = find(strict, "after the kill")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        message = refused.json()["error"]["message"]
        assert f"1 of 3 shards do not answer: shard {shards[1].url}" in message
        partial = find(lenient, *queries, topk=50, return_scores=True).json()
        assert partial["partial"] is True
        assert {len(hits) for hits in partial["result"]} == {28}
        assert get(f"{lenient}/passages/p41").json()["id"] == "p41"
        assert get(f"{lenient}/passages/p20").status_code == 503
        assert get(f"{lenient}/readyz").json()["shards"][shards[1].url] == "away"
        said = get(f"{lenient}/metrics").text
        assert 'agentic_r_events_total{event="partial"} 1' in said
        assert f'agentic_r_shard_up{{shard="{shards[1].url}"}} 0' in said


def test_the_command_line_routes(whole: Path) -> None:
    flags = [text for key, value in part_of(whole, 0, 1) for text in (f"--{key}", value)]
    with process(whole, *flags) as (_, shard), process(whole, "--shards", shard) as (_, router):
        reply = find(router, "where was ada born", topk=2)
        assert reply.json() == find(shard, "where was ada born", topk=2).json()
        assert [each["name"] for each in get(f"{router}/v1/info").json()["retrievers"]] == [
            "shards"
        ]
