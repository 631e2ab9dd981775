"""How much `/retrieve` answers: our server against a plain endpoint, queries per CPU-second.

    python benchmarks/serving.py [--seconds 4] [--rounds 2] [--passages 20000]

The baseline is what Search-R1's server does, written minimally: a FastAPI endpoint (Starlette
where FastAPI is not installed) that encodes and searches each request by itself in a thread
pool. Both use the same encoder (all-MiniLM-L6-v2), the same vectors (random, of unit length) and
the same 64 clients on this machine; ours encodes with the engine that it finds fastest here, which
is printed, and searches a batch as `agentic-r serve` does. The rounds alternate and the server that
is not measured is stopped (SIGSTOP). The cached server has been asked for the 2,000 most frequent
of 5,000 queries before. CPU-seconds are those of the server's process alone. Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

CLIENTS = 64
TICKS = os.sysconf("SC_CLK_TCK")
WORDS = ["where", "when", "who", "which", "city", "river", "film", "novel", "born", "capital"]


def query(number: int) -> str:
    """Return the query of a number: 8 to 24 words, one of them its own."""
    draw = np.random.default_rng(number)
    return f"q{number} " + " ".join(draw.choice(WORDS, draw.integers(7, 24)))


def open_parts(passages: int) -> tuple[Any, Any, Any]:
    """Return the encoder, a FAISS index of random unit vectors, and the corpus."""
    import faiss

    from agentic_r import Corpus, Encoder, Passage

    encoder = Encoder.load("all-MiniLM-L6-v2")
    vectors = np.random.default_rng(0).standard_normal((passages, encoder.dimension), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(encoder.dimension)
    index.add(vectors)
    text = "A passage of about a hundred words, as they are. " * 10
    return encoder, index, Corpus([Passage(f"p{n}", text, f"Title {n}") for n in range(passages)])


class Searcher:
    """Encode and search, nothing remembered: what both servers do with a list of queries.

    With `quick`, as `agentic-r serve` does it.
    """

    def __init__(self, passages: int, *, quick: bool = False) -> None:
        self.encoder, self.index, self.corpus = open_parts(passages)
        if quick:
            from agentic_r.retriever.product import Product
            from agentic_r.retriever.quick import QuickEncoder

            self.encoder, self.index = QuickEncoder(self.encoder), Product(self.index)

    def search(self, queries: list[str], k: int) -> list[list[Any]]:
        """Return the `k` best hits of each query."""
        from agentic_r import Hit

        vectors = self.encoder.encode(list(queries), "query")
        scores, rows = self.index.search(vectors, k)
        return [
            [Hit(self.corpus[int(row)], float(score)) for row, score in zip(*pair, strict=True)]
            for pair in zip(rows, scores, strict=True)
        ]


def serve_ours(port: int, passages: int, cache: int) -> None:
    """Serve with our server."""
    from agentic_r.serve.offer import Offer, Served
    from agentic_r.serve.server import serve
    from agentic_r.settings import ServeConfig

    def opener() -> Served:
        searcher = Searcher(passages, quick=True)
        engine = searcher.encoder.engine.name
        offer = Offer("latest", "v", "MiniLM", "query", searcher, searcher.encoder, engine)
        return Served(searcher.corpus, (offer,))

    serve(opener, ServeConfig(port=port, cache_mib=cache, queue=128), "0", print)


def serve_plain(port: int, passages: int) -> None:
    """Serve as upstream does: each request by itself, fp32, in the thread pool."""
    import uvicorn

    searcher = Searcher(passages)

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        found = searcher.search(body["queries"], body.get("topk") or 3)
        return {
            "result": [
                [
                    {
                        "document": {"id": h.passage.id, "contents": h.passage.contents},
                        "score": h.score,
                    }
                    for h in hits
                ]
                for hits in found
            ]
        }

    try:
        from fastapi import FastAPI

        app: Any = FastAPI()
        answer.__annotations__ = {"body": dict, "return": dict}
        app.post("/retrieve")(answer)
    except ModuleNotFoundError:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse
        from starlette.routing import Route

        async def route(request: Any) -> Any:
            return JSONResponse(await run_in_threadpool(answer, await request.json()))

        app = Starlette(routes=[Route("/retrieve", route, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


async def ask(
    port: int, bodies: Iterator[bytes], until: float, times: list[float]
) -> dict[int, int]:
    """One client: a request after the other until the time is up; counts the statuses."""
    statuses: dict[int, int] = {}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < until:
        body = next(bodies)
        head = (
            "POST /retrieve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        began = time.monotonic()
        writer.write(head.encode() + body)
        reply = await reader.readuntil(b"\r\n\r\n")
        length = int(reply.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        status = int(reply.split()[1])
        statuses[status] = statuses.get(status, 0) + 1
        if status == 200:
            times.append(time.monotonic() - began)
        else:
            await asyncio.sleep(0.05)
    writer.close()
    return statuses


def load(
    port: int, clients: int, numbers: Iterator[int], seconds: float
) -> tuple[dict[int, int], list[float]]:
    """Let clients ask for a while; returns counts by status and the seconds of each success."""
    bodies = (
        msgspec.json.encode({"queries": [query(n)], "topk": 3, "return_scores": True})
        for n in numbers
    )
    times: list[float] = []

    async def all_of_them() -> list[dict[int, int]]:
        until = time.monotonic() + seconds
        return await asyncio.gather(*(ask(port, bodies, until, times) for _ in range(clients)))

    total: dict[int, int] = {}
    for each in asyncio.run(all_of_them()):
        for status, count in each.items():
            total[status] = total.get(status, 0) + count
    return total, times


def cpu(pid: int) -> float:
    """Return the CPU-seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def fresh(start: int) -> Iterator[int]:
    """Count up: no query comes twice."""
    while True:
        yield start
        start += 1


