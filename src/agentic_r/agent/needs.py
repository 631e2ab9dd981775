"""What a piece of work needs of a language model, checked before the work begins."""

from __future__ import annotations

from collections.abc import Iterable

from agentic_r.errors import ConfigError
from agentic_r.protocols import LLM, Capabilities, Conversation, Prompt

ABOUT = {
    "text": "continue plain text (/v1/completions)",
    "ids": "take token ids in place of text",
    "chat": "answer a conversation",
    "begun": "go on with an answer that is begun",
    "tools": "be offered tools",
    "stop": "stop at stop strings",
    "tokens": "tell the token ids that it sampled",
    "logprobs": "tell log-probabilities",
    "seed": "sample the same again from the same seed",
    "n": "give several samples a request",
}
"""What each capability means, for messages."""


def capabilities(llm: LLM) -> Capabilities:
    """Return what a model says it can do; one that says nothing takes text alone."""
    said: Capabilities = getattr(llm, "capabilities", None) or Capabilities()
    return said


def needed(prompt: Prompt, more: Iterable[str] = (), *, keep_tokens: bool = False) -> list[str]:
    """Name the capabilities that a prompt like this one needs, and those of `more`."""
    names = list(more)
    if isinstance(prompt, Conversation):
        names += [
            "chat",
            *(["tools"] if prompt.tools else []),
            *(["begun"] if prompt.begun else []),
        ]
    else:
        names.append("text" if isinstance(prompt, str) else "ids")
    if keep_tokens:
        names += ["tokens", "logprobs"]
    return list(dict.fromkeys(names))


async def require(llm: LLM, names: Iterable[str], what: str) -> Capabilities:
    """Probe a model where it can be, and refuse it where it lacks one of the capabilities.

    Raises ConfigError naming the model, `what` needs the capability, and what it means.
    """
    probe = getattr(llm, "probe", None)
    can: Capabilities = capabilities(llm) if probe is None else await probe()
    lacking = [name for name in names if not getattr(can, name)]
    if lacking:
        which = getattr(llm, "url", None) or getattr(llm, "name", None) or type(llm).__name__
        cannot = " or ".join(ABOUT.get(name, name) for name in lacking)
        raise ConfigError(
            f"agent.model: {which} cannot {cannot}, which {what} needs ({', '.join(lacking)}); "
            "take another model, server or dialect (docs/backends.md)"
        )
    return can
