"""A real server is killed and restarted under a run: nothing is lost and nothing paid twice."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from pathlib import Path

from agentic_r.agent.agent import SearchAgent
from agentic_r.agent.dialects import SearchR1
from agentic_r.agent.remote import RemoteLLM
from agentic_r.protocols import Sampling
from agentic_r.testing import TableRetriever
from agentic_r.testing.server import serving, started
from agentic_r.types import Passage, Question, Trajectory

from ..checkpoint import checkpoint, needs_tiny

QUESTIONS = [Question(str(n), f"Who directed film number {n}?", ("x",)) for n in range(24)]
RETRIEVER = TableRetriever({}, default=[Passage("a", "The film was directed by Ada.", "film")])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answered(log: Path) -> Counter[str]:
    """What the server wrote down of completions for the agent, probes left out."""
    lines = log.read_text().splitlines() if log.exists() else []
    prompts = [(line, json.loads(line)["prompt"]) for line in lines]
    return Counter(
        line
        for line, prompt in prompts
        if isinstance(prompt, str) and "one two three" not in prompt
    )


def run(llm: RemoteLLM, keep: list[Trajectory]) -> list[Trajectory]:
    folder = checkpoint()
    assert folder is not None
    template = (folder / "prompt.txt").read_text()
    agent = SearchAgent(llm, RETRIEVER, SearchR1(template), k=1, turns=4, max_tokens=96, chunk=6)
    return agent.run(QUESTIONS, on_rows=keep.extend)


@needs_tiny
def test_a_server_killed_in_the_middle_of_a_run(tmp_path: Path) -> None:
    folder, port, log = checkpoint(), free_port(), tmp_path / "served.jsonl"
    assert folder is not None
    flags = ("--port", str(port), "--log", str(log), "--slow", "0.02")
    rows: list[Trajectory] = []
    ends: list[Trajectory] = []
    llm = RemoteLLM(
        f"http://127.0.0.1:{port}", concurrency=4, retries=60, pause=0.2, log=tmp_path / "log"
    )
    with started(folder, *flags) as (_, process):
        worker = threading.Thread(target=lambda: ends.extend(run(llm, rows)))
        worker.start()
        until = time.monotonic() + 120
        while len(rows) < 5 and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert 5 <= len(rows) < len(QUESTIONS)
    with serving(folder, *flags):
        worker.join(120)
        assert not worker.is_alive()
        assert [end.question for end in ends] == QUESTIONS
        assert Counter(row.id for row in rows) == Counter(end.id for end in ends)
        assert {end.stop for end in ends} <= {"answered", "budget", "invalid", "length"}
        served = answered(log)
        assert sum(served.values()) >= len(QUESTIONS)
        assert max(served.values()) == 1
        # Another process finds every answer in the log, and the server hears of none.
        again = RemoteLLM(f"http://127.0.0.1:{port}", llm.model, log=tmp_path / "log")
        assert run(again, []) == ends
        assert answered(log) == served
        assert again.usage.reused == again.usage.requests


def test_of_two_servers_a_dead_one_is_left_out_and_comes_back(model_folder: Path) -> None:
    port, logs = free_port(), (tmp := model_folder.parent) and [tmp / "a.log", tmp / "b.log"]
    for log in logs:
        log.unlink(missing_ok=True)
    prompts = [f"the bao of dio {n} was near" for n in range(90)]
    sampling = Sampling(max_tokens=4, stop=("</search>",))

    async def ask(llm: RemoteLLM, some: list[str]) -> int:
        try:
            jobs = (llm.complete(prompt, sampling) for prompt in some)
            return len(await asyncio.gather(*jobs))
        finally:
            await llm.aclose()

    other = ("--port", str(port), "--log", str(logs[1]))
    with serving(model_folder, "--log", str(logs[0])) as url:
        llm = RemoteLLM([url, f"http://127.0.0.1:{port}"], concurrency=4, pause=0.05)
        with serving(model_folder, *other):
            assert asyncio.run(ask(llm, prompts[:30])) == 30
        both = [sum(answered(log).values()) for log in logs]
        assert sum(both) == 30
        assert min(both) >= 5
        assert asyncio.run(ask(llm, prompts[30:60])) == 30
        assert sum(answered(logs[0]).values()) == both[0] + 30
        with serving(model_folder, *other):
            time.sleep(1.0)
            assert asyncio.run(ask(llm, prompts[60:])) == 30
            assert sum(answered(logs[1]).values()) > both[1]
