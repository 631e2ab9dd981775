"""RemoteLLM against real server processes with real bad habits, and against odd replies."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentic_r.agent.connection import Connection
from agentic_r.agent.dialects import SearchR1
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.probe import Manners
from agentic_r.agent.remote import RemoteLLM
from agentic_r.agent.rollout import run_rollout
from agentic_r.agent.wire import INCLUDE, TEXT, made_good
from agentic_r.errors import ConfigError, LLMError, OutageError
from agentic_r.protocols import LLM, Capabilities, Completion, Sampling
from agentic_r.testing import TableRetriever
from agentic_r.testing.server import serving
from agentic_r.types import Passage, Question, Trajectory

PROMPTS = [f"the bao of dio {n} was near" for n in range(5)]
FLAGS = {
    "keeps": (),
    "trims": ("--trim-stop",),
    "ignores": ("--ignore-stop",),
}


@pytest.fixture(scope="module")
def local(model_folder: Path) -> LocalLLM:
    return LocalLLM(model_folder, device="cpu")


@pytest.fixture(scope="module", params=sorted(FLAGS))
def server(request: pytest.FixtureRequest, model_folder: Path) -> Iterator[tuple[str, str]]:
    with serving(model_folder, *FLAGS[request.param]) as url:
        yield request.param, url


async def ask(llm: RemoteLLM, prompts: list[str], sampling: Sampling) -> list[Completion]:
    try:
        jobs = (llm.complete(prompt, sampling) for prompt in prompts)
        return list(await asyncio.gather(*jobs))
    finally:
        await llm.aclose()


def test_every_habit_is_found_out_and_made_good(
    server: tuple[str, str], local: LocalLLM, model_folder: Path
) -> None:
    habit, url = server
    free = local.generate(PROMPTS, Sampling(max_tokens=20))
    stop = free[0].text[5:8]
    sampling = Sampling(max_tokens=20, stop=(stop,))
    llm = RemoteLLM(url, concurrency=3)
    remote = asyncio.run(ask(llm, PROMPTS, sampling))
    assert llm.model == model_folder.name
    assert llm.manners is not None
    assert llm.manners.habit == habit
    assert (INCLUDE in llm._refused.get(TEXT, ())) == (habit == "trims")
    for got, expected in zip(remote, local.generate(PROMPTS, sampling), strict=True):
        if habit != "trims":
            assert (got.text, got.finish) == (expected.text, expected.finish)
        else:  # no tag is open in this babble, so nothing can say what was trimmed
            assert got.text in (expected.text, expected.text.removesuffix(stop))
    # The same object works on another event loop.
    assert len(asyncio.run(ask(llm, PROMPTS[:1], sampling))) == 1


def test_a_rollout_over_the_server_is_the_local_one(
    server: tuple[str, str], model_folder: Path
) -> None:
    starts = [
        Trajectory(str(n), Question(str(n), f"the {n} of bao {n * n} near dio", ("x",)))
        for n in range(12)
    ]
    retriever = TableRetriever({}, default=[Passage("a", "bao near dio", "fau")])

    def carry(llm: LLM) -> list[Trajectory]:
        return run_rollout(
            llm,
            retriever,
            starts,
            SearchR1("{question}\n"),
            k=1,
            form="query",
            turns=3,
            sampling=Sampling(max_tokens=40),
        )

    # Where an answer is open and a search is closed, a server that trims cannot be understood.
    pairs = [
        (a, b)
        for a, b in zip(
            carry(LocalLLM(model_folder, device="cpu")), carry(RemoteLLM(server[1])), strict=True
        )
        if not any("<answer>" in turn.text for turn in a.turns)
    ]
    local, remote = [a for a, _ in pairs], [b for _, b in pairs]
    assert sum(len(end.searches) for end in local) > 3
    assert [[t.status for t in end.turns] for end in remote] == [
        [t.status for t in end.turns] for end in local
    ]
    assert [end.searches for end in remote] == [end.searches for end in local]
    assert [end.answer for end in remote] == [end.answer for end in local]


def test_failures_then_success(model_folder: Path) -> None:
    with serving(model_folder, "--fail-first", "3") as url:
        llm = RemoteLLM(url, pause=0.01)
        [done] = asyncio.run(ask(llm, PROMPTS[:1], Sampling(max_tokens=3)))
        assert done.text
        assert asyncio.run(_chat(llm)) == "60 0"
        weary = RemoteLLM(url, retries=0)
        with pytest.raises(LLMError, match=r"answer 400: .*got a prompt of"):
            asyncio.run(ask(weary, ["the " * 3000], Sampling(max_tokens=3)))


async def _chat(llm: RemoteLLM) -> str:
    user = "Search query: zzz\nPassage [1]: Ada did\nPassage [2]: no\nReference answer: Ada\n"
    try:
        return await llm.chat("You grade.", user, Sampling(max_tokens=10))
    finally:
        await llm.aclose()


def test_a_server_that_is_down_is_named_with_what_to_check() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    llm = RemoteLLM(f"http://127.0.0.1:{port}", retries=1, pause=0.01)
    began = time.monotonic()
    with pytest.raises(LLMError) as caught:
        asyncio.run(ask(llm, PROMPTS, Sampling(max_tokens=3)))
    message = str(caught.value)
    assert f"127.0.0.1:{port}/v1" in message
    assert "no connection" in message
    assert "in each of 2 tries" in message
    assert "check that the server runs" in message
    assert time.monotonic() - began < 10


def test_a_server_that_never_answers_runs_out_of_time() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/v1"
        llm = RemoteLLM(url, "m", retries=0, timeout=0.2)
        with pytest.raises(LLMError, match=r"no answer within 0\.2 s"):
            asyncio.run(ask(llm, PROMPTS[:1], Sampling(max_tokens=3)))


def replying(llm: RemoteLLM, handler: Any) -> RemoteLLM:
    """Answer from a function in place of the network."""
    for server in llm.pool.servers:

        def opened(server: Connection = server) -> httpx.AsyncClient:
            Connection._open(server)
            server._client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
            return server._client

        server._open = opened  # type: ignore[method-assign]
    return llm


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (httpx.Response(200, text="<html>"), "expected JSON"),
        (httpx.Response(200, json={"choices": []}), "without choices"),
        (httpx.Response(200, json={"choices": [{"no": "text"}]}), "without text"),
        (httpx.Response(404, json={"error": {"message": "no such\nmodel"}}), "404: no such model"),
        (httpx.Response(401, json={"detail": "key"}), "401: key"),
    ],
)
def test_nonsense_is_one_clear_line(reply: httpx.Response, message: str) -> None:
    llm = replying(RemoteLLM("http://127.0.0.1:1", "m"), lambda request: reply)
    with pytest.raises(LLMError, match=message) as caught:
        asyncio.run(llm.complete("a", Sampling(max_tokens=3)))
    assert "\n" not in str(caught.value)


def test_a_retry_waits_longer_each_time_and_as_long_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("agentic_r.agent.pool.asyncio.sleep", sleep)
    replies = iter(
        [
            httpx.Response(500),
            httpx.Response(429, headers={"Retry-After": "7"}),
            httpx.Response(502),
            httpx.Response(200, json={"data": [{"id": "first"}, {"id": "second"}]}),
            httpx.Response(200, json={"choices": [{"message": {"content": "hello"}}]}),
        ]
    )
    llm = replying(RemoteLLM("http://127.0.0.1:1", pause=1.0), lambda request: next(replies))
    assert asyncio.run(llm.chat("s", "u", Sampling())) == "hello"
    assert llm.model == "first"
    assert 0.5 <= waits[0] <= 1.0
    assert waits[1] == 7.0
    assert 2.0 <= waits[2] <= 4.0


def test_the_key_comes_from_the_environment_and_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="AR_TEST_KEY is not set"):
        RemoteLLM("http://127.0.0.1:1", api_key_env="AR_TEST_KEY")
    monkeypatch.setenv("AR_TEST_KEY", "secret")
    llm = RemoteLLM("http://127.0.0.1:1", api_key_env="AR_TEST_KEY")

    async def header() -> str:
        client = llm.pool.servers[0]._open()
        await llm.aclose()
        return client.headers["Authorization"]

    assert asyncio.run(header()) == "Bearer secret"
    wrong = httpx.Response(401, text="wrong key: secret")
    llm = replying(RemoteLLM("http://h:1", "m", api_key_env="AR_TEST_KEY"), lambda request: wrong)
    with pytest.raises(LLMError, match=r"401: wrong key: \*\*\*"):
        asyncio.run(llm.chat("s", "u", Sampling()))


def test_addresses() -> None:
    assert RemoteLLM("http://host:1/").url == "http://host:1/v1"
    assert RemoteLLM("https://host/v1/").url == "https://host/v1"
    assert RemoteLLM("https://host/api").url == "https://host/api/v1"
    assert RemoteLLM("https://host/v1beta/openai/").url == "https://host/v1beta/openai"
    with pytest.raises(ConfigError, match="expected http://HOST:PORT/v1"):
        RemoteLLM("host:1")


STOP = ("</search>", "</answer>")


@pytest.mark.parametrize(
    ("text", "reason", "named", "habit", "expected", "finish"),
    [
        ("<search> a </search>", "stop", None, "keeps", "<search> a </search>", "stop"),
        ("<search> a </search> on </answer>", "length", None, "ignores", None, "stop"),
        ("<search> a ", "stop", None, "trims", "<search> a </search>", "stop"),
        ("<search> a ", "stop", None, "unknown", "<search> a </search>", "stop"),
        ("<search> a ", "stop", None, "keeps", "<search> a ", "eos"),
        ("<search> a ", "stop", None, "ignores", "<search> a ", "eos"),
        ("<search> a ", "length", None, "trims", "<search> a ", "length"),
        ("<think> x <answer> a ", "stop", None, "trims", "<think> x <answer> a </answer>", "stop"),
        (
            "<answer> not <search> a",
            "stop",
            None,
            "trims",
            "<answer> not <search> a</search>",
            "stop",
        ),
        ("nothing open", "stop", None, "trims", "nothing open", "eos"),
        ("nothing open ", "stop", "</answer>", "keeps", "nothing open </answer>", "stop"),
        ("<search> a ", "stop", 151643, "keeps", "<search> a ", "eos"),
    ],
)
def test_made_good(
    text: str, reason: str, named: object, habit: Any, expected: str | None, finish: str
) -> None:
    choice = {"text": text, "finish_reason": reason, "stop_reason": named}
    done = made_good(choice, STOP, habit)
    assert (done.text, done.finish) == (expected or "<search> a </search>", finish)


def test_a_server_that_goes_down_stops_the_rollout_and_one_that_refuses_does_not() -> None:
    start = [Trajectory(str(n), Question(str(n), f"question {n}", ("x",))) for n in range(3)]

    def carry(reply: httpx.Response) -> list[Trajectory]:
        llm = replying(RemoteLLM("http://127.0.0.1:1", "m", pause=0.0), lambda request: reply)
        llm.manners = Manners("keeps")
        llm.capabilities = Capabilities()
        return run_rollout(
            llm,
            TableRetriever({}),
            start,
            SearchR1("{question}\n"),
            k=1,
            form="query",
            turns=3,
            sampling=Sampling(max_tokens=4),
        )

    with pytest.raises(OutageError, match="answer 503: no reason given in each of 7 tries"):
        carry(httpx.Response(503))
    assert {end.stop for end in carry(httpx.Response(400, text="prompt too long"))} == {"error"}
    assert {end.stop for end in carry(httpx.Response(500, text="bug"))} == {"error"}


def test_what_a_chat_server_refuses_by_name_is_left_out_from_then_on() -> None:
    bodies: list[dict[str, Any]] = []
    refusals = [
        "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
        "Unsupported value: 'temperature' does not support 0",
        "System role not supported",
    ]

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        if len(bodies) <= len(refusals):
            return httpx.Response(400, json={"error": {"message": refusals[len(bodies) - 1]}})
        return httpx.Response(200, json={"choices": [{"message": {"content": "hi"}}]})

    llm = replying(RemoteLLM("http://127.0.0.1:1", "m"), handler)
    assert asyncio.run(llm.chat("be kind", "hello", Sampling(max_tokens=9))) == "hi"
    assert asyncio.run(llm.chat("be kind", "hello", Sampling(max_tokens=9))) == "hi"
    assert len(bodies) == 5
    assert bodies[4] == {
        "model": "m",
        "messages": [{"role": "user", "content": "be kind\n\nhello"}],
        "max_completion_tokens": 9,
        "top_p": 1.0,
    }
    stubborn = httpx.Response(400, json={"error": {"message": "'max_tokens' is too large"}})
    llm = replying(RemoteLLM("http://127.0.0.1:1", "m"), lambda request: stubborn)
    with pytest.raises(LLMError, match="too large"):
        asyncio.run(llm.chat("s", "u", Sampling()))


@pytest.mark.parametrize("able", [True, False])
def test_a_schema_is_sent_unless_the_server_refuses_schemas(able: bool) -> None:
    bodies: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        if not able and "response_format" in bodies[-1]:
            refusal = {"error": {"message": "response_format is not supported by this model"}}
            return httpx.Response(400, json=refusal)
        return httpx.Response(200, json={"choices": [{"message": {"content": "[80]"}}]})

    llm = replying(RemoteLLM("http://127.0.0.1:1", "m"), handler)
    schema = {"type": "object", "properties": {"scores": {"type": "array"}}}
    for user in ("one", "two"):
        assert asyncio.run(llm.structured("s", user, Sampling(max_tokens=9), schema)) == "[80]"
    held = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    sent = [body.get("response_format") for body in bodies]
    assert sent == ([held, held] if able else [held, None, None])


def test_a_judge_that_used_up_its_tokens_is_told_which_setting_to_raise() -> None:
    reply = {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
    answer = httpx.Response(200, json=reply)
    llm = replying(RemoteLLM("http://127.0.0.1:1", "m", role="judge"), lambda request: answer)
    with pytest.raises(LLMError, match=r"all 50 tokens, so raise utility\.judge_tokens"):
        asyncio.run(llm.chat("s", "u", Sampling(max_tokens=50)))


@pytest.mark.parametrize("listed", [{}, {"data": []}, {"data": ["m"]}, {"data": [{"id": 3}]}])
def test_a_server_without_a_model_list_wants_the_name(listed: dict[str, Any]) -> None:
    answer = httpx.Response(200, json=listed)
    llm = replying(RemoteLLM("http://127.0.0.1:1", role="judge"), lambda request: answer)
    with pytest.raises(LLMError, match=r"set utility\.judge_name"):
        asyncio.run(llm.chat("s", "u", Sampling()))


def test_a_model_is_known_by_its_given_name_or_with_its_address() -> None:
    """Two servers that list two models by one name are two judges."""
    answer = httpx.Response(200, json={"data": [{"id": "m"}]})
    found = replying(RemoteLLM("http://127.0.0.1:1"), lambda request: answer)
    assert asyncio.run(found.named()) == f"m at {found.url}"
    assert asyncio.run(RemoteLLM("http://127.0.0.1:1", "m").named()) == "m"


def test_messages_name_the_judges_settings() -> None:
    with pytest.raises(ConfigError, match=r"^utility\.judge_api_key_env: the environment variable"):
        RemoteLLM("http://127.0.0.1:1", api_key_env="AR_NO_SUCH_KEY", role="judge")
    with pytest.raises(ConfigError, match=r"^utility\.judge_concurrency: got 0"):
        RemoteLLM("http://127.0.0.1:1", concurrency=0, role="judge")


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"name or password in it.*agent\.api_key_env") as caught:
        RemoteLLM("http://me:secret@host:1/v1")
    assert "secret" not in str(caught.value)


def test_a_server_that_never_answered_is_given_up_sooner() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    llm = RemoteLLM(url, "m", pause=0.0)
    with pytest.raises(OutageError, match="in each of 3 tries"):
        asyncio.run(ask(llm, PROMPTS[:1], Sampling(max_tokens=3)))
