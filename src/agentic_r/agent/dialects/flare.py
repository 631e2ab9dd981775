"""FLARE: the model writes ahead, and a sentence that it is unsure of is searched for.

A sentence is unsure where a token of it is no likelier than `THRESHOLD`. What it is sure of in it
is put to the retriever, and the sentence is written anew with what was found; that one stays,
whatever its probabilities. So log-probabilities are needed of the model.
"""

from __future__ import annotations

import math
import re

from agentic_r.agent.dialects.limits import Estimate
from agentic_r.agent.dialects.speech import is_last, unread, without_end
from agentic_r.agent.dialects.text import TextDialect
from agentic_r.errors import LLMError
from agentic_r.protocols import Completion
from agentic_r.types import Search, Trajectory, Turn

THRESHOLD = 0.2
SENTENCES = 5

_BREAK = re.compile(r"(?<=[^A-Z].[.?]) +")
_FINAL = re.compile(r"\bthe (?:final )?answer is:?[ \t]*(.*)", re.IGNORECASE)


class Flare(TextDialect):
    """Prompts, reads and shows evidence by the FLARE protocol.

    `turns` calls write at least `turns` // 2 sentences, since each may be written twice.
    """

    name = "flare"
    stop: tuple[str, ...] = ("\n\n",)
    turns = 2 * SENTENCES
    needs = frozenset(("logprobs",))
    sections = (("user", ("question", "passages")),)
    labels = ("Question", "Answer", "the answer is", "the final answer is")

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read the first sentence of what was written: kept, searched for, or the answer.

        Raises LLMError where the completion has no log-probabilities.
        """
        if completion.logprobs is None:
            raise LLMError("flare needs log-probabilities, and the model gave none with its text")
        body = without_end(completion.text).strip()
        sentence = _BREAK.split(body, maxsplit=1)[0].strip()
        if not sentence:
            return unread(completion.text, completion.finish)
        searched = bool(trajectory.turns) and bool(trajectory.turns[-1].searches)
        if not searched and (query := self._unsure(sentence, body, completion.logprobs)):
            return Turn(sentence, "search", (Search(query, ""),))
        final = _FINAL.search(sentence)
        if final is not None and final.group(1).strip(" ."):
            return Turn(sentence, "answer", answer=final.group(1).strip().removesuffix(".").strip())
        kept = sum(not turn.searches for turn in trajectory.turns) + 1
        if kept >= SENTENCES or is_last(trajectory, self.turns):
            return Turn(sentence, "spent")
        ended = sentence == body and completion.finish == "eos"
        return Turn(sentence, "invalid" if ended else "continue")

    def values(self, trajectory: Trajectory) -> dict[str, str]:
        """Return the question and, where the last sentence was searched for, what was found."""
        turns = trajectory.turns
        passages = ""
        if turns and turns[-1].searches:
            before = Trajectory(trajectory.id, trajectory.question, turns[:-1])
            passages = self.seen(turns[-1], before)
        return {**super().values(trajectory), "passages": passages}

    def transcript(self, trajectory: Trajectory) -> str:
        """Return the sentences that stay."""
        return "".join(f" {turn.text}" for turn in trajectory.turns if not turn.searches)

    def reasoning(self, turn: Turn) -> str:
        """Return nothing: the sentence is the query."""
        return ""

    def _unsure(self, sentence: str, body: str, logprobs: tuple[float, ...]) -> str:
        """Return the query for a sentence with an unlikely token, "" for one without."""
        spans = list((self.ruler or Estimate()).spans(sentence))
        # Without the agent's own tokens, the sentence's share of the text is its share of them.
        known = self.ruler is not None and len(spans) <= len(logprobs)
        share = math.ceil(len(logprobs) * len(sentence) / len(body))
        odds = [math.exp(value) for value in logprobs[: len(spans) if known else share]]
        if all(each > THRESHOLD for each in odds):
            return ""
        if not known:
            return sentence
        sure = [sentence[a:b] for (a, b), each in zip(spans, odds, strict=True) if each > THRESHOLD]
        return " ".join(" ".join(sure).split())
