"""Parts that a config names, and the servers that are tried before any long work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from agentic_r.agent.connection import Connection
from agentic_r.config import AgentConfig, Config, DataConfig, UtilityConfig
from agentic_r.data.corpus import Corpus
from agentic_r.data.questions import Questions
from agentic_r.errors import ConfigError, LLMError
from agentic_r.parts import Data, agent_key, check_servers, gold_known, open_agent, open_judge
from agentic_r.protocols import Capabilities, Completion, Sampling
from agentic_r.testing import ScriptedLLM
from agentic_r.types import Passage, Question

BARE = Questions([Question("1", "Who?", ("Ada",))])
DATA = Data(Corpus([Passage("p", "Ada.")]), BARE, BARE, BARE, "a passage")
SERVERS = Config(
    data=DataConfig(source="files", sub_answers="judge"),
    agent=AgentConfig(model="http://127.0.0.1:1"),
    utility=UtilityConfig(judge="http://127.0.0.1:2"),
)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, Any]], list[str]]:
    """Answer requests from a table of port -> reply in place of the network."""

    def use(replies: dict[int, Any]) -> list[str]:
        asked: list[str] = []

        def handler(request: httpx.Request) -> httpx.Response:
            asked.append(f"{request.url.port}{request.url.path}")
            if request.url.path == "/v1/models":
                return httpx.Response(200, json={"data": [{"id": "m"}]})
            return httpx.Response(200, json={"choices": [replies[request.url.port or 0]]})

        transport = httpx.MockTransport(handler)

        def opened(self: Connection) -> httpx.AsyncClient:
            return httpx.AsyncClient(transport=transport)

        monkeypatch.setattr(Connection, "_open", opened)
        return asked

    return use


def test_both_servers_are_tried(answer: Callable[[dict[int, Any]], list[str]]) -> None:
    llm, _ = open_agent(SERVERS, DATA)
    asked = answer({1: {"text": "one two three four"}, 2: {"message": {"content": "90 0"}}})
    check_servers(SERVERS, DATA, llm, agent=True, judge=True)
    assert set(asked) == {
        *("1/v1/models", "1/v1/completions", "1/v1/chat/completions"),
        *("2/v1/models", "2/v1/chat/completions"),
    }
    asked.clear()
    check_servers(SERVERS, DATA, llm, agent=False, judge=False)
    assert asked == []


@pytest.mark.parametrize(
    ("agent", "judge", "message"),
    [
        ({"no": "text"}, {"message": {"content": "90 0"}}, r"^agent\.model: got a completion"),
        ({"text": ""}, {"message": {"content": "Sorry?"}}, r"^utility\.judge: the judge was asked"),
        ({"text": ""}, {"message": {}}, r"^utility\.judge: http://127\.0\.0\.1:2/v1: got a chat"),
    ],
)
def test_a_server_that_cannot_do_its_part_is_named(
    answer: Callable[[dict[int, Any]], list[str]], agent: Any, judge: Any, message: str
) -> None:
    llm, _ = open_agent(SERVERS, DATA)
    answer({1: agent, 2: judge})
    with pytest.raises(LLMError, match=message):
        check_servers(SERVERS, DATA, llm, agent=True, judge=True)


@pytest.mark.parametrize(
    ("dialect", "lacking"),
    [("tool-calling", "chat, tools"), ("corag", "chat"), ("flare", "logprobs")],
)
def test_a_model_that_lacks_what_its_dialect_needs_is_refused_before_any_work(
    dialect: str, lacking: str
) -> None:
    class Plain:
        name = "plain"
        capabilities = Capabilities()

        async def complete(self, prompt: str, sampling: Sampling) -> Completion:
            raise AssertionError("asked")

    config = Config(agent=AgentConfig(dialect=dialect))  # type: ignore[arg-type]
    wanted = rf"plain cannot .*agent.dialect {dialect} needs \(.*{lacking}"
    with pytest.raises(ConfigError, match=wanted):
        check_servers(config, DATA, Plain(), agent=True, judge=False)
    plain = Config(agent=AgentConfig(dialect="react"))
    check_servers(plain, DATA, Plain(), agent=True, judge=False)


def test_a_prompt_file_is_read_before_any_work() -> None:
    config = Config(agent=AgentConfig(prompt_file="nowhere.txt"))
    with pytest.raises(ConfigError, match=r"agent\.prompt_file: cannot read nowhere\.txt"):
        check_servers(config, DATA, ScriptedLLM([]), agent=True, judge=False)


def test_missing_hops_are_told_before_any_work() -> None:
    config = Config(data=DataConfig(source="files"), agent=AgentConfig(model="http://127.0.0.1:1"))
    llm, _ = open_agent(config, DATA)
    with pytest.raises(ConfigError, match=r"no training question has metadata\.hops"):
        check_servers(config, DATA, llm, agent=False, judge=True)


def test_the_judge_has_its_own_key_and_never_the_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AR_AGENT_KEY", "for the agent")
    config = Config(
        data=DataConfig(source="files", sub_answers="judge"),
        agent=AgentConfig(api_key_env="AR_AGENT_KEY"),
        utility=UtilityConfig(
            judge="http://127.0.0.1:2", judge_concurrency=3, judge_timeout=7.0, cache="off"
        ),
    )
    judge: Any
    judge, _ = open_judge(config, DATA)
    assert judge.chat.pool.servers[0]._secret == ""
    assert judge.chat.pool.servers[0]._concurrency == 3
    assert judge.chat.pool.servers[0]._timeout == 7.0


def test_a_named_model_is_known_by_its_name_and_another_by_its_address() -> None:
    def key(**agent: Any) -> str:
        return agent_key(Config(agent=AgentConfig(**agent)))

    assert key(model="http://a:1", name="m") == key(model="http://b:2", name="m")
    assert key(model="http://a:1", name="m") != key(model="http://a:1", name="n")
    assert key(model="http://a:1") != key(model="http://b:2")


def test_gold_is_known_where_a_hop_names_its_passage() -> None:
    hop = {"question": "Who?", "answer": "Ada"}
    named = Question("2", "Who?", ("Ada",), metadata={"hops": [hop | {"passage_id": "p"}]})
    unnamed = Question("3", "Who?", ("Ada",), metadata={"hops": [hop]})
    assert gold_known([*BARE, unnamed, named])
    assert not gold_known([*BARE, unnamed])
