"""The Search-R1 protocol in its evaluation form (contracts B8).

A turn is text that ends with a search or an answer. Evidence comes back as an information block
with one line per passage. Passages and questions are data: a protocol tag inside them is shown
in other brackets, so that no passage can end its block, start a search or forge an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from agentic_r.errors import ConfigError
from agentic_r.protocols import Completion
from agentic_r.types import Hit, Search, Trajectory, Turn

TAGS = ("think", "search", "information", "answer")
"""The tags of the protocol, in the order in which a turn uses them."""

_TAG = re.compile(rf"<(\s*/?\s*(?:{'|'.join(TAGS)})\b[^<>]*)>", re.IGNORECASE)
_SPECIAL = re.compile(r"<(\|[^<>|]*\|)>")
_SHOWN = "\u2039\\1\u203a"
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_SEARCH = re.compile(r"<search>(.*?)</search>", re.DOTALL)
_ENDS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>")


def neutralise(text: str) -> str:
    """Return `text` with protocol tags and chat control tokens in other brackets.

    The brackets are U+2039 and U+203A; other angle brackets stay. Nothing is removed, so pieces
    around a tag cannot join to a new one, and neutralising twice changes nothing.
    """
    return _SPECIAL.sub(_SHOWN, _TAG.sub(_SHOWN, text))


def default_prompt() -> str:
    """Return the packaged instruction; a released checkpoint wants the one it was trained on."""
    file = resources.files(__package__).joinpath("prompts", "search_r1.txt")
    return file.read_text(encoding="utf-8")


class SearchR1:
    """Prompts, reads and shows evidence to an agent that speaks the Search-R1 protocol.

    `prompt` is a template in which {question} stands for the question, without which it is
    refused (ConfigError). Other braces are left alone.
    """

    stop: tuple[str, ...] = ("</search>", "</answer>")
    turns = 5

    def __init__(self, prompt: str | None = None) -> None:
        self.template = default_prompt() if prompt is None else prompt
        if "{question}" not in self.template:
            raise ConfigError(
                f"the agent prompt has no {{question}} in it (it begins {self.template[:40]!r}); "
                "put {question} where the question belongs"
            )

    def prompt(self, trajectory: Trajectory) -> str:
        """Render the exact text that the model continues: instruction, turns, evidence."""
        head = self.template.replace("{question}", neutralise(trajectory.question.text))
        return head + "".join(self._shown(turn, trajectory) for turn in trajectory.turns)

    def read(self, completion: Completion, trajectory: Trajectory) -> Turn:
        """Read one model turn by the rules of contracts B8.

        A turn that ends with </answer> answers with the last answer in it, one that ends with
        </search> searches for the last query in it, possibly empty. The rest is "length" when
        the tokens ran out and "invalid" otherwise. One deliberate difference: a closing tag
        without its opening one is invalid, where upstream answers "None".
        """
        text = completion.text
        body = _without_end(text)
        if body.endswith("</answer>") or ("</answer>" in body and body != text.rstrip()):
            found = _ANSWER.findall(body)
            if found:
                return Turn(text, "answer", answer=found[-1].strip())
        if body.endswith("</search>"):
            found = _SEARCH.findall(body)
            if found:
                return Turn(text, "search", (Search(found[-1].strip(), ""),))
        return Turn(text, "length" if completion.finish == "length" else "invalid")

    def observe(self, turn: Turn, trajectory: Trajectory) -> str:
        """Render each search's evidence as a block that follows the agent's text."""
        return "".join(self._block(search.hits) for search in turn.searches)

    def _block(self, hits: Sequence[Hit]) -> str:
        documents = "".join(
            f'Doc {number}(Title: "{neutralise(hit.passage.title)}") '
            f"{neutralise(hit.passage.text)}\n"
            for number, hit in enumerate(hits, start=1)
        )
        return f"\n\n<information>\n{documents}\n</information>\n\n"

    def _shown(self, turn: Turn, trajectory: Trajectory) -> str:
        observation = turn.observation
        if observation is None:
            observation = self.observe(turn, trajectory)
        return turn.text.strip() + observation


def _without_end(text: str) -> str:
    """Drop trailing space and end-of-text markers that some servers leave in the text."""
    body = text.rstrip()
    while body.endswith(_ENDS):
        body = body[: body.rfind("<|")].rstrip()
    return body
