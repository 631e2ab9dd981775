from __future__ import annotations

import asyncio

import pytest

from agentic_r.errors import JudgeError
from agentic_r.protocols import AnnotatedJudge, JudgeRequest
from agentic_r.types import Question
from agentic_r.utility.by_rule import ContainmentJudge, GoldJudge, OfflineJudge


def request(
    *passages: str, query: str = "mayor of Alta", subanswer: str | None = "Ida Brun"
) -> JudgeRequest:
    return JudgeRequest("Who runs Alta?", ("Ida Brun",), query, subanswer, "<think>", passages)


def test_offline_scores_follow_sub_answer_and_coverage() -> None:
    scores = asyncio.run(
        OfflineJudge().relevance(
            request(
                "The mayor of Alta is Ida Brun.",
                "Ida Brun likes Alta.",
                "The mayor of Alta is Ole Dahl.",
                "Ida Brunson was born in Oslo.",
                "Nothing at all.",
            )
        )
    )
    assert scores == [100.0, 80.0, 40.0, 0.0, 0.0]


@pytest.mark.parametrize("subanswer", [None, "Not Sure", " not sure. ", ""])
def test_offline_scores_without_a_sub_answer_stay_at_or_below_40(subanswer: str | None) -> None:
    passages = ("The mayor of Alta is Ida Brun.", "Alta", "")
    scores = asyncio.run(OfflineJudge().relevance(request(*passages, subanswer=subanswer)))
    assert scores == [40.0, 20.0, 0.0]


def test_offline_scores_of_a_query_without_content_words() -> None:
    scores = asyncio.run(OfflineJudge().relevance(request("Ida Brun", "x", query="who is it?")))
    assert scores == [60.0, 0.0]


def test_offline_scores_are_whole_numbers() -> None:
    scores = asyncio.run(
        OfflineJudge().relevance(request("Ida Brun, mayor", query="mayor alta finnmark"))
    )
    assert scores == [73.0]


def test_containment_prefers_the_sub_answer_to_the_answer() -> None:
    judge = ContainmentJudge()
    one = JudgeRequest(
        "q", ("Oslo",), "who?", "Ida Brun", "", ("Ida Brun", "in Oslo", "Oslo Brun x")
    )
    assert asyncio.run(judge.relevance(one)) == [100.0, 70.0, 70.0]
    unsure = JudgeRequest("q", ("Oslo",), "who?", "Not Sure", "", ("Not Sure", "in Oslo"))
    assert asyncio.run(judge.relevance(unsure)) == [0.0, 70.0]
    assert asyncio.run(judge.relevance(JudgeRequest("q", (), "w", None, "", ("a",)))) == [0.0]


HOPS = [
    {"question": "Who made it?", "answer": "Ida Brun", "passage_id": "g1"},
    {"question": "Where was #1 born?", "answer": "Oslo", "passage_id": "g2"},
]


def by_gold(query: str, subanswer: str | None, **metadata: object) -> list[float | None]:
    question = Question("q1", "Where?", ("Oslo",), "d", dict(metadata))
    ids = ("g1", "g2", "g3", "x")
    asked = JudgeRequest("Where?", ("Oslo",), query, subanswer, "", ("t",) * 4)
    return asyncio.run(GoldJudge().annotated(question, asked, ids))


def test_gold_scores_follow_the_hop_that_is_asked() -> None:
    assert by_gold("who made it", None, hops=HOPS) == [100.0, 40.0, 0.0, 0.0]
    assert by_gold("where was Ida Brun born?", None, hops=HOPS) == [40.0, 100.0, 0.0, 0.0]
    assert by_gold("birthplace", "Oslo", hops=HOPS) == [40.0, 100.0, 0.0, 0.0]
    assert by_gold("birthplace", None, hops=HOPS) == [100.0, 100.0, 0.0, 0.0]
    assert by_gold("birthplace", None, gold_passage_ids=["g3"]) == [0.0, 0.0, 100.0, 0.0]


def test_gold_without_annotation_is_named_and_texts_alone_are_refused() -> None:
    with pytest.raises(JudgeError, match="question 'q1' names no gold passage"):
        by_gold("who?", None)
    with pytest.raises(JudgeError, match="cannot score texts alone"):
        asyncio.run(GoldJudge().relevance(request("a")))


def test_only_the_gold_judge_can_be_told_ids() -> None:
    assert isinstance(GoldJudge(), AnnotatedJudge)
    assert not isinstance(OfflineJudge(), AnnotatedJudge)
    assert not isinstance(ContainmentJudge(), AnnotatedJudge)
    assert set(JudgeRequest.__struct_fields__) == {
        *("question", "answers", "query", "subanswer", "trajectory", "passages", "reasoning")
    }
