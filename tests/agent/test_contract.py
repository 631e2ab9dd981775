"""One contract for every back end: in this process, our server with its faults, and real servers.

The real ones run where they are installed (docs/backends.md): `vllm serve` (AGENTIC_R_VLLM names
the program), `transformers serve` (AGENTIC_R_TRANSFORMERS names it), vLLM in this process
("engine") where it can be imported; AGENTIC_R_SERVER is the address of one that runs already.
What a back end says that it cannot do is not asked of it.
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
from typing import Any

import httpx
import pytest

from agentic_r.agent.local import LocalLLM
from agentic_r.agent.needs import capabilities
from agentic_r.agent.remote import RemoteLLM
from agentic_r.errors import ContextError, LLMError
from agentic_r.protocols import (
    LLM,
    Capabilities,
    Completion,
    Conversation,
    Message,
    Prompt,
    Sampling,
    Tool,
    ToolCall,
)
from agentic_r.testing.server import serving

from .conftest import engine, make_model

START = 600.0
TEXT = "the bao of dio was near the"
CHAT = Conversation((Message("system", "Be short."), Message("user", TEXT)))
TOOL = Tool("search", "Search.", {"type": "object", "properties": {"query": {"type": "string"}}})
OURS = {"keeps": ("--chat",), "trims": ("--chat", "--trim-stop"), "plain": ("--plain",)}
OURS["ignores"] = ("--chat", "--ignore-stop")
REAL = ("vllm", "transformers", "address")


def program(kind: str) -> str | None:
    if kind == "address":
        return os.environ.get("AGENTIC_R_SERVER")
    return os.environ.get(f"AGENTIC_R_{kind.upper()}") or (
        shutil.which("vllm") if kind == "vllm" else None
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose heads are as wide as real servers want them."""
    return make_model(tmp_path_factory.mktemp("contract"), width=256)


@pytest.fixture(
    scope="module",
    params=[
        "local",
        *OURS,
        *(pytest.param(kind, marks=pytest.mark.server) for kind in (*REAL, "engine")),
    ],
)
def llm(request: pytest.FixtureRequest, folder: Path) -> Iterator[LLM]:
    kind = request.param
    if kind == "local":
        yield LocalLLM(folder, device="cpu")
    elif kind in OURS:
        with serving(folder, *OURS[kind]) as url:
            yield RemoteLLM(url)
    elif kind == "engine":
        pytest.importorskip("vllm")
        model = engine(folder)
        yield model
        model.close()
    else:
        found = program(kind)
        if found is None:
            pytest.skip(f"AGENTIC_R_{'SERVER' if kind == 'address' else kind.upper()} is not set")
        if kind == "address":
            yield RemoteLLM(found, os.environ.get("AGENTIC_R_SERVER_MODEL", ""))
        else:
            with real_server(kind, found, folder) as url:
                yield RemoteLLM(url, str(folder) if kind == "transformers" else "", timeout=60)


