"""The HTTP contract: what clients send and read, and what is refused how."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from agentic_r.errors import OutageError
from agentic_r.serve.http import App
from agentic_r.serve.openapi import OPERATIONS
from agentic_r.serve.pages import PAGES
from agentic_r.serve.routes import Service
from agentic_r.settings import ServeConfig
from tests.serve.conftest import Client, Longest, Make, served

JSON = {"content-type": "application/json"}


def test_search_r1_reads_what_we_write(client: Client) -> None:
    """As its generation loop does: document, contents, title on the first line."""
    body = {"queries": ["ulm danube", "hives novel"], "topk": 1, "return_scores": True}
    for result, title in zip(
        client.post("/retrieve", body).json()["result"], ("Ulm", "Hives"), strict=True
    ):
        content = result[0]["document"]["contents"]
        assert content.split("\n")[0] == f'"{title}"'
        assert content.split("\n")[1].startswith(f"{title} is a")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_without_scores_there_are_bare_documents(client: Client, count: int) -> None:
    """Upstream crashes here, and for exactly two queries answers with wrong data (C53)."""
    reply = client.post("/retrieve", {"queries": ["ulm"] * count, "topk": 2}).json()
    assert [len(hits) for hits in reply["result"]] == [2] * count
    contents = '"Ulm"\nUlm is a city on the Danube.'
    assert reply["result"][-1][0] == {"id": "p2", "contents": contents}


@pytest.mark.parametrize("query", ["ulm city", ["ulm city"]])
def test_skyrl_spells_it_query(client: Client, query: Any) -> None:
    body = {"query": query, "topk": 1, "return_scores": True}
    [[hit]] = client.post("/retrieve", body).json()["result"]
    assert (hit["document"]["id"], hit["score"]) == ("p2", 2.0)


def test_topk(client: Client) -> None:
    def lengths(**more: Any) -> list[int]:
        reply = client.post("/retrieve", {"queries": ["ulm"], **more})
        return [len(hits) for hits in reply.json()["result"]]

    assert lengths() == lengths(topk=None) == [3]
    assert lengths(topk=1000) == [23]
    assert client.post("/retrieve", {"queries": []}).json() == {"result": []}
    assert client.post("/retrieve", {"queries": ["", " ", "\0"]}).status_code == 200


def test_the_input_of_the_retriever_is_built(make: Make) -> None:
    offered, words = served()
    client = make(what=offered)
    client.post("/retrieve", {"queries": ["a", "b"], "question": "Q?", "reasoning": "so"})
    client.post("/retrieve", {"queries": ["c", "d"], "question": ["P?", "R?"]})
    client.post("/retrieve", {"queries": ["Q? [SEP] e"]})
    assert [sorted(call) for call in words.calls] == [
        ["Q? [SEP] a", "Q? [SEP] b"],
        ["P? [SEP] c", "R? [SEP] d"],
        ["Q? [SEP] e"],
    ]
    reply = client.post("/search", {"query": "a", "question": "Q?", "topk": 1}).json()
    assert (reply["sent"], reply["retriever"]) == ("Q? [SEP] a", "latest")
    plain = {"query": "a", "question": "Q?", "topk": 1, "retriever": "untouched"}
    assert client.post("/search", plain).json()["sent"] == "a"
    assert client.post("/search", {**plain, "retriever": "x"}).status_code == 422


@pytest.mark.parametrize("count", [512, 2560, 4096])
def test_a_whole_turn_at_once(client: Client, count: int) -> None:
    queries = [f"number {at % 700}" for at in range(count)]
    body = {"queries": queries, "topk": 3, "return_scores": True}
    result = client.post("/retrieve", body).json()["result"]
    assert len(result) == count
    for at in (0, 7, count - 1):
        alone = client.post("/retrieve", {**body, "queries": [queries[at]]}).json()
        assert result[at] == alone["result"][0]


BAD = [
    (b"", 400, "expected JSON"),
    (b"not json", 400, "expected JSON"),
    (b'{"queries": ["\\ud800"]}', 400, "expected JSON"),
    (b'{"queries": ["\xff"]}', 400, "UTF-8"),
    (b'{"queries": ["a"], "topk": NaN}', 400, "expected JSON"),
    (b'{"queries": ["a"], "topk": Infinity}', 400, "expected JSON"),
    (b"[" * 100_000, 422, "Expected `object`"),
    (b"[]", 422, "Expected `object`"),
    (b"null", 422, "Expected `object`"),
    (b"{}", 422, "either queries or query"),
    (b'{"queries": ["a"], "query": "a"}', 422, "either queries or query"),
    (b'{"queries": "a"}', 422, "$.queries"),
    (b'{"queries": [1]}', 422, "$.queries[0]"),
    (b'{"queries": ["a"], "topk": 0}', 422, ">= 1"),
    (b'{"queries": ["a"], "topk": -1}', 422, ">= 1"),
    (b'{"queries": ["a"], "topk": "2"}', 422, "$.topk"),
    (b'{"queries": ["a"], "topk": 2.5}', 422, "$.topk"),
    (b'{"queries": ["a"], "topk": true}', 422, "$.topk"),
    (b'{"queries": ["a"], "topk": 1001}', 422, "at most 1000"),
    (b'{"queries": ["a"], "topk": 1e400}', 422, "$.topk"),
    (b'{"queries": ["a"], "top_k": 3}', 422, "unknown field `top_k`"),
    (b'{"queries": ["a"], "return_scores": 1}', 422, "$.return_scores"),
    (b'{"queries": ["a", "b"], "question": ["Q"]}', 422, "1 strings for 2 queries"),
    (b'{"queries": ["' + b"a" * 32769 + b'"]}', 422, "32769 characters"),
    (b'{"queries": [' + b'"",' * 4096 + b'""]}', 422, "at most 4096"),
    (b'{"queries": [' + b'"",' * 1000 + b'""], "topk": 1000}', 422, "send several"),
]


@pytest.mark.parametrize(("body", "status", "said"), BAD, ids=range(len(BAD)))
def test_bad_requests_are_told_what_was_wrong(
    client: Client, body: bytes, status: int, said: str
) -> None:
    reply = client.request("POST", "/retrieve", content=body, headers=JSON)
    assert reply.status_code == status
    assert said in reply.json()["error"]["message"]


def test_content_types_and_sizes(make: Make) -> None:
    client = make({"max_body_mib": 1})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"):
        headers = {"content-type": kind}
        reply = client.request("POST", "/retrieve", content=b'{"queries": []}', headers=headers)
        assert reply.status_code == 415, kind
    headers = {"content-type": "application/json; charset=utf-8"}
    reply = client.request("POST", "/retrieve", content=b'{"queries": []}', headers=headers)
    assert reply.is_success
    packed = {**headers, "content-encoding": "gzip"}
    assert client.request("POST", "/retrieve", content=b"", headers=packed).status_code == 415
    read = 0

    async def endless() -> Any:
        nonlocal read
        while True:
            read += 65536
            yield b" " * 65536

    big = {**headers, "content-length": str((1 << 20) + 1)}
    reply = client.request("POST", "/retrieve", content=endless(), headers=big)
    assert (reply.status_code, read) == (413, 0)
    reply = client.request("POST", "/retrieve", content=endless(), headers=headers)
    assert reply.status_code == 413
    assert read <= (1 << 20) + 65536 * 2
    assert client.app._held == 0


def test_paths_and_methods(client: Client) -> None:
    assert client.get("/nothing").status_code == 404
    reply = client.get("/retrieve")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert client.post("/healthz", {}).status_code == 405
    assert client.request("HEAD", "/healthz").status_code == 200


def test_passages_are_found_by_id_and_never_by_path(client: Client) -> None:
    assert client.get("/passages/p1").json()["contents"].startswith('"Hives"\n')
    assert client.get("/passages/a%2Fb%20c%3F%C3%A9").json()["id"] == "a/b c?é"
    for bad in ("0", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%2fetc%2fpasswd", "%00", "p1%20"):
        assert client.get(f"/passages/{bad}").status_code == 404, bad
    assert client.get("/passages/%ff").status_code == 400


def test_embeddings_as_openais_client_asks(client: Client) -> None:
    reply = client.post("/v1/embeddings", {"input": ["abc", "d"], "model": "words"}).json()
    assert [each["embedding"] for each in reply["data"]] == [[3.0, 1.0], [1.0, 1.0]]
    packed = {"input": "abc", "encoding_format": "base64", "input_type": "passage"}
    [one] = client.post("/v1/embeddings", packed).json()["data"]
    assert np.frombuffer(base64.b64decode(one["embedding"]), "<f4").tolist() == [3.0, 0.0]
    for bad in ({"dimensions": 7}, {"encoding_format": "int8"}, {"input": [[1, 2]]}):
        assert client.post("/v1/embeddings", {"input": "a", **bad}).status_code == 422
    assert client.post("/v1/embeddings", {"input": "a", "model": "gpt"}).status_code == 404


def test_openais_own_client(client: Client) -> None:
    openai = pytest.importorskip("openai")

    async def asked() -> Any:
        plain = httpx.AsyncClient(transport=client.transport)
        url = "http://localhost/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="x", http_client=plain) as api:
            return await api.embeddings.create(model="words", input=["abc"])

    assert client.run(asked()).data[0].embedding == [3.0, 1.0]


def test_a_router_searches_by_vector(make: Make) -> None:
    """What `/shard/search` answers; tests/serve/test_shards.py has the other side."""
    offered, words = served()

    def search_vectors(vectors: Any, k: int) -> Any:
        return [words.search([f"number {int(row[0])}"], k)[0] for row in vectors]

    words.search_vectors = search_vectors  # type: ignore[attr-defined]
    main = dataclasses.replace(offered.main, index="side")
    client = make(what=dataclasses.replace(offered, offers=(main, *offered.offers[1:])))
    row = base64.b64encode(np.array([7, 0], "<f4").tobytes()).decode()
    body = {"vectors": [row, row], "topk": 2, "index": "side"}
    reply = client.post("/shard/search", body).json()
    assert reply["version"] == client.get("/v1/info").json()["version"]
    assert [hits[0]["id"] for hits in reply["result"]] == ["n7", "n7"]
    assert reply["result"][0][0]["score"] == 2.0
    assert client.post("/shard/search", {**body, "vectors": []}).json()["result"] == []
    for key in ("index", "version"):
        assert client.post("/shard/search", {**body, key: "other"}).status_code == 409
    assert client.post("/shard/search", {**body, "version": reply["version"]}).is_success
    nan = base64.b64encode(np.array([np.nan, 0], "<f4").tobytes()).decode()
    for vectors in ([row[:-4]], [row + row], [nan], ["?"], [1], "x", [row] * 4097):
        bad = client.post("/shard/search", {**body, "vectors": vectors})
        assert bad.status_code == 422, vectors


def test_a_router_that_follows_late_is_answered_by_the_version_before() -> None:
    versions = []
    for at in range(3):
        offered, words = served(f"v{at}")
        words.search_vectors = lambda vectors, k: [[] for _ in vectors]  # type: ignore[attr-defined]
        main = dataclasses.replace(offered.main, index=f"side {at}")
        versions.append(dataclasses.replace(offered, offers=(main,)))
    opened = iter(versions)
    client = Client(lambda: App(Service(lambda: next(opened), ServeConfig()), "0"))
    row = base64.b64encode(np.zeros(2, "<f4").tobytes()).decode()

    def asked(side: int) -> int:
        body = {"vectors": [row], "topk": 1, "index": f"side {side}"}
        return client.post("/shard/search", body).status_code

    try:
        assert [asked(at) for at in range(3)] == [200, 409, 409]
        client.run(client.app.service.reload())
        assert [asked(at) for at in range(3)] == [200, 200, 409]
        client.run(client.app.service.reload())
        assert [asked(at) for at in range(3)] == [409, 200, 200]
    finally:
        client.close()


def test_what_is_behind_and_away_is_a_503(make: Make) -> None:
    offered, words = served(pause=0.05)
    client = make(what=offered)

    def away(queries: Any, k: int) -> Any:
        raise OutageError("shard http://h: away")

    words.search = away  # type: ignore[method-assign]

    async def crowd() -> list[httpx.Response]:
        bodies = [{"queries": [f"q{at}"]} for at in range(5)]
        return await asyncio.gather(*(client.send("POST", "/retrieve", json=b) for b in bodies))

    for reply in client.run(crowd()):
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
        assert "shard http://h: away" in reply.json()["error"]["message"]
    assert client.app.service.metrics.events["outage"] == 5


def test_reranking_where_there_is_a_reranker(make: Make, client: Client) -> None:
    body = {"query": "q", "documents": ["aa", "aaaa", "a"]}
    reply = client.post("/rerank", body)
    assert reply.status_code == 404
    assert "no re-ranker" in reply.json()["error"]["message"]
    reply = make(what=served(reranker=Longest())[0]).post("/rerank", {**body, "top_n": 2})
    assert [hit["index"] for hit in reply.json()["results"]] == [1, 0]


def test_info_health_and_metrics(client: Client) -> None:
    info = client.get("/v1/info").json()
    assert info["passages"] == 23
    forms = [(r["name"], r["input"]) for r in info["retrievers"]]
    assert forms == [("latest", "question+query"), ("untouched", "query")]
    assert client.get("/readyz").json() == {"status": "ok"}
    reply = client.post("/retrieve", {"queries": ["x"]})
    assert reply.headers["x-index-version"] == info["version"]
    text = client.get("/metrics").text
    assert 'agentic_r_requests_total{route="/retrieve",status="200"} 1' in text
    assert "agentic_r_queries_total 1" in text
    client.app.service.draining = True
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200
    assert client.post("/retrieve", {"queries": ["x"]}).headers["connection"] == "close"


PATHS = [(op.method, op.path.replace("{id}", "p1")) for op in OPERATIONS]
GUARDED = [*PATHS, *(("GET", path) for path in [*PAGES, "/docs", "/openapi.json", "/x", "/mcp"])]
WRONG = (None, "Bearer", "Bearer wrong", "Bearer s3cre", "s3cret", "Basic xyz", "Bearer é")


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_the_token_guards_everything_but_healthz(
    make: Make, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    client = make(token="s3cret")
    caplog.set_level(0)
    for given in WRONG:
        headers = {} if given is None else {"authorization": given.encode("latin-1")}
        status = client.request(method, path, headers=headers).status_code
        assert status == (200 if path == "/healthz" else 401), given
    right = {"authorization": "Bearer s3cret"}
    assert client.request(method, path, headers=right).status_code != 401
    basic = {"authorization": "Basic " + base64.b64encode(b"me:s3cret").decode()}
    status = client.request(method, path, headers=basic).status_code
    assert (status == 401) == (path == "/admin/reload")
    assert "s3cre" not in caplog.text


def test_reloading_needs_a_token_to_be_set(client: Client, make: Make) -> None:
    assert client.request("POST", "/admin/reload").status_code == 403
    right = {"authorization": "Bearer t"}
    reply = make(token="t").request("POST", "/admin/reload", headers=right).json()
    assert reply["before"] == reply["after"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil:1", "[::2]:1"])
def test_names_of_other_machines_are_refused(client: Client, host: str) -> None:
    assert client.get("/v1/info", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
def test_names_of_this_machine_are_not(client: Client, host: str) -> None:
    assert client.get("/v1/info", headers={"host": host}).status_code == 200


def test_a_client_that_has_gone_is_not_computed_for(make: Make) -> None:
    offered, words = served(pause=0.2)
    client = make({"batch": 1}, what=offered)
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/retrieve", "headers": headers}
    body = msgspec.json.encode({"queries": ["one", "two", "three", "four"]})
    messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0.05)
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async def gone_after_the_body() -> None:
        await client.app(scope, receive, send)
        await asyncio.sleep(0.5)

    client.run(gone_after_the_body())
    assert sent == []
    assert words.calls == [["one"]]
    assert client.app.service.metrics.events["disconnected"] == 1
    assert len(client.app.service.batcher) == 0


def test_a_full_queue_turns_away_and_says_for_how_long(make: Make) -> None:
    client = make({"queue": 4, "batch": 1}, what=served(pause=0.05)[0])

    async def crowd() -> list[httpx.Response]:
        bodies = [{"queries": [f"q{at}"]} for at in range(20)]
        return await asyncio.gather(*(client.send("POST", "/retrieve", json=b) for b in bodies))

    replies = client.run(crowd())
    counts = [reply.status_code for reply in replies]
    assert sorted(set(counts)) == [200, 503]
    assert counts.count(200) == 4
    assert all(int(r.headers["retry-after"]) >= 1 for r in replies if r.status_code == 503)
    assert client.app.service.metrics.events["rejected"] == 16


def test_four_hundred_clients_on_a_queue_of_64(make: Make) -> None:
    client = make({"queue": 64, "batch": 8, "cache_mib": 0}, what=served(pause=0.01)[0])

    async def crowd() -> list[httpx.Response]:
        bodies = [{"queries": [f"q{at}"]} for at in range(400)]
        return await asyncio.gather(*(client.send("POST", "/retrieve", json=b) for b in bodies))

    replies = client.run(crowd())
    assert {reply.status_code for reply in replies} == {200, 503}
    done = sum(reply.status_code == 200 for reply in replies)
    events = client.app.service.metrics.events
    assert (done >= 64, events["rejected"]) == (True, 400 - done)
    assert len(client.app.service.batcher) == 0
    assert client.post("/retrieve", {"queries": ["after"]}).status_code == 200


def test_fifty_changes_of_the_index_under_32_clients() -> None:
    """No request fails, and every reply is of the one version that it names."""
    versions = [served(f"v{at % 2}", add=100.0 * (at % 2))[0] for at in range(51)]
    tops = {each.version: 100.0 * (at % 2) for at, each in enumerate(versions[:2])}
    opened = iter(versions)
    client = Client(lambda: App(Service(lambda: next(opened), ServeConfig()), "0"))
    replies: list[httpx.Response] = []

    async def ask(number: int, done: asyncio.Event) -> None:
        at = 0
        while not done.is_set():
            at += 1
            queries = [f"ulm {number} {at}", "nothing"]
            body = {"queries": queries, "topk": 1, "return_scores": True}
            replies.append(await client.send("POST", "/retrieve", json=body))

    async def whole() -> None:
        done = asyncio.Event()
        clients = [asyncio.ensure_future(ask(number, done)) for number in range(32)]
        for _ in range(50):
            await client.app.service.reload()
            await asyncio.sleep(0.005)
        done.set()
        await asyncio.gather(*clients)

    try:
        client.run(whole())
    finally:
        client.close()
    seen = set()
    for reply in replies:
        assert reply.status_code == 200, reply.text
        top = tops[reply.headers["x-index-version"]]
        [[first], [second]] = reply.json()["result"]
        assert (first["score"], second["score"]) == (top + 1, top)
        seen.add(top)
    assert seen == {0.0, 100.0}


def test_answers_are_remembered(make: Make) -> None:
    offered, words = served()
    client = make(what=offered)
    body = {"queries": ["ulm", "hives", "ulm"], "topk": 2, "return_scores": True}
    first = client.post("/retrieve", body).content
    assert words.calls == [["ulm", "hives"]]
    assert client.post("/retrieve", body).content == first
    assert client.post("/retrieve", {**body, "topk": 1}).content != first
    assert words.calls == [["ulm", "hives"]] * 2


def test_a_fault_is_a_500_and_not_a_hanging_client(make: Make) -> None:
    offered, words = served()
    client = make(what=offered)

    def broken(queries: Any, k: int) -> Any:
        raise RuntimeError("secret detail")

    words.search = broken  # type: ignore[method-assign]
    reply = client.post("/retrieve", {"queries": ["x"]})
    assert reply.status_code == 500
    assert "secret" not in reply.text


def test_the_page_says_what_a_browser_may_do(client: Client) -> None:
    for path in PAGES:
        reply = client.get(path)
        assert reply.status_code == 200
        assert "script-src 'self'" in reply.headers["content-security-policy"]
    docs = client.get("/docs").text
    assert all(op.path in docs for op in OPERATIONS)
