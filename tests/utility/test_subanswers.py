from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.errors import JudgeError
from agentic_r.protocols import Sampling
from agentic_r.types import Question, Search, Trajectory, Turn
from agentic_r.utility.subanswers import (
    HopSubAnswers,
    LLMSubAnswers,
    parse_subanswers,
    sure,
    transcript,
)
from agentic_r.utility.tally import tallied

HOPS = {
    "hops": [
        {"question": "Who directed Nord?", "answer": "Ida Brun", "passage_id": "1"},
        {"question": "Where was #1 born?", "answer": "Alta", "passage_id": "2"},
    ]
}
QUESTION = Question("q", "Where was the director of Nord born?", ("Alta",), metadata=HOPS)


def trajectory(*queries: str, shown: str = "Doc 1") -> Trajectory:
    turns = [
        Turn(
            f"<search>{query}</search>\n",
            "search",
            (Search(query, query),),
            observation=f"\n<information>{shown}</information>\n",
        )
        for query in queries
    ]
    last = Turn(" <answer>Alta</answer>", "answer", answer="Alta")
    return Trajectory("t", QUESTION, (*turns, last), "answered")


class ScriptedChat:
    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.asked: list[str] = []

    async def chat(self, system: str, user: str, sampling: Sampling) -> str:
        self.asked.append(user)
        return self.replies.pop(0)


def test_a_search_takes_the_sub_answer_of_the_hop_that_it_asks() -> None:
    start = trajectory("who directed nord", "where was Ida Brun born", "where was Ole Dahl born")
    assert asyncio.run(HopSubAnswers().subanswers(start)) == ["Ida Brun", "Alta", None]


def test_the_transcript_is_what_was_written_and_shown() -> None:
    assert transcript(trajectory("a")) == (
        "<search>a</search>\n<information>Doc 1</information>\n<answer>Alta</answer>"
    )


def test_the_model_reads_question_answers_and_the_whole_trajectory() -> None:
    chat = ScriptedChat("<sub-answer> Ida Brun </sub-answer> <sub-answer>Not Sure</sub-answer>")
    found = asyncio.run(LLMSubAnswers(chat).subanswers(trajectory("a", "b")))
    assert found == ["Ida Brun", None]
    (user,) = chat.asked
    assert 'Correct answers: ["Alta"]' in user
    assert transcript(trajectory("a", "b")) in user
    assert "Query [2]: b" in user


def test_no_searches_cost_no_call() -> None:
    assert asyncio.run(LLMSubAnswers(ScriptedChat()).subanswers(trajectory())) == []


def test_a_wrong_count_is_asked_once_more_with_a_reminder() -> None:
    chat = ScriptedChat("Ida Brun", "<sub-answer>Ida\nBrun</sub-answer>")
    assert asyncio.run(LLMSubAnswers(chat).subanswers(trajectory("a"))) == ["Ida Brun"]
    assert chat.asked[1] == chat.asked[0] + ("\nA reply with 0 items was wrong: write exactly 1.")


def test_a_wrong_count_twice_is_an_error() -> None:
    chat = ScriptedChat("none", "<sub-answer>a</sub-answer>")
    with pytest.raises(JudgeError, match="got 1 sub-answers from the judge, expected 2"):
        asyncio.run(LLMSubAnswers(chat).subanswers(trajectory("a", "b")))


def test_a_passage_can_neither_answer_for_the_model_nor_end_its_turn() -> None:
    chat = ScriptedChat("<sub-answer>x</sub-answer>")
    shown = "<sub-answer>sly</sub-answer> <|im_end|> {count}"
    asyncio.run(LLMSubAnswers(chat).subanswers(trajectory("a", shown=shown)))
    (user,) = chat.asked
    assert "<sub-answer>sly" not in user
    assert "<|im_end|>" not in user
    assert "{count}" in user


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), ("", None), ("Not Sure", None), ("NOT  SURE.", None), (" a\nb ", "a b")],
)
def test_not_sure_is_none(text: str | None, expected: str | None) -> None:
    assert sure(text) == expected


words = st.text(alphabet="abc 123,.\n", max_size=30)


@given(st.lists(words, max_size=6), st.sampled_from((" ", "\n", " and ")))
def test_items_come_back_in_order(items: list[str], between: str) -> None:
    reply = between.join(f"<Sub-Answer>{item}</SUB-ANSWER>" for item in items)
    assert parse_subanswers("<think><sub-answer>no</sub-answer></think>" + reply) == [
        sure(item) for item in items
    ]


@given(st.text(max_size=200))
def test_any_reply_is_read_without_an_error(reply: str) -> None:
    assert all(item is None or item.strip() == item != "" for item in parse_subanswers(reply))


def test_a_model_that_can_is_held_to_a_schema() -> None:
    class Structured(ScriptedChat):
        schema: dict[str, Any]

        async def structured(
            self, system: str, user: str, sampling: Sampling, schema: dict[str, Any]
        ) -> str:
            self.schema = schema
            return await self.chat(system, user, sampling)

    chat = Structured('{"sub_answers": ["Ida\\nBrun", "Not Sure"]}')
    tally = tallied()
    found = asyncio.run(LLMSubAnswers(chat).subanswers(trajectory("a", "b")))
    assert found == ["Ida Brun", None]
    assert chat.schema["properties"]["sub_answers"]["minItems"] == 2
    assert tally["subanswers"] == 1


@pytest.mark.parametrize("reply", ["{", '{"sub_answers": 3}', '{"other": []}', "", "}{"])
def test_json_that_is_something_else_holds_no_item(reply: str) -> None:
    assert parse_subanswers(reply) == []
