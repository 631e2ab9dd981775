"""The fakes do what they are told and say what they were asked."""

from __future__ import annotations

import asyncio

import pytest

from agentic_r.errors import LLMError
from agentic_r.protocols import LLM, ChatLLM, Judge, JudgeRequest, Retriever, Sampling
from agentic_r.testing import FixedJudge, ScriptedLLM, TableRetriever
from agentic_r.types import Passage

STOP = Sampling(stop=("</b>", "</a>"))


def complete(llm: LLM, prompt: str) -> tuple[str, str]:
    done = asyncio.run(llm.complete(prompt, STOP))
    return done.text, done.finish


def test_scripts_of_every_kind_are_cut_at_the_first_stop_string() -> None:
    called = ScriptedLLM(lambda prompt: f"{prompt}</a></b>")
    assert complete(called, "x") == ("x</a>", "stop")
    listed = ScriptedLLM(["one", "two</b>"])
    assert [complete(listed, "p"), complete(listed, "p")] == [("one", "eos"), ("two</b>", "stop")]
    mapped = ScriptedLLM({"end": "short", "the end": "long"})
    assert complete(mapped, "at the end\n") == ("long", "eos")
    assert (mapped.prompts, mapped.samplings) == (["at the end\n"], [STOP])


def test_a_script_that_holds_nothing_is_an_error() -> None:
    for llm in (ScriptedLLM([]), ScriptedLLM({"a": "b"})):
        with pytest.raises(LLMError, match="holds nothing for a prompt that ends 'what'"):
            complete(llm, "what")


def test_a_script_chats() -> None:
    llm: ChatLLM = ScriptedLLM({"user": "hello"})
    assert asyncio.run(llm.chat("system", "user", Sampling())) == "hello"


def test_the_table_is_looked_up() -> None:
    a, b, c = (Passage(name, name) for name in "abc")
    table = TableRetriever({"x": [a, b]}, default=[c])
    retriever: Retriever = table
    rows = retriever.search(["x", "y"], 1)
    assert [[hit.passage for hit in row] for row in rows] == [[a], [c]]
    assert [hit.score for hit in retriever.search(["x"], 5)[0]] == [1.0, 0.5]
    assert table.calls == [["x", "y"], ["x"]]


def test_scores_are_fixed() -> None:
    request = JudgeRequest("q", ("a",), "query", None, "", ("one", "two", "three"))
    judge: Judge = FixedJudge({"one": 80.0, "two": None})
    assert asyncio.run(judge.relevance(request)) == [80.0, None, 0.0]
    same = FixedJudge(50.0)
    assert asyncio.run(same.relevance(request)) == [50.0, 50.0, 50.0]
    assert same.requests == [request]