class real_server:
    """Starts a real server as a process of its own and waits until it answers."""

    def __init__(self, kind: str, program: str, folder: Path, *more: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = [program, "serve", str(folder), "--host", "127.0.0.1", "--port", port]
        if kind == "vllm":
            command += ["--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager"]
            command += ["--max-model-len", "512"]
        self.command = [*command, *more]
        self.root = f"http://127.0.0.1:{port}"
        self.log = folder.parent / f"{kind}.log"

    def __enter__(self) -> str:
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        environment.pop("PYTHONPATH", None)
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                self.command, stdout=out, stderr=subprocess.STDOUT, env=environment
            )
        began = time.monotonic()
        with httpx.Client(trust_env=False, timeout=5) as client:
            while time.monotonic() - began < START and self.process.poll() is None:
                try:
                    if client.get(f"{self.root}/health").status_code == 200:
                        return f"{self.root}/v1"
                except httpx.TransportError:
                    time.sleep(1)
        self.__exit__()
        pytest.fail(f"the server did not come up: {self.log.read_text()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def ask(llm: LLM, prompts: list[Prompt], sampling: Sampling) -> list[Any]:
    """Complete all at once; exceptions are returned."""

    async def whole() -> list[Any]:
        try:
            jobs = (llm.complete(prompt, sampling) for prompt in prompts)
            return list(await asyncio.gather(*jobs, return_exceptions=True))
        finally:
            close = getattr(llm, "aclose", None)
            if close is not None:
                await close()

    return asyncio.run(whole())


def one(llm: LLM, prompt: Prompt, sampling: Sampling) -> Completion:
    [done] = ask(llm, [prompt], sampling)
    if isinstance(done, Exception):
        raise done
    assert isinstance(done, Completion)
    return done


@pytest.fixture(scope="module")
def can(llm: LLM) -> Capabilities:
    if isinstance(llm, RemoteLLM):

        async def probed() -> Capabilities:
            try:
                return await llm.probe()
            finally:
                await llm.aclose()

        return asyncio.run(probed())
    return capabilities(llm)


def needs(can: Capabilities, *names: str) -> None:
    lacking = [name for name in names if not getattr(can, name)]
    if lacking:
        pytest.skip(f"says that it cannot: {', '.join(lacking)}")


def test_it_takes_something(can: Capabilities) -> None:
    assert can.text or can.chat


def test_greedy_text_is_the_same_again_and_bounded(llm: LLM, can: Capabilities) -> None:
    needs(can, "text")
    first = one(llm, TEXT, Sampling(max_tokens=6))
    assert first.text
    assert first.finish in ("length", "eos")
    assert one(llm, TEXT, Sampling(max_tokens=6)).text == first.text
    longer = one(llm, TEXT, Sampling(max_tokens=12))
    assert longer.text.startswith(first.text.rstrip("\ufffd"))


def test_greedy_text_is_that_of_the_model_in_this_process(
    llm: LLM, can: Capabilities, folder: Path
) -> None:
    needs(can, "text")
    if os.environ.get("AGENTIC_R_SERVER"):
        pytest.skip("another model may be served there")
    sampling = Sampling(max_tokens=8)
    here = one(LocalLLM(folder, device="cpu"), TEXT, sampling).text
    # A server keeps back the first bytes of a character that the last token did not finish.
    assert one(llm, TEXT, sampling).text.rstrip("\ufffd") == here.rstrip("\ufffd")


def test_a_stop_string_is_kept_named_and_the_end(llm: LLM, can: Capabilities) -> None:
    needs(can, "text")
    free = one(llm, TEXT, Sampling(max_tokens=24)).text
    at = next(n for n in range(4, len(free)) if free.find(free[n : n + 2]) == n)
    stop = free[at : at + 2]
    done = one(llm, TEXT, Sampling(max_tokens=24, stop=("never>", stop)))
    trimmed = isinstance(llm, RemoteLLM) and llm.manners and llm.manners.habit == "trims"
    if trimmed and not done.stop:  # no tag is open, so nothing says what was trimmed
        assert (done.text, done.finish) == (free[:at], "eos")
    else:
        assert (done.text, done.finish, done.stop) == (free[: at + 2], "stop", stop)


def test_many_at_once_are_the_same_as_one_by_one(llm: LLM, can: Capabilities) -> None:
    needs(can, "text")
    prompts: list[Prompt] = [f"{TEXT} {word}" for word in ["bao", "cey", "dio", "fau", "goa"]]
    together = ask(llm, prompts, Sampling(max_tokens=5))
    alone = [one(llm, prompt, Sampling(max_tokens=5)) for prompt in prompts]
    assert [done.text for done in together] == [done.text for done in alone]


def test_token_ids_in_are_the_text_in(llm: LLM, can: Capabilities, folder: Path) -> None:
    needs(can, "ids", "text")
    ids = tuple(LocalLLM(folder, device="cpu").tokenizer(TEXT)["input_ids"])
    assert one(llm, ids, Sampling(max_tokens=6)).text == one(llm, TEXT, Sampling(max_tokens=6)).text


def test_token_ids_and_logprobs_out(llm: LLM, can: Capabilities) -> None:
    needs(can, "text", "tokens", "logprobs")
    done = one(llm, TEXT, Sampling(max_tokens=6, tokens=True))
    assert done.tokens is not None and done.logprobs is not None
    assert len(done.tokens) == len(done.logprobs) == 6
    assert all(value <= 0 for value in done.logprobs)


def test_ids_as_sampled_continue_exactly(llm: LLM, can: Capabilities, folder: Path) -> None:
    needs(can, "text", "tokens", "ids")
    ids = tuple(LocalLLM(folder, device="cpu").tokenizer(TEXT)["input_ids"])
    first = one(llm, ids, Sampling(max_tokens=4, tokens=True))
    rest = one(llm, (*ids, *(first.tokens or ())), Sampling(max_tokens=4, tokens=True))
    whole = one(llm, ids, Sampling(max_tokens=8, tokens=True))
    assert (*(first.tokens or ()), *(rest.tokens or ())) == whole.tokens


def test_a_seed_draws_the_same_again(llm: LLM, can: Capabilities) -> None:
    needs(can, "text", "seed")
    drawn = [
        one(llm, TEXT, Sampling(max_tokens=12, temperature=1.5, seed=seed)).text
        for seed in (3, 3, 4)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_tokens_are_counted(llm: LLM, can: Capabilities) -> None:
    needs(can, "text")
    done = one(llm, TEXT, Sampling(max_tokens=5))
    if done.new_tokens is None:
        pytest.skip("it does not count")
    assert done.new_tokens == 5 or done.finish == "eos"
    assert (done.prompt_tokens or 0) > 3


def test_a_prompt_too_long_is_named_as_such_and_fails_alone(llm: LLM, can: Capabilities) -> None:
    needs(can, "text")
    good, bad = ask(llm, [TEXT, "the " * 3000], Sampling(max_tokens=3))
    assert isinstance(good, Completion)
    if isinstance(bad, Completion):
        pytest.skip("it cuts or takes prompts of any length")
    assert isinstance(bad, LLMError)
    assert isinstance(bad, ContextError) or not isinstance(llm, LocalLLM)
    assert "\n" not in str(bad)


def test_new_tokens_that_do_not_fit_are_made_to(llm: LLM, can: Capabilities) -> None:
    needs(can, "text")
    done = one(llm, "the " * 100, Sampling(max_tokens=5000, stop=("e",)))
    assert done.finish in ("stop", "eos", "length")


def test_chat_answers(llm: LLM, can: Capabilities) -> None:
    needs(can, "chat")
    done = one(llm, CHAT, Sampling(max_tokens=5))
    assert isinstance(done.text, str)
    assert done.finish in ("length", "eos")


def test_text_that_is_begun_is_continued(llm: LLM, can: Capabilities) -> None:
    needs(can, "begun")
    whole = one(llm, CHAT, Sampling(max_tokens=9)).text
    begun = Conversation(CHAT.messages, begun=whole + " the bao")
    done = one(llm, begun, Sampling(max_tokens=5))
    assert done.text and not done.text.startswith(whole[:6] or " the")


def test_tools_can_be_offered_and_called(llm: LLM, can: Capabilities) -> None:
    needs(can, "tools")
    call = ToolCall("search", '{"query": "bao"}', "call_0")
    told = Conversation(
        (
            Message("user", TEXT),
            Message("assistant", "", (call,)),
            Message("tool", "the bao is near", call_id="call_0"),
        ),
        (TOOL,),
    )
    for prompt in (Conversation(CHAT.messages, (TOOL,)), told):
        done = one(llm, prompt, Sampling(max_tokens=4))
        assert (done.finish == "calls") == bool(done.calls)


def test_the_same_object_works_on_another_event_loop(llm: LLM, can: Capabilities) -> None:
    prompt: Prompt = TEXT if can.text else CHAT
    texts = {one(llm, prompt, Sampling(max_tokens=2)).text for _ in range(3)}
    assert len(texts) == 1
