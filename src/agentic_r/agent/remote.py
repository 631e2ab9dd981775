"""A language model behind any server that speaks the OpenAI completions protocol.

Servers differ in what they do at a stop string: some keep it, most trim it, some ignore it. A
probe finds out once, and every completion is made good, so that its text keeps the stop string
and holds nothing after it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec

from agentic_r.agent.connection import Connection, RefusedError, setting
from agentic_r.errors import LLMError
from agentic_r.protocols import Completion, Sampling

Habit = Literal["keeps", "trims", "ignores", "unknown"]
"""What a server does with a stop string."""

INCLUDE = "include_stop_str_in_output"
PROBE = "one two three four five six seven eight one two three four five six seven eight one two"
PROBE_TOKENS = 12

FORMAT = "response_format"

OPTIONAL = ("max_tokens", "temperature", "top_p", "seed", "system role")
"""What some chat servers refuse by name; without it they answer all the same."""


class Manners(msgspec.Struct, frozen=True):
    """What the probe found out: the stop habit, and whether the server may be asked to keep."""

    habit: Habit
    include: bool


class RemoteLLM:
    """Completes prompts and answers chats at `url` (with or without its final /v1).

    `model` is the server's name of the model, by default the first that it lists. At most
    `concurrency` requests are open at once, each may take `timeout` seconds and is tried
    1 + `retries` times (fewer before its first answer): lost connections, 429 and 5xx are tried
    again after a growing, jittered pause. The key is read from the environment variable
    `api_key_env`, never from a file. `role` says whose settings the messages name.
    """

    def __init__(
        self,
        url: str,
        model: str = "",
        *,
        concurrency: int = 32,
        timeout: float = 120.0,
        api_key_env: str = "",
        retries: int = 6,
        pause: float = 0.5,
        role: Literal["agent", "judge"] = "agent",
    ) -> None:
        self.connection = Connection(
            url,
            concurrency=concurrency,
            timeout=timeout,
            api_key_env=api_key_env,
            retries=retries,
            pause=pause,
            role=role,
        )
        self._role = role
        self._refused: frozenset[str] = frozenset()
        self.url = self.connection.url
        self.model = model
        self.manners: Manners | None = None
        self._asking: asyncio.Task[None] | None = None

    async def complete(self, prompt: str, sampling: Sampling) -> Completion:
        """Continue `prompt`.

        Raises LLMError where the server is slow or wrong, OutageError where it is down.
        """
        await self._ready(probe=True)
        manners = self.manners or Manners("unknown", include=False)
        choice = await self._completion(prompt, sampling, manners.include)
        return made_good(choice, sampling.stop, manners.habit)

    async def chat(self, system: str, user: str, sampling: Sampling) -> str:
        """Answer `user` under `system`. Raises LLMError as `complete` does."""
        await self._ready(probe=False)
        return self._said(await self._chat(system, user, _settings(sampling)), sampling)

    async def structured(
        self, system: str, user: str, sampling: Sampling, schema: dict[str, Any]
    ) -> str:
        """Answer as `chat` does, held to a JSON schema unless this server refuses schemas.

        The first refusal that goes away without the schema is remembered.
        """
        await self._ready(probe=False)
        if FORMAT in self._refused:
            return await self.chat(system, user, sampling)
        format = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
        try:
            choice = await self._chat(system, user, _settings(sampling) | {FORMAT: format})
        except RefusedError:
            text = await self.chat(system, user, sampling)
            self._refused |= {FORMAT}
            return text
        return self._said(choice, sampling)

    async def named(self) -> str:
        """Return the server's name of the model. Raises LLMError where it lists none."""
        await self._ready(probe=False)
        return self.model

    def _said(self, choice: dict[str, Any], sampling: Sampling) -> str:
        """Return the text of a chat reply. Raises LLMError where there is none."""
        message = choice.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str):
            hint = ""
            if choice.get("finish_reason") == "length":
                key = "utility.judge_tokens" if self._role == "judge" else "max_tokens"
                hint = f"; it used up all {sampling.max_tokens} tokens, so raise {key}"
            raise LLMError(
                f"{self.url}: got a chat reply without text, expected message.content{hint}"
            )
        return content

    async def _chat(self, system: str, user: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Ask for a chat reply, without what this server has refused by name before."""
        while True:
            body = {key: value for key, value in settings.items() if key not in self._refused}
            if "max_tokens" in self._refused:
                body["max_completion_tokens"] = settings["max_tokens"]
            body |= {"model": self.model, "messages": self._messages(system, user)}
            try:
                reply = await self.connection.post("/chat/completions", body)
                return _choice(reply, self.url)
            except RefusedError as error:
                refused = {key for key in OPTIONAL if key in str(error).lower()} - self._refused
                if not refused:
                    raise
                self._refused |= refused

    def _messages(self, system: str, user: str) -> list[dict[str, str]]:
        if "system role" in self._refused:
            return [{"role": "user", "content": f"{system}\n\n{user}"}]
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]

    async def probe(self) -> Manners:
        """Find out what the server does with stop strings, unless it is known already."""
        await self._ready(probe=True)
        return self.manners or Manners("unknown", include=False)

    async def aclose(self) -> None:
        """Close the connections of this event loop; the model can be used again afterwards."""
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
        self._asking = None
        await self.connection.aclose()

    async def _ready(self, *, probe: bool) -> None:
        """Learn the model's name and the server's manners, once for all that wait."""
        while not self.model or (probe and self.manners is None):
            if (
                self._asking is None
                or self._asking.done()
                or self._asking.get_loop() is not asyncio.get_running_loop()
            ):
                self._asking = asyncio.ensure_future(self._ask(probe))
            await asyncio.shield(self._asking)

    async def _ask(self, probe: bool) -> None:
        if not self.model:
            listed = await self.connection.get("/models")
            rows = listed.get("data")
            first = rows[0] if isinstance(rows, list) and rows else None
            name = first.get("id") if isinstance(first, dict) else None
            if not isinstance(name, str):
                raise LLMError(
                    f"{self.url}/models: got no model name, expected a list with ids; set "
                    f"{setting(self._role, 'name')} to the model's name on this server"
                )
            self.model = name
        if probe and self.manners is None:
            self.manners = await self._probe()

    async def _probe(self) -> Manners:
        """Let the server write freely, then stop it at something that it wrote."""
        free = _text(await self._completion(PROBE, Sampling(max_tokens=PROBE_TOKENS), False))
        stop = _middle(free)
        sampling = Sampling(max_tokens=PROBE_TOKENS, stop=(stop or "</search>",))
        include = True
        try:
            text = _text(await self._completion(PROBE, sampling, True))
        except RefusedError:
            include = False
            text = _text(await self._completion(PROBE, sampling, False))
        return Manners("unknown" if stop is None else _habit(text, free, stop), include)

    async def _completion(self, prompt: str, sampling: Sampling, include: bool) -> dict[str, Any]:
        body = {**_settings(sampling), "model": self.model, "prompt": prompt}
        if include and sampling.stop:
            body[INCLUDE] = True
        return _choice(await self.connection.post("/completions", body), self.url)


def made_good(choice: dict[str, Any], stop: tuple[str, ...], habit: Habit) -> Completion:
    """Make a completion of a server's choice: cut at the first stop string, or put it back.

    A trimmed stop string is put back when the server says that it stopped: the one that it
    names, else the one whose tag is still open in the text (`</search>` closes `<search>`).
    """
    text = _text(choice)
    ends = [(text.find(string), string) for string in stop if string in text]
    if ends:
        at, string = min(ends)
        return Completion(text[: at + len(string)], "stop")
    reason = choice.get("finish_reason")
    if reason == "length":
        return Completion(text, "length")
    named = choice.get("stop_reason", choice.get("matched_stop"))
    if isinstance(named, str) and named in stop:
        return Completion(text + named, "stop")
    if reason == "stop" and habit in ("trims", "unknown"):
        string = _open(text, stop)
        if string:
            return Completion(text + string, "stop")
    return Completion(text, "eos")


def _open(text: str, stop: tuple[str, ...]) -> str:
    """Return the stop string whose opening tag is the last that is open, or ""."""
    found = (-1, "")
    for string in stop:
        if string.startswith("</"):
            at = text.rfind(f"<{string[2:]}")
            found = max(found, (at, string))
    return found[1] if found[0] >= 0 else ""


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


def _settings(sampling: Sampling) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.stop:
        settings["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        settings["seed"] = sampling.seed
    return settings


def _choice(reply: dict[str, Any], url: str) -> dict[str, Any]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise LLMError(f"{url}: got a reply without choices, expected an OpenAI-compatible server")
    choice: dict[str, Any] = choices[0]
    return choice


def _text(choice: dict[str, Any]) -> str:
    text = choice.get("text")
    if not isinstance(text, str):
        raise LLMError("got a completion without text, expected an OpenAI-compatible server")
    return text
