from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agentic_r.errors import ConfigError, DataError, OutageError
from agentic_r.retriever import remote
from agentic_r.retriever.remote import RemoteRetriever, WebRetriever

Answer = Callable[[dict[str, Any], dict[str, str]], tuple[int, Any]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], str]]:
    """Start a server that answers as told; no test waits between two tries."""
    monkeypatch.setattr(remote.time, "sleep", lambda _: None)
    servers = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code, reply = answer(body, {"path": self.path} | dict(self.headers))
                raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_it_speaks_retrieve_in_bounded_requests(serve: Callable[[Answer], str]) -> None:
    asked: list[dict[str, Any]] = []

    def answer(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        asked.append(body)
        assert headers["path"] == "/retrieve"
        document = {"id": 7, "contents": '"Ulm"\nA city.', "url": "x"}
        return 200, {"result": [[{"document": document, "score": 0.5}]] * len(body["queries"])}

    found = RemoteRetriever(serve(answer)).search([f"q{n}" for n in range(1100)], 3)
    assert len(found) == 1100 and [len(a["queries"]) for a in asked] == [512, 512, 76]
    assert asked[0]["topk"] == 3 and asked[0]["return_scores"] is True
    hit = found[5][0]
    assert (hit.passage.id, hit.passage.title, hit.passage.text) == ("7", "Ulm", "A city.")
    assert hit.score == 0.5


def test_documents_of_every_server_of_the_contract_are_read(
    serve: Callable[[Answer], str],
) -> None:
    documents = [
        {"document": {"contents": '"Ulm"\nA city.'}},
        {"document": '"Bonn"\nAnother.', "score": 0.4},
        {"document": {"_id": "b", "title": "T", "text": "x"}},
    ]
    url = serve(lambda body, _: (200, {"result": [documents]}))
    (hits,) = RemoteRetriever(f"{url}/retrieve/").search(["q"], 3)
    assert [hit.passage.title for hit in hits] == ["Ulm", "Bonn", "T"]
    assert [hit.score for hit in hits] == [1.0, 0.4, 1 / 3]
    assert len({hit.passage.id for hit in hits}) == 3


def test_what_passes_is_tried_again_and_what_stays_is_an_outage(
    serve: Callable[[Answer], str],
) -> None:
    codes = [503, 429, 200]
    url = serve(lambda *_: (codes.pop(0), {"result": [[]]}))
    assert RemoteRetriever(url).search(["q"], 1) == [[]]
    assert codes == []
    tries: list[int] = []
    url = serve(lambda *_: (tries.append(1), (503, b"full"))[1])  # type: ignore[func-returns-value]
    with pytest.raises(OutageError, match=r"HTTP 503: full, tried 5 times"):
        RemoteRetriever(url).search(["q"], 1)
    assert len(tries) == 5
    with pytest.raises(OutageError, match="tried 5 times"):
        RemoteRetriever("http://127.0.0.1:1").search(["q"], 1)


@pytest.mark.parametrize(
    ("code", "reply", "expected"),
    [
        (404, b"nothing", "HTTP 404: nothing"),
        (200, b"<html>", "cannot be read"),
        (200, {"result": []}, "got 0 results for 1 queries"),
        (200, {"result": [[{"document": 5}]]}, "document that cannot be read"),
        (200, {"result": [[{"document": {"id": "a"}}]]}, "document 1: got a line with"),
    ],
)
def test_a_bad_reply_is_said(
    serve: Callable[[Answer], str], code: int, reply: Any, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        RemoteRetriever(serve(lambda *_: (code, reply))).search(["q"], 1)


def test_the_web_is_searched_with_the_key_of_a_variable(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        assert headers["X-Api-Key" if "X-Api-Key" in headers else "X-API-KEY"] == "secret"
        assert body["num"] == 2
        pages = [{"title": f"{body['q']} {n}", "link": f"l{n}", "snippet": "s"} for n in range(4)]
        return 200, {"organic": pages, "answerBox": {}}

    url = serve(answer)
    with pytest.raises(ConfigError, match="AGENTIC_R_KEY is not set"):
        WebRetriever(url, api_key_env="AGENTIC_R_KEY")
    with pytest.raises(ConfigError, match="api_key_env: got none"):
        WebRetriever(url, api_key_env="")
    monkeypatch.setenv("AGENTIC_R_KEY", "secret")
    found = WebRetriever(url, api_key_env="AGENTIC_R_KEY").search(["a", "b"], 2)
    assert [[h.passage.title for h in hits] for hits in found] == [["a 0", "a 1"], ["b 0", "b 1"]]
    assert [h.score for h in found[0]] == [1.0, 0.5]
    assert found[0][1].passage.id == "l1"


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"remote\.url"):
        RemoteRetriever("localhost:80").search(["q"], 1)
    with pytest.raises(ConfigError, match="k = 0"):
        RemoteRetriever("http://x").search(["q"], 0)
