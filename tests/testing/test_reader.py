"""The oracle reader goes exactly as far as it is shown the answers."""

from __future__ import annotations

import asyncio

import pytest

from agentic_r.agent.agent import SearchAgent
from agentic_r.agent.dialects import DIALECTS
from agentic_r.errors import ConfigError, DataError, LLMError
from agentic_r.protocols import Sampling
from agentic_r.testing import OracleReader
from agentic_r.types import Hit, Passage, Question

HOPS = [
    {"question": "Who wrote Hives?", "answer": "Ada Bo", "passage_id": "1"},
    {"question": "Where was #1 born?", "answer": "Ulm", "passage_id": "2"},
]
QUESTION = Question(
    "q", "Where was the writer of Hives born?", ("Ulm", "Ulm, Baden"), "d", {"hops": HOPS}
)
READER = OracleReader([QUESTION])
STOPS = Sampling(stop=("</search>", "</answer>"))
HEAD = "Say <answer> Beijing </answer>. Question: Where was the writer of Hives born?\n"


def write(*blocks: str, head: str = HEAD) -> str:
    shown = "".join(
        f"<search> s </search>\n\n<information>\n{b}\n</information>\n\n" for b in blocks
    )
    return asyncio.run(READER.complete(head + shown, STOPS)).text


def test_it_asks_hop_by_hop_and_answers() -> None:
    assert write().endswith("<search> Who wrote Hives? </search>")
    assert write("by ada bo, of course").endswith("<search> Where was Ada Bo born? </search>")
    assert write("Ada Bo", "in the city of ULM.").endswith("<answer> Ulm </answer>")


def test_it_answers_wrongly_when_it_is_not_shown_the_answer() -> None:
    assert write("by somebody else").endswith("<answer> unknown </answer>")
    assert write("Adan Bok").endswith("<answer> unknown </answer>")
    assert write("Ada Bo", "Ulmer").endswith("<answer> unknown </answer>")
    assert write("Ulm", "Ada Bo", "Ulm").endswith("<answer> unknown </answer>")


def test_only_the_latest_block_counts() -> None:
    assert write("Ada Bo Ulm", "nothing").endswith("<answer> unknown </answer>")


def test_unknown_questions_and_questions_without_hops_are_refused() -> None:
    with pytest.raises(LLMError, match="found no question that it knows"):
        write(head="Question: Another one?\n")
    with pytest.raises(DataError, match="has no metadata"):
        OracleReader([Question("q", "a", ("b",))])


class Always:
    """Finds the passage that holds every answer."""

    def search(self, queries: list[str], k: int) -> list[list[Hit]]:
        return [[Hit(Passage("1", "By Ada Bo of Ulm."), 1.0)] for _ in queries]


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_it_speaks_a_dialect_or_says_that_it_does_not(name: str) -> None:
    agent = SearchAgent(READER, Always(), name, k=1)
    try:
        [end] = agent.run([QUESTION])
    except ConfigError as error:  # it takes text alone, which is said before any work
        assert "OracleReader cannot" in str(error)
        return
    if name in OracleReader.dialects:
        assert (end.stop, end.answer, len(end.searches)) == ("answered", "Ulm", 2)
    else:
        assert (end.stop, end.answer) == ("error", None)
        assert end.error is not None
        assert "speaks the dialects search-r1 and search-r1-rl alone" in end.error
