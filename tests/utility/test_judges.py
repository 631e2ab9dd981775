from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentic_r.agent.remote import RemoteLLM
from agentic_r.config import UtilityConfig
from agentic_r.errors import ConfigError, DataError
from agentic_r.protocols import JudgeRequest
from agentic_r.types import Question, Search, Trajectory, Turn
from agentic_r.utility.by_rule import ContainmentJudge, GoldJudge, OfflineJudge
from agentic_r.utility.judge import LLMJudge
from agentic_r.utility.judges import NAMES, chat_of, named_judge, open_judge, open_subanswers
from agentic_r.utility.store import CachedJudge, CachedSubAnswers
from agentic_r.utility.subanswers import HopSubAnswers, LLMSubAnswers

URL = "http://127.0.0.1:1/v1"
REQUEST = JudgeRequest("Who?", ("Ada",), "who", None, "", ("a", "b"))
TRAJECTORY = Trajectory(
    "t", Question("q", "Who?", ("Ada",)), (Turn("t", "search", (Search("who", "who"),)),)
)


def test_every_name_opens_its_judge(tmp_path: Path) -> None:
    store = tmp_path / "c.sqlite"
    by_rule = {"offline": OfflineJudge, "containment": ContainmentJudge, "gold": GoldJudge}
    for name, kind in by_rule.items():
        assert type(open_judge(UtilityConfig(judge=name), store=store)) is kind
    remote = open_judge(UtilityConfig(judge=URL), store=store)
    assert isinstance(remote, CachedJudge)
    assert isinstance(remote.judge, LLMJudge)
    assert isinstance(open_judge(UtilityConfig(judge=URL)), LLMJudge)
    assert {*by_rule, "cross-encoder", "likelihood"} == set(NAMES[:-1])


def test_sub_answers_come_from_hops_or_the_judges_own_model(tmp_path: Path) -> None:
    settings, store = UtilityConfig(judge=URL), tmp_path / "c.sqlite"
    judge = open_judge(settings, store=store)
    said = open_subanswers(settings, "judge", judge, store=store)
    assert isinstance(said, CachedSubAnswers)
    assert isinstance(open_subanswers(settings, "judge", judge), LLMSubAnswers)
    assert isinstance(open_subanswers(settings, "hops", judge), HopSubAnswers)
    with pytest.raises(ConfigError, match=r"needs a judge: set utility\.judge to its URL"):
        open_subanswers(settings, "judge", OfflineJudge())


def test_both_prompts_may_be_the_users_own(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("=== system ===\nGrade.\n=== user ===\n{query} {passages} {trajectory}\n")
    bad.write_text("=== system ===\nGrade.\n=== user ===\nNothing to fill in.\n")
    settings = UtilityConfig(judge=URL, judge_prompt_file=str(good))
    assert isinstance(open_judge(settings), LLMJudge)
    with pytest.raises(DataError, match=r"bad.txt: expected \{query\} in the user message"):
        open_judge(UtilityConfig(judge=URL, judge_prompt_file=str(bad)))
    with pytest.raises(DataError, match=r"bad.txt: expected \{trajectory\} in the user message"):
        spoilt = UtilityConfig(judge=URL, subanswer_prompt_file=str(bad))
        open_subanswers(spoilt, "judge", open_judge(spoilt))


@pytest.mark.parametrize("part", ["judge", "sub-answers"])
def test_what_a_model_is_held_to_is_part_of_what_was_asked(part: str) -> None:
    """A reply in free words is another reply than one that was held to a schema."""
    asked = []
    for structured in ("auto", "off"):
        settings = UtilityConfig(judge=URL, judge_name="m", structured=structured)
        judge = open_judge(settings)
        assert isinstance(judge, LLMJudge)
        said = open_subanswers(settings, "judge", judge)
        assert isinstance(said, LLMSubAnswers)
        if part == "judge":
            asked.append(asyncio.run(judge.asked(REQUEST)))
        else:
            asked.append(asyncio.run(said.asked(TRAJECTORY)))
    assert asked[0] != asked[1]


def test_judges_to_compare_are_named_with_their_model() -> None:
    settings = UtilityConfig(judge=URL)
    assert isinstance(named_judge(settings, "gold"), GoldJudge)
    assert isinstance(named_judge(settings, "http://127.0.0.1:2/v1?a=b"), LLMJudge)
    one, two = (chat_of(named_judge(settings, f"{URL}={name}")) for name in ("small", "large"))
    assert isinstance(one, RemoteLLM) and isinstance(two, RemoteLLM)
    assert (one.url, one.model, two.model) == (two.url, "small", "large")
    with pytest.raises(ConfigError, match="got the judge 'oracle', expected one of offline, "):
        named_judge(settings, "oracle")
    with pytest.raises(ConfigError, match="write likelihood=FOLDER"):
        named_judge(settings, "likelihood")
    with pytest.raises(ConfigError, match="cannot load 'no-such-folder'"):
        named_judge(settings, "cross-encoder=no-such-folder")
