"""The test server in this process, with a model that repeats; test_remote.py runs real ones."""

from __future__ import annotations

import argparse
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from agentic_r.errors import LLMError
from agentic_r.protocols import Completion, Sampling
from agentic_r.testing.grader import reply
from agentic_r.testing.server import Server, build_parser, serving


class Parrot:
    """Writes the prompt twice, up to a stop string."""

    batch = 4

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Completion]:
        if any("long" in prompt for prompt in prompts):
            raise LLMError("too long")
        return [self._one(2 * prompt, sampling) for prompt in prompts]

    def _one(self, text: str, sampling: Sampling) -> Completion:
        for stop in sampling.stop:
            if stop in text:
                return Completion(text[: text.find(stop) + len(stop)], "stop")
        return Completion(text, "length" if sampling.max_tokens < 2 else "eos")


@pytest.fixture
def serve() -> Iterator[Any]:
    servers: list[Server] = []

    def start(**faults: Any) -> str:
        options = {**vars(build_parser().parse_args([])), **faults}
        server = Server(Parrot(), "parrot", argparse.Namespace(**options))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.url

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def call(url: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data), timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def choice(url: str, **body: Any) -> dict[str, Any]:
    status, answer = call(f"{url}/completions", {"prompt": "a</b>c", "stop": ["</b>"], **body})
    assert status == 200
    [only] = answer["choices"]
    return dict(only)


def test_it_names_its_model(serve: Any) -> None:
    assert call(f"{serve()}/models") == (200, {"object": "list", "data": [{"id": "parrot"}]})


def test_stop_strings_are_trimmed_unless_asked_for(serve: Any) -> None:
    url = serve()
    assert choice(url)["text"] == "a"
    assert choice(url)["stop_reason"] == "</b>"
    assert choice(url, include_stop_str_in_output=True)["text"] == "a</b>"
    assert choice(url, stop=[], max_tokens=1)["finish_reason"] == "length"


def test_it_can_trim_and_ignore(serve: Any) -> None:
    trims = serve(trim_stop=True)
    assert choice(trims) == {"index": 0, "text": "a", "finish_reason": "stop"}
    body = {"prompt": "a", "include_stop_str_in_output": True}
    assert call(f"{trims}/completions", body)[0] == 400
    assert choice(serve(ignore_stop=True))["text"] == "a</b>ca</b>c"


def test_it_fails_first_and_refuses_clearly(serve: Any) -> None:
    url = serve(fail_first=2)
    codes = [call(f"{url}/completions", {"prompt": "a"})[0] for _ in range(3)]
    assert codes == [503, 503, 200]
    status, answer = call(f"{url}/completions", {"prompt": "long"})
    assert (status, answer["error"]["message"]) == (400, "too long")
    assert call(f"{url}/nothing", {})[0] == 404


def test_it_grades(serve: Any) -> None:
    messages = [{"role": "user", "content": "Search query: x\nPassage [1]: x y\n"}]
    status, answer = call(f"{serve()}/chat/completions", {"messages": messages})
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "40")


def test_the_grader_reads_the_judge_prompts() -> None:
    user = "Search query: who is it\nPassage [1]: it is Ada\nPassage [2]: none\n"
    assert reply(user + "Reference answer: ada\n") == "87 0"
    asked = 'Correct answers: ["Ada", "Bo"]\nThere are 2 search queries.'
    assert reply(asked) == "<sub-answer> Not Sure </sub-answer> <sub-answer> Ada </sub-answer>"
    assert reply("hello") == "ok"


def test_a_server_that_cannot_start_says_why(tmp_path: Any) -> None:
    with (
        pytest.raises(RuntimeError, match="did not start"),
        serving(tmp_path / "nothing"),
    ):
        pass
