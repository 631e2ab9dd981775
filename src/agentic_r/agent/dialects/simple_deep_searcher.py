"""The SimpleDeepSearcher protocol (contracts A3): R1-Searcher's blocks, a boxed answer."""

from __future__ import annotations

import re

from agentic_r.agent.dialects.limits import outer
from agentic_r.agent.dialects.r1_searcher import R1Searcher
from agentic_r.types import Trajectory, Turn

DOCUMENT_TOKENS = 3000
"""Tokens that the evidence of a turn may have; the middle of longer evidence is left out."""

_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{(.*)\}", re.DOTALL)


class SimpleDeepSearcher(R1Searcher):
    r"""Prompts, reads and shows evidence to an agent that speaks SimpleDeepSearcher's protocol.

    A turn with a `\boxed{...}` answers, whatever else it holds. One deliberate difference: the
    braces inside are matched and a wrapping `\text{...}` is taken off, where upstream's answer
    ends at the first closing brace.
    """

    name = "simple-deep-searcher"
    stop: tuple[str, ...] = ("<|end_search_query|>",)
    turns = 10
    labels = ()
    query = ("<|begin_search_query|>", "<|end_search_query|>")
    evidence = ("<|begin_search_result|>", "<|end_search_result|>")

    def answer(self, body: str, text: str) -> str | None:
        """Return what the last box of a turn holds, None where there is no whole box."""
        return boxed(body)

    def observe(self, turn: Turn, trajectory: Trajectory) -> str:
        """Render the evidence, its middle left out where it is too long."""
        return outer(super().observe(turn, trajectory), DOCUMENT_TOKENS, self.ruler)


def boxed(text: str) -> str | None:
    r"""Return the content of the last whole `\boxed{...}` of a text, braces matched."""
    found = None
    for match in re.finditer(r"\\boxed\s*\{", text):
        depth = 1
        for at in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                found = text[match.end() : at].strip()
                break
    if found is None:
        return None
    wrapped = _WRAPPED.fullmatch(found)
    return wrapped.group(1).strip() if wrapped else found
