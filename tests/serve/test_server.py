"""The real process: started from the command line, reloaded under load, stopped in good order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentic_r.io import digest_file
from agentic_r.retriever.index import indexes, verify
from tests.serve.process import command, environment, find, process, stopped, write_config

pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def url(config: Path) -> Iterator[str]:
    with process(config, TOKEN="t0ken") as (_, url):
        yield url


def test_it_answers(url: str) -> None:
    reply = find(url, "where was ada born", topk=2, return_scores=True)
    assert [len(hits) for hits in reply.json()["result"]] == [2]
    info = httpx.get(f"{url}/v1/info").json()
    assert info["passages"] == 42
    [offer] = info["retrievers"]
    assert offer["name"] == "untouched"
    assert httpx.get(f"{url}/readyz").json() == {"status": "ok", "engine": offer["engine"]}
    assert offer["engine"].startswith(("fp32", "bf16"))
    vector = httpx.post(f"{url}/v1/embeddings", json={"input": "ada"}).json()["data"][0]
    assert len(vector["embedding"]) == info["retrievers"][0]["dimension"]


@pytest.mark.parametrize("count", [512, 2560])
def test_a_whole_turn_at_once_over_the_wire(url: str, count: int) -> None:
    reply = find(url, *(f"born in {at % 500}" for at in range(count)), topk=3)
    assert len(reply.json()["result"]) == count


def slow(url: str, about: str) -> float:
    """Ask forty queries one after the other; returns the seconds of the slowest but two."""
    seconds = []
    for at in range(40):
        began = time.monotonic()
        assert find(url, f"{about} {at}").status_code == 200
        seconds.append(time.monotonic() - began)
    return sorted(seconds)[-3]


def test_half_open_connections_stop_nobody(url: str) -> None:
    address = httpx.URL(url)
    alone = slow(url, "alone")
    held = [socket.create_connection((address.host, address.port or 0)) for _ in range(200)]
    try:
        for number, each in enumerate(held):
            body = b"POST /retrieve HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
            each.sendall(body if number % 2 else body + b"Content-Type: application/json\r\n\r\n{")
        assert slow(url, "half open") < 2 * alone + 0.05
    finally:
        for each in held:
            each.close()


def test_what_is_no_http_is_refused(url: str) -> None:
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 0)) as raw:
        raw.sendall(b"\x16\x03\x01nonsense\r\n\r\n")
        assert b"400" in raw.recv(100)
    assert find(url, "still there").status_code == 200


def test_no_request_fails_while_the_index_changes(config: Path) -> None:
    with process(config, "--serve.token_env", "TOKEN", TOKEN="t0ken") as (running, url):
        headers = {"Authorization": "Bearer t0ken"}
        failed: list[Any] = []
        done = threading.Event()

        def client(number: int) -> None:
            with httpx.Client(headers=headers, timeout=60) as http:
                at = 0
                while not done.is_set():
                    at += 1
                    body = {"queries": [f"born in {number} {at}"]}
                    reply = http.post(f"{url}/retrieve", json=body)
                    if reply.status_code != 200 or "x-index-version" not in reply.headers:
                        failed.append(reply.text)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for each in threads:
            each.start()
        for _ in range(3):
            reply = httpx.post(f"{url}/admin/reload", headers=headers, timeout=60)
            assert reply.status_code == 200, reply.text
        running.send_signal(signal.SIGHUP)
        for _ in range(100):
            time.sleep(0.1)
            text = httpx.get(f"{url}/metrics", headers=headers).text
            if 'agentic_r_events_total{event="reloaded"} 4' in text:
                break
        else:
            raise AssertionError(text)
        done.set()
        for each in threads:
            each.join()
        assert failed == []
        corpus = config.with_name("corpus.jsonl")
        whole = corpus.read_bytes()
        corpus.write_bytes(b"damaged\n")
        try:
            reply = httpx.post(f"{url}/admin/reload", headers=headers, timeout=60)
            assert reply.status_code == 409
            assert "corpus.jsonl:1" in reply.json()["error"]["message"]
        finally:
            corpus.write_bytes(whole)
        still = httpx.post(f"{url}/retrieve", headers=headers, json={"queries": ["x"]})
        assert still.status_code == 200


def test_stopping_finishes_what_was_accepted(config: Path) -> None:
    with process(config) as (running, url):
        replies: list[httpx.Response] = []
        queries = [f"a longer query about the city of {at}" for at in range(1500)]
        work = threading.Thread(target=lambda: replies.append(find(url, *queries)))
        work.start()
        time.sleep(0.1)
        running.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert httpx.get(f"{url}/readyz").status_code == 503
        work.join()
        _, said = running.communicate(timeout=30)
        assert (replies[0].status_code, running.returncode) == (200, 0)
        assert len(replies[0].json()["result"]) == 1500
        assert "Traceback" not in said
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")


def cpu(pid: int) -> float:
    """Return the CPU-seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def digests(folder: Path) -> dict[str, str]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): digest_file(path) for path in found}


def answers(url: str) -> list[tuple[str, bytes]]:
    """What the server finds, with the version that it names."""
    replies = [find(url, f"born in {at}", topk=5, return_scores=True) for at in range(5)]
    return [(reply.headers["x-index-version"], reply.content) for reply in replies]


def test_killed_while_it_makes_its_index_or_answers_it_starts_again_unharmed(
    tmp_path: Path,
) -> None:
    config = write_config(tmp_path)
    first = subprocess.Popen(
        command(config, "--port", "0"), stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert first.stdout is not None
    assert first.stdout.readline().startswith("listening on ")
    time.sleep(0.3)  # it is loading, or makes its index
    first.kill()
    first.communicate()

    with process(config) as (running, url):
        expected = answers(url)
        whole = digests(tmp_path / "runs")
        broken: list[str] = []

        def client(number: int) -> None:
            for at in range(10_000):
                try:
                    reply = find(url, *(f"{number} {at} {n}" for n in range(50)), topk=3)
                except httpx.TransportError:
                    return  # what a client sees of a kill
                if reply.status_code != 200 or len(reply.json()["result"]) != 50:
                    broken.append(reply.text)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for each in threads:
            each.start()
        time.sleep(0.5)
        running.kill()
        for each in threads:
            each.join()
        assert broken == []

    assert digests(tmp_path / "runs") == whole
    with process(config) as (running, url):
        assert cpu(running.pid) < 15
        assert answers(url) == expected
        assert stopped(running) == 0
    assert digests(tmp_path / "runs") == whole
    for folder in indexes(tmp_path / "runs"):
        verify(folder)


def test_it_ends_at_once_when_nothing_is_under_way(config: Path) -> None:
    with process(config) as (running, _):
        assert stopped(running) == 0


def refused(config: Path, *flags: str) -> tuple[int, str]:
    done = subprocess.run(
        command(config, *flags), capture_output=True, text=True, env=environment(), timeout=60
    )
    return done.returncode, done.stderr


def test_bad_starts_are_one_line(config: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = refused(config, "--port", str(taken.getsockname()[1]))
    assert (code, said.count("\n")) == (1, 1)
    assert "cannot listen there" in said
    code, said = refused(config, "--serve.token_env", "NO_SUCH_VARIABLE")
    assert (code, said.count("\n")) == (2, 1)
    code, said = refused(config, "--port", "70000")
    assert (code, said.count("\n")) == (2, 1)
    code, said = refused(config, "--port", "0", "--data.corpus", "nowhere.jsonl")
    assert (code, said.count("\n")) == (1, 1), said
    assert "nowhere.jsonl" in said
