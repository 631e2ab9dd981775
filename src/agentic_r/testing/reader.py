"""An agent that knows what to ask and only has to be shown the answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentic_r.data.questions import hops
from agentic_r.errors import DataError, LLMError
from agentic_r.metrics import answer_in
from agentic_r.protocols import Completion, Prompt, Sampling
from agentic_r.testing.fakes import plain
from agentic_r.types import Question

_SHOWN = re.compile(r"<information>(.*?)</information>", re.DOTALL)
_MARK = "Question:"

_ALONE = "speaks the dialects search-r1 and search-r1-rl alone"
_FOREIGN = f"the oracle reader {_ALONE}; take one of them, or another model: "

WRONG = "unknown"
"""What the reader answers when it was not shown what it needs."""


class OracleReader:
    """A language model that follows a question's annotated hops, in the Search-R1 protocols.

    It asks the first hop's sub-question, goes on to the next one only if what it was last shown
    holds the hop's answer (normalised, on word boundaries), answers the question after the last
    hop, and otherwise answers "unknown". It therefore measures retrieval inside a multi-turn
    search, and nothing about reading or deciding: its exact match says how often the retriever
    found every hop's answer, as an agent with perfect queries would need it.

    It knows a question by its text, which a prompt must hold on a line that begins (or ends an
    instruction) with "Question: ". Raises DataError where a question has no annotated hops, and
    LLMError for a prompt about an unknown question or of a protocol that it does not speak.
    """

    dialects = ("search-r1", "search-r1-rl")
    """The packaged protocols that it speaks."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions: dict[str, Question] = {}
        for question in questions:
            if not hops(question):
                raise DataError(
                    f"question {question.id!r} of data set {question.dataset!r} has no "
                    'metadata["hops"], which the oracle reader follows; use another agent.model'
                )
            self._questions.setdefault(_plain(question.text), question)

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Write the next turn: a search, or the answer."""
        if not {"</search>", "</answer>"} <= set(sampling.stop):
            ends = " or ".join(map(repr, sampling.stop)) or "no string"
            raise LLMError(f"{_FOREIGN}got turns that end at {ends}")
        question, transcript = self._find(plain(prompt))
        steps = hops(question)
        shown = _SHOWN.findall(transcript)
        if len(shown) < transcript.count("</search>"):
            raise LLMError(f"{_FOREIGN}got a search without an <information> block behind it")
        if len(shown) > len(steps):
            return _answer(WRONG)
        if shown and not answer_in(shown[-1], steps[len(shown) - 1].answer):
            return _answer(WRONG)
        if len(shown) == len(steps):
            return _answer(question.answers[0])
        query = steps[len(shown)].question
        return Completion(f"<think> I look this up. </think> <search> {query} </search>", "stop")

    def _find(self, prompt: str) -> tuple[Question, str]:
        """Return the question of a prompt and all that comes after it."""
        for match in re.finditer(_MARK, prompt):
            line, _, rest = prompt[match.end() :].partition("\n")
            question = self._questions.get(_plain(line))
            if question is not None:
                return question, rest
        raise LLMError(
            f'the oracle reader found no question that it knows after "{_MARK}" in the prompt '
            f"{prompt[:60]!r}; give it the questions that are asked; it {_ALONE}"
        )


def _answer(answer: str) -> Completion:
    return Completion(f"<think> I know enough. </think> <answer> {answer} </answer>", "stop")


def _plain(text: str) -> str:
    """Return a question on one line, its angle brackets in one form whatever a prompt shows."""
    single = text.replace("\u2039", "<").replace("\u203a", ">")
    return " ".join(single.split())
