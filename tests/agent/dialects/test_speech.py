"""Reading never fails, whatever a model writes, and reads nothing that it did not write."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_r.agent.dialects import DIALECTS, dialect
from agentic_r.agent.dialects.rearag import _action
from agentic_r.agent.dialects.simple_deep_searcher import boxed
from agentic_r.agent.dialects.speech import (
    between,
    is_last,
    model_calls,
    short_answer,
    without_end,
)
from agentic_r.protocols import Completion
from agentic_r.types import Question, Search, Status, ToolCall, Trajectory, Turn

ASKED = Question("q", "Who?", ("x",))
START = Trajectory("t", ASKED)
SPOKEN = {name: dialect(name) for name in DIALECTS}

words = st.sampled_from(
    (
        *("<think>", "</think>", "<search>", "</search>", "<answer>", "</answer>", "<query>"),
        *("</query>", "<|begin_of_query|>", "<|end_of_query|>", "<|begin_search_query|>"),
        *("<|end_search_query|>", "\\boxed{", "}", "{", "```", "\nAction 1:", "Search[", "]"),
        *("Finish[", "\nObservation", "Follow up: ", "Intermediate answer:", "<|im_end|>"),
        *("So the final answer is: ", "So the answer is:", "Ada", " ", "\n", ". ", '"'),
        '{"function": "finish", "parameters": {"answer": "Ada"}}',
    )
)
said = st.lists(words | st.text(max_size=5), max_size=14).map("".join)
calls = st.lists(
    st.builds(
        ToolCall,
        st.sampled_from(["search", "open", ""]),
        st.text(max_size=8)
        | st.builds(
            json.dumps,
            st.recursive(
                st.none() | st.text(max_size=4),
                lambda inner: st.dictionaries(st.just("query") | st.text(max_size=3), inner),
                max_leaves=4,
            ),
        ),
    ),
    max_size=7,
).map(tuple)
completions = st.builds(
    Completion,
    text=said,
    finish=st.sampled_from(["stop", "eos", "length", "calls"]),
    logprobs=st.lists(st.floats(-9, 0), max_size=20).map(tuple),
    calls=calls,
)


@settings(max_examples=300)
@given(name=st.sampled_from(list(DIALECTS)), first=completions, second=completions)
def test_any_text_is_read_and_nothing_is_invented(
    name: str, first: Completion, second: Completion
) -> None:
    spoken = SPOKEN[name]
    trajectory = START
    for completion in (first, second):
        spoken.prompt(trajectory)
        turn = spoken.read(completion, trajectory)
        assert turn.status in get_args(Status)
        assert turn.text in completion.text or name == "self-ask"
        assert (turn.answer is None) == (turn.status != "answer")
        assert turn.answer is None or turn.answer in completion.text or name == "rearag"
        if name not in ("tool-calling", "iter-retgen", "flare"):
            assert all(search.query in completion.text for search in turn.searches)
        if turn.searches:
            assert turn.status == "search"
            observation = spoken.observe(turn, trajectory)
            turn = Turn(turn.text, turn.status, turn.searches, None, observation, calls=turn.calls)
        trajectory = Trajectory("t", ASKED, (*trajectory.turns, turn))
    spoken.prompt(trajectory)


def test_the_last_whole_pair_counts() -> None:
    assert between("<a>1</a><a> 2 </a><a>3", "<a>", "</a>") == "2"
    assert between("<a>1<a>2</a>", "<a>", "</a>") == "1<a>2"
    assert between("1</a>", "<a>", "</a>") is None
    assert without_end(" a <|im_end|> <|endoftext|>\n") == " a"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\n Ada \nmore", "Ada"),
        ("<think>\nhm\n</think>\n\nAda<|im_end|>", "Ada"),
        ("so <answer> Ada\nBo </answer> x", "Ada\nBo"),
        ("<think> only", "<think> only"),
        ("<think> x </think>", ""),
        ("", ""),
    ],
)
def test_a_plain_reply_is_its_first_line(text: str, answer: str) -> None:
    assert short_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("\\boxed{a} and \\boxed{b}", "b"),
        ("\\boxed{a{b}c}", "a{b}c"),
        ("\\boxed{\\text{a b}}", "a b"),
        ("\\boxed{a} \\boxed{b", "a"),
        ("\\boxed a", None),
    ],
)
def test_boxes_have_matched_braces(text: str, content: str | None) -> None:
    assert boxed(text) == content


def fenced(text: str) -> str:
    return f"Action 1:\n```\n{text}\n```"


@pytest.mark.parametrize(
    "text",
    [
        '__import__("os").system("echo")',
        '{"function": "search", "parameters": {"query": open("x")}}',
        '{"function": "delete", "parameters": {"query": "x"}}',
        '{"function": "search", "parameters": {"answer": "x"}}',
        '{"function": "search", "parameters": {"query": ["x"]}}',
        '{"function": "search"}',
        "[" * 3000,
        "{'function': 'search', 'parameters': {'query': 'x' * 9}}",
        '{"function": "search", "parameters": {"query": "' + "x" * 9000 + '"}}',
    ],
)
def test_an_action_that_is_no_plain_data_is_no_action(text: str) -> None:
    assert _action(fenced(text)) is None


def test_actions_are_read_as_json_or_as_a_literal() -> None:
    for text in (
        '{"function": "search", "parameters": {"query": "it\'s"}}',
        "{'function': 'search', 'parameters': {'query': \"it's\"}}",
    ):
        assert _action(fenced(text)) == {"function": "search", "parameters": {"query": "it's"}}
    number = '```json\n{"function": "finish", "parameters": {"answer": 1924}}\n```'
    assert _action(f"Action 2: {number}") is not None


def test_turns_of_the_protocol_are_no_model_calls() -> None:
    turns = (Turn("", "given", (Search("a", "a"),)), Turn("a", "continue"))
    assert model_calls(turns) == 1
    assert is_last(Trajectory("t", ASKED, turns), 2)
    assert not is_last(Trajectory("t", ASKED, turns), 3)
