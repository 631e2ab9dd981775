"""In every dialect: going on from any prefix gives the same end, and hits can be replaced."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from agentic_r.agent.agent import SearchAgent
from agentic_r.agent.dialects import DIALECTS
from agentic_r.errors import ConfigError
from agentic_r.protocols import Completion
from agentic_r.testing import ScriptedLLM, TableRetriever
from agentic_r.testing.fakes import Said
from agentic_r.types import Passage, Question, Search, Trajectory

from .test_injection import SEARCHES

PASSAGES = [Passage(name, f"text of {name}", name.upper()) for name in "abc"]
OTHER = Passage("z", "quite another text", "Z")
FINISH = '```\n{"function": "finish", "parameters": {"answer": "Ada"}}\n```'

ANSWERS: dict[str, Said] = {
    "r1-searcher": "</think> <answer> Ada </answer>",
    "simple-deep-searcher": "\\boxed{Ada}",
    "rearag": f"Thought 2: x\nAction 2:\n{FINISH}",
    "react": "So.\nAction 2: Finish[Ada]",
    "tool-calling": "Ada",
    "ircot": "So the answer is: Ada.\n",
    "self-ask": " x\nSo the final answer is: Ada\n",
    "flare": Completion("So the answer is: Ada.", "eos", logprobs=(-0.1,)),
}


class Chance:
    """Says what a hash of the prompt decides, so that equal prompts have equal answers."""

    def __init__(self, name: str, seed: int) -> None:
        odd: Said = Completion("hm", "eos", logprobs=(-0.1,)) if name == "flare" else "hm"
        answer = ANSWERS.get(name, "<answer> Ada </answer>")
        self.said = [*(SEARCHES[name] * 3 or ["a"]), answer, odd]
        self.seed = seed

    def __call__(self, prompt: str) -> Said:
        digest = hashlib.sha256(f"{self.seed}{prompt}".encode()).digest()
        return self.said[digest[0] % len(self.said)]


def agent(name: str, seed: int) -> SearchAgent:
    retriever = TableRetriever({}, default=PASSAGES)
    return SearchAgent(ScriptedLLM(Chance(name, seed)), retriever, name, k=2)


@pytest.mark.parametrize("name", DIALECTS)
def test_any_prefix_goes_on_to_the_same_end(name: str) -> None:
    lengths = set()
    for seed in range(8):
        spoken = agent(name, seed)
        [end] = spoken.run([Question(str(seed), "Who?", ("Ada",))])
        lengths.add(len(end.turns))
        prefixes = [
            Trajectory(end.id, end.question, end.turns[:length])
            for length in range(len(end.turns) + 1)
        ]
        assert spoken.continue_(prefixes) == [end] * len(prefixes)
    assert len(lengths) > 1 or name in ("direct", "rag", "iter-retgen", "corag")


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "direct"])
def test_a_passage_can_take_the_place_of_any_searches_hits(name: str) -> None:
    tried = 0
    for seed in range(6):
        spoken = agent(name, seed)
        [end] = spoken.run([Question(str(seed), "Who?", ("Ada",))])
        for number in range(len(end.searches)):
            cut = end.at_search(number, OTHER)
            [after] = spoken.continue_([cut])
            assert after.searches[number].hits[0].passage == OTHER
            kept = after.turns[: len(cut.turns)]
            shown = [turn for turn in kept if turn.searches][-1].observation or ""
            assert OTHER.text in shown
            assert PASSAGES[0].text not in shown
            tried += 1
    assert tried


def test_two_searches_of_a_turn_are_shown_in_order_and_replaced_alone() -> None:
    both = "<search><query>a</query><query>b</query></search>"
    llm = ScriptedLLM(
        lambda prompt: "<answer> x </answer>" if "learnings>" in prompt[-60:] else both
    )
    retriever = TableRetriever({"a": PASSAGES[:1], "b": PASSAGES[1:2]})
    spoken = SearchAgent(llm, retriever, "o2-searcher", k=1)
    [end] = spoken.run([Question("q", "Who?", ("x",))])
    assert [search.query for search in end.searches] == ["a", "b"]
    [after] = spoken.continue_([end.at_search(0, OTHER)])
    shown = after.turns[0].observation or ""
    assert shown.index(OTHER.text) < shown.index("text of b")
    assert "text of a" not in shown


def test_settings_reach_the_dialect() -> None:
    spoken = SearchAgent(ScriptedLLM([]), TableRetriever({}), "corag", turns=5, chat=True)
    assert spoken.turns == spoken.dialect.turns == 5
    assert spoken.using(k=1).turns == 5
    chat = SearchAgent(ScriptedLLM([]), TableRetriever({}), "react", chat=True)
    assert chat.dialect.needs == {"chat", "begun"}  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="turns=-1"):
        SearchAgent(ScriptedLLM([]), TableRetriever({}), "react", turns=-1)


def test_a_row_on_disk_keeps_calls_and_what_was_told() -> None:
    [end] = agent("tool-calling", 0).run([Question("0", "Who?", ("Ada",))])
    assert any(turn.calls for turn in end.turns)
    again = msgspec.json.decode(msgspec.json.encode(end), type=Trajectory)
    assert again == end
    assert isinstance(again.searches[0], Search)
