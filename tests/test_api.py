"""Labelling through the facade: the parts are found, and say so when one is missing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

import agentic_r as ar
from agentic_r.api import HopOrLLMSubAnswers
from agentic_r.config import UtilityConfig
from agentic_r.errors import ConfigError, DataError
from agentic_r.testing import OracleReader, ScriptedLLM
from agentic_r.testing.server import Server, build_parser
from agentic_r.utility.select import UpstreamRule
from agentic_r.utility.subanswers import LLMSubAnswers

CITIES = ["Ulm", "Bern", "Graz", "Linz", "Trier", "Essen"]
WRITERS = ["Ada Bo", "Cid Dee", "Eva Fo", "Gil Ho", "Ida Jo", "Kit Lo"]
CORPUS = ar.Corpus(
    [
        ar.Passage(f"b{i}", f"{name} was born in {city}.", name)
        for i, (name, city) in enumerate(zip(WRITERS, CITIES, strict=True))
    ]
)
SETTINGS = UtilityConfig(candidates=6, negatives=3)


def question(number: int, hops: bool = True) -> ar.Question:
    name, city = WRITERS[number], CITIES[number]
    asked = f"Where was {name} born?"
    steps = [{"question": asked, "answer": city, "passage_id": f"b{number}"}]
    return ar.Question(f"q{number}", asked, (city,), "d", {"hops": steps} if hops else {})


QUESTIONS = [question(number) for number in range(len(CITIES))]


@pytest.fixture(scope="module")
def agent() -> ar.SearchAgent:
    return ar.SearchAgent(OracleReader(QUESTIONS), ar.BM25Retriever(CORPUS), k=1)


@pytest.fixture
def server() -> Iterator[str]:
    class Mute:
        batch = 1

        def generate(self, prompts: Sequence[str], sampling: ar.Sampling) -> list[ar.Completion]:
            raise ar.LLMError("only chats are served")

    options = build_parser().parse_args([])
    with Server(Mute(), "grader", options) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running.url
        running.shutdown()
        thread.join()


def test_labels_with_annotated_hops_and_the_offline_judge(agent: ar.SearchAgent) -> None:
    labels = ar.label(
        agent.run(QUESTIONS), agent, judge=ar.OfflineJudge(), settings=SETTINGS, progress=False
    )
    examples = ar.select(labels)
    assert [example.positives for example in examples] == [(f"b{i}",) for i in range(6)]
    assert all(len(example.negatives) == 3 for example in examples)
    assert labels.costs.continuations == 6


def test_a_judge_given_by_its_address(agent: ar.SearchAgent, server: str) -> None:
    judge = ar.LLMJudge(server)
    labels = ar.label(agent.run(QUESTIONS[:2]), agent, judge=judge, settings=SETTINGS)
    assert [example.positives for example in ar.select(labels)] == [("b0",), ("b1",)]


def test_with_a_cache_a_judge_is_asked_once_ever(
    agent: ar.SearchAgent, server: str, tmp_path: Path
) -> None:
    trajectories = agent.run(QUESTIONS[:2])

    def labelled() -> ar.Labels:
        return ar.label(
            trajectories, agent, judge=ar.LLMJudge(server), settings=SETTINGS,
            cache=tmp_path / "judge.sqlite",
        )  # fmt: skip

    first, second = labelled(), labelled()
    assert (first.costs.judge_calls, second.costs.judge_calls) == (2, 0)
    assert first.utilities == second.utilities


def test_what_a_model_says_is_kept_only_where_it_says_which_model_it_is(
    agent: ar.SearchAgent, tmp_path: Path
) -> None:
    judge = ar.LLMJudge(ScriptedLLM(["[1] 90"]))
    with pytest.raises(ConfigError, match=r"what ScriptedLLM says cannot be kept.*leave the cache"):
        ar.label(
            agent.run(QUESTIONS[:1]), agent, judge=judge, settings=SETTINGS,
            cache=tmp_path / "judge.sqlite",
        )  # fmt: skip


def test_a_file_that_is_no_cache_is_refused_and_left_as_it_is(
    agent: ar.SearchAgent, server: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("my notes, " * 100)
    with pytest.raises(DataError, match=r"notes.txt: cannot be used .* no cache= in Python"):
        ar.label([], agent, judge=ar.LLMJudge(server), cache=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text().startswith("my notes, ")


def test_prompt_files_of_the_settings_are_read_or_refused(
    agent: ar.SearchAgent, server: str
) -> None:
    bare = [question(0, hops=False)]
    trajectory = msgspec.structs.replace(agent.run(QUESTIONS[:1])[0], question=bare[0])
    for name, expected in (
        ("judge_prompt_file", r"LLMJudge\(\.\.\., prompt_file=FILE\)"),
        ("subanswer_prompt_file", "none.txt: cannot read this prompt file"),
    ):
        settings = UtilityConfig(candidates=6, negatives=3, **{name: "none.txt"})
        with pytest.raises((ConfigError, DataError), match=expected):
            ar.label([trajectory], agent, judge=ar.LLMJudge(server), settings=settings)


def test_questions_without_hops_ask_the_judges_model(server: str) -> None:
    bare = [question(number, hops=False) for number in range(2)]
    writes = ScriptedLLM(
        lambda prompt: (
            f"<answer> {prompt.split('born in ')[-1].split('.')[0]} </answer>"
            if "<information>" in prompt.partition("Question:")[2]
            else f"<search> {prompt.partition('Question:')[2].strip()} </search>"
        )
    )
    agent = ar.SearchAgent(writes, ar.BM25Retriever(CORPUS), k=1)
    labels = ar.label(agent.run(bare), agent, judge=ar.LLMJudge(server), settings=SETTINGS)
    assert [row.subanswers[0].text for row in labels.rows] == ["Ulm", "Bern"]
    assert [example.positives for example in ar.select(labels)] == [("b0",), ("b1",)]


def test_without_hops_and_without_a_model_it_says_what_to_do(agent: ar.SearchAgent) -> None:
    trajectory = agent.run(QUESTIONS[:1])[0]
    bare = ar.Trajectory("t", question(0, hops=False), trajectory.turns, trajectory.stop)
    with pytest.raises(ConfigError, match=r"q0.*OfflineJudge.*LLMJudge"):
        ar.label([bare], agent, judge=ar.OfflineJudge())


def test_a_model_is_asked_only_where_a_search_asks_no_hop() -> None:
    import asyncio

    chat = ScriptedLLM(["<sub-answer> other </sub-answer> <sub-answer> Graz </sub-answer>"])
    source = HopOrLLMSubAnswers(LLMSubAnswers(chat))
    asked = ar.Search(QUESTIONS[0].text, QUESTIONS[0].text)
    other = ar.Search("something else", "something else")

    def of(*searches: ar.Search) -> list[str | None]:
        turns = tuple(ar.Turn("t", "search", (search,)) for search in searches)
        return asyncio.run(source.subanswers(ar.Trajectory("t", QUESTIONS[0], turns)))

    assert of(asked) == ["Ulm"]
    assert chat.prompts == []
    assert of(asked, other) == ["Ulm", "Graz"]
    assert len(chat.prompts) == 1


def test_selecting_again_with_another_rule(agent: ar.SearchAgent) -> None:
    labels = ar.label(
        agent.run(QUESTIONS[:1]), agent, judge=ar.OfflineJudge(), settings=SETTINGS, progress=False
    )
    fewer = ar.select(labels, rule=UpstreamRule(negatives=2))
    assert [len(example.negatives) for example in fewer] == [2]
    assert ar.select(labels, rule=UpstreamRule(threshold=101.0)) == []