def zipf(seed: int) -> Iterator[int]:
    """Draw from 5,000 queries by Zipf's law."""
    draw = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 5001)
    while True:
        yield from (10_000_000 + draw.choice(5000, 4096, p=weights / weights.sum())).tolist()


def start(kind: str, port: int, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Start one server and wait until it answers."""
    command = [sys.executable, __file__, "--serve", kind, "--port", str(port)]
    command += ["--passages", str(options.passages)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(600):
        try:
            counts, _ = load(port, 1, fresh(90_000_000 + port), 0.05)
            if 200 in counts:
                return running
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{kind} did not start")


def warm(port: int) -> None:
    """Ask once for the 2,000 most frequent of the Zipf queries, as a server that runs has been."""
    for first in range(0, 2000, 100):
        queries = [query(10_000_000 + n) for n in range(first, first + 100)]
        body = msgspec.json.encode({"queries": queries, "topk": 3, "return_scores": True})
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/retrieve", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request).read()


def engine_of(server: subprocess.Popen[bytes], port: int) -> str:
    """Ask a stopped server of ours what encodes its queries."""
    server.send_signal(signal.SIGCONT)
    reply = urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").read()
    server.send_signal(signal.SIGSTOP)
    return str(msgspec.json.decode(reply)["engine"])


def p99(times: list[float]) -> float:
    """Return the 99th percentile in milliseconds."""
    return 1000 * float(np.percentile(times, 99)) if times else float("nan")


def measure(options: argparse.Namespace) -> None:
    """Start the servers, alternate between them, print the table."""
    base = 18200 + os.getpid() % 1000
    kinds = ("plain", "ours", "cached")
    ports = {kind: base + at for at, kind in enumerate(kinds)}
    servers = {}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    try:
        for kind in kinds:
            servers[kind] = start(kind, ports[kind], options)
            if kind == "cached":
                warm(ports[kind])
            servers[kind].send_signal(signal.SIGSTOP)
        print(f"queries in {engine_of(servers['ours'], ports['ours'])}", flush=True)
        number = 0
        for round_ in range(options.rounds):
            for kind in kinds:
                pid = servers[kind].pid
                servers[kind].send_signal(signal.SIGCONT)
                numbers = zipf(round_) if kind == "cached" else fresh(number)
                number += 1_000_000
                before = cpu(pid)
                counts, times = load(ports[kind], CLIENTS, numbers, options.seconds)
                spent = cpu(pid) - before
                servers[kind].send_signal(signal.SIGSTOP)
                rates[kind].append(counts.get(200, 0) / spent)
                wall = counts.get(200, 0) / options.seconds
                print(
                    f"round {round_ + 1} {kind:<7} {rates[kind][-1]:7.1f} q/CPU-s  "
                    f"{wall:7.1f} q/s  p99 {p99(times):6.0f} ms  {counts}",
                    flush=True,
                )
        servers["ours"].send_signal(signal.SIGCONT)
        counts, times = load(ports["ours"], 256, fresh(80_000_000), options.seconds * 2)
        print(f"256 clients on a queue of 128: {counts}, p99 of the answered {p99(times):.0f} ms")
    finally:
        for each in servers.values():
            each.kill()
            each.wait()
    mid = {kind: float(np.median(found)) for kind, found in rates.items()}
    for kind, about in (("ours", "no cache"), ("cached", "Zipf stream, cache")):
        print(
            f"{about}: {mid[kind]:.0f} against {mid['plain']:.0f}: {mid[kind] / mid['plain']:.1f} x"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument("--serve", choices=("plain", "ours", "cached"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve == "plain":
        serve_plain(options.port, options.passages)
    elif options.serve:
        cache = 64 if options.serve == "cached" else 0
        serve_ours(options.port, options.passages, cache)
    else:
        measure(options)


if __name__ == "__main__":
    main()
