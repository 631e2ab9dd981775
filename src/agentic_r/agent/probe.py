"""Finds out what a server really does: servers silently ignore what they do not support.

About ten requests of at most twelve tokens each, once per server; nothing is believed that the
answer does not show.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from agentic_r.agent.wire import CHAT, IDS, INCLUDE, TEXT, Habit, choice_of, text_of
from agentic_r.errors import LLMError, OutageError
from agentic_r.protocols import Capabilities

Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Posts a body to a path; fields that the server refuses by name are left out."""

WORDS = "one two three four five six seven eight one two three four five six seven eight one two"
TOKENS = 12
TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
    },
}


class Manners(msgspec.Struct, frozen=True):
    """What a probe found out about text: what happens at a stop string, what can be told."""

    habit: Habit
    tokens: bool = False
    logprobs: bool = False
    text: bool = True


async def text_manners(ask: Ask) -> Manners:
    """Let the server write freely, then stop it at something that it wrote.

    Raises RefusedError where the server completes no text at all.
    """
    body = {"prompt": WORDS, "max_tokens": TOKENS, "temperature": 0.0}
    free = choice_of(await ask(TEXT, {**body, "logprobs": 1, IDS: True}))
    written = text_of(free)
    stop = _middle(written)
    cut = await ask(TEXT, {**body, "stop": [stop or "</search>"], INCLUDE: True})
    habit = "unknown" if stop is None else _habit(text_of(choice_of(cut)), written, stop)
    logprobs = free.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    return Manners(habit, bool(free.get("token_ids")), bool(values))


async def capabilities_of(ask: Ask, manners: Manners) -> Capabilities:
    """Check everything else that a server might be able to do."""
    text = manners.text
    chat = await _chat(ask)
    return Capabilities(
        text=text,
        ids=text and await _ids(ask),
        chat=chat,
        begun=chat and await _begun(ask),
        tools=chat and await _tools(ask),
        stop=manners.habit != "ignores",
        tokens=manners.tokens,
        logprobs=manners.logprobs,
        seed=text and await _seed(ask),
        n=text and await _n(ask),
    )


async def _tried(ask: Ask, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """Ask for something that may be refused; None where it was, or made the server fail."""
    try:
        reply = await ask(path, {"temperature": 0.0, **body})
        choice_of(reply)
        return reply
    except OutageError:
        raise
    except LLMError:
        return None


async def _ids(ask: Ask) -> bool:
    """A server that takes ids reads exactly as many tokens as it was sent."""
    ids = [3, 4, 5, 6, 7, 8, 9]
    reply = await _tried(ask, TEXT, {"prompt": ids, "max_tokens": 1})
    return reply is not None and _read(reply) in (len(ids), None)


async def _n(ask: Ask) -> bool:
    body = {"prompt": WORDS, "max_tokens": 1, "n": 2, "temperature": 1.0}
    reply = await _tried(ask, TEXT, body)
    return reply is not None and len(reply["choices"]) == 2


async def _seed(ask: Ask) -> bool:
    """The same seed draws the same, and another seed something else: some only decode greedily."""
    body = {"prompt": WORDS, "max_tokens": TOKENS, "temperature": 1.5}
    replies = [await _tried(ask, TEXT, {**body, "seed": seed}) for seed in (7, 7, 8)]
    texts = [text_of(choice_of(reply)) for reply in replies if reply is not None]
    return len(texts) == 3 and texts[0] == texts[1] != texts[2]


async def _chat(ask: Ask) -> bool:
    messages = [{"role": "user", "content": "Say yes."}]
    reply = await _tried(ask, CHAT, {"messages": messages, "max_tokens": 4})
    return reply is not None and isinstance(reply["choices"][0].get("message"), dict)


async def _tools(ask: Ask) -> bool:
    messages = [{"role": "user", "content": "Say yes."}]
    body = {"messages": messages, "max_tokens": 4, "tools": [TOOL]}
    return await _tried(ask, CHAT, body) is not None


async def _begun(ask: Ask) -> bool:
    """A message that is continued is not closed, so that fewer tokens are read."""
    messages = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": WORDS}]
    body = {"messages": messages, "max_tokens": 1}
    how = {"continue_final_message": True, "add_generation_prompt": False}
    continued = await _tried(ask, CHAT, {**body, **how})
    closed = await _tried(ask, CHAT, body)
    if continued is None or _read(continued) is None:
        return False
    return closed is None or (_read(closed) or 0) > (_read(continued) or 0)


def _read(reply: dict[str, Any]) -> int | None:
    """Return how many tokens the server says that it read."""
    usage = reply.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _middle(text: str) -> str | None:
    """Return a short piece of `text` that first occurs well inside it, or None."""
    for at in range(max(1, len(text) // 4), len(text) - 4):
        piece = text[at : at + 3]
        plain = piece.isascii() and piece.isprintable() and piece.strip() == piece
        if plain and text.find(piece) == at and text[:at].strip():
            return piece
    return None


def _habit(text: str, free: str, stop: str) -> Habit:
    """Compare what came with a stop string to what came without; outer spaces do not count."""
    at = free.find(stop)
    if text.strip() == free[: at + len(stop)].strip():
        return "keeps"
    if stop in text:
        return "ignores"
    return "trims" if text.strip() == free[:at].strip() else "unknown"
