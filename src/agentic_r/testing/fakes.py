"""A language model, a retriever and a judge that do what they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agentic_r.errors import LLMError
from agentic_r.protocols import Capabilities, Completion, JudgeRequest, Prompt, Sampling
from agentic_r.types import Hit, Passage

Said = str | Completion
Script = Mapping[str, Said] | Sequence[Said] | Callable[[str], Said]


def plain(prompt: Prompt) -> str:
    """Show a prompt as text: a conversation as one `role: content` a line, then what is begun."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, tuple):
        return " ".join(map(str, prompt))
    lines = [f"{message.role}: {message.content}" for message in prompt.messages]
    return "\n".join([*lines, *([f"assistant: {prompt.begun}"] if prompt.begun else [])])


class ScriptedLLM:
    """A model that writes what a script says, cut at the first stop string like a real one.

    `script` is a function of the prompt; or a mapping from what a prompt ends with (spaces
    aside) to the text, the longest that fits; or a list of texts, one a call. A Completion in
    place of a text is returned as it is, for tool calls and log-probabilities. Where the script
    holds nothing for a prompt, LLMError is raised. The script sees a conversation as `plain` shows
    it; `given` are the prompts as they came, `prompts` what the script saw, `samplings` the
    settings.
    """

    capabilities = Capabilities(
        ids=True, chat=True, begun=True, tools=True, logprobs=True, seed=True
    )

    def __init__(self, script: Script) -> None:
        self._script = script
        self.given: list[Prompt] = []
        self.prompts: list[str] = []
        self.samplings: list[Sampling] = []

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Return the script's text for this prompt."""
        self.given.append(prompt)
        self.prompts.append(plain(prompt))
        self.samplings.append(sampling)
        said = self._said(self.prompts[-1])
        if isinstance(said, Completion):
            return said
        ends = [(said.find(stop), stop) for stop in sampling.stop if stop in said]
        if not ends:
            return Completion(said, "eos")
        at, stop = min(ends)
        return Completion(said[: at + len(stop)], "stop", stop=stop)

    async def chat(self, system: str, user: str, sampling: Sampling) -> str:
        """Return the script's text for this user message."""
        return (await self.complete(user, sampling)).text

    def _said(self, prompt: str) -> Said:
        if callable(self._script):
            return self._script(prompt)
        if isinstance(self._script, Mapping):
            fitting = [end for end in self._script if prompt.rstrip().endswith(end.rstrip())]
            if fitting:
                return self._script[max(fitting, key=len)]
        elif len(self.prompts) <= len(self._script):
            return self._script[len(self.prompts) - 1]
        raise LLMError(f"the script holds nothing for a prompt that ends {prompt[-60:]!r}")


class TableRetriever:
    """A retriever that looks its hits up: `table` maps each string to its passages, best first.

    A string that is not in the table gets `default`. Scores fall from 1 by rank. `calls` records
    the batches of strings.
    """

    def __init__(
        self, table: Mapping[str, Sequence[Passage]], default: Sequence[Passage] = ()
    ) -> None:
        self._table = table
        self._default = default
        self.calls: list[list[str]] = []

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return the first `k` passages of each string's row."""
        self.calls.append(list(queries))
        rows = [self._table.get(query, self._default) for query in queries]
        return [
            [Hit(passage, 1 / (rank + 1)) for rank, passage in enumerate(row[:k])] for row in rows
        ]


class FixedJudge:
    """A judge with fixed scores: `scores` maps a passage's text to 0-100, or is one number.

    A passage that the mapping lacks gets `default`; None stands for a score that cannot be had.
    `requests` records what was asked.
    """

    def __init__(
        self, scores: Mapping[str, float | None] | float, default: float | None = 0.0
    ) -> None:
        self._scores = scores
        self._default = default
        self.requests: list[JudgeRequest] = []

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Return the fixed score of each passage of the request."""
        self.requests.append(request)
        if isinstance(self._scores, Mapping):
            return [self._scores.get(text, self._default) for text in request.passages]
        return [self._scores] * len(request.passages)
