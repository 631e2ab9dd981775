"""A language model behind any server, or servers, that speak the OpenAI interface."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from agentic_r.agent.answered import Answered, Usage
from agentic_r.agent.connection import RefusedError, TooLongError, setting
from agentic_r.agent.pool import Pool
from agentic_r.agent.probe import Manners, capabilities_of, text_manners
from agentic_r.agent.wire import (
    CHAT,
    FORMAT,
    body_of,
    completion_of,
    path_of,
    refused_by_name,
)
from agentic_r.errors import LLMError
from agentic_r.protocols import Capabilities, Completion, Conversation, Message, Prompt, Sampling

_LIMIT = re.compile(r"maximum context length (?:is|of) (\d+)|limit of (\d+) tokens", re.IGNORECASE)
_PROMPT = re.compile(
    r"\((\d+) in the (?:messages|prompt)|prompt contains (?:at least )?(\d+)"
    r"|(\d+) (?:input|prompt) tokens|request has (\d+)",
    re.IGNORECASE,
)


class RemoteLLM:
    """Completes prompts and answers chats at `url` (with or without its final /v1).

    `url` may be several addresses of the same model, a list or separated by commas, between
    which requests are balanced. `model` is the server's name of the model, by default the first
    that it lists. At most `concurrency` requests are open at once per server, each may take
    `timeout` seconds and is tried 1 + `retries` times (fewer before the first answer of all):
    lost connections, 429 and 5xx are tried again after a growing, jittered pause. The key is read
    from the environment variable `api_key_env`, never from a file. `log` is a file in which every
    answer is kept, so that it is never paid for again; `price` is per million tokens read and
    written. `role` says whose settings the messages name.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        model: str = "",
        *,
        concurrency: int = 32,
        timeout: float = 120.0,
        api_key_env: str = "",
        retries: int = 6,
        pause: float = 0.5,
        role: Literal["agent", "judge"] = "agent",
        log: Path | str | None = None,
        price: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        urls = url.split(",") if isinstance(url, str) else list(url)
        self.pool = Pool(
            [each.strip() for each in urls if each.strip()] or [""],
            concurrency=concurrency,
            timeout=timeout,
            api_key_env=api_key_env,
            retries=retries,
            pause=pause,
            role=role,
        )
        self.url = self.pool.url
        self.capacity = self.pool.capacity
        self.model = model
        self._by_name = bool(model)
        self.answered = Answered(log, price)
        self.manners: Manners | None = None
        self.capabilities: Capabilities | None = None
        self._role = role
        self._refused: dict[str, frozenset[str]] = {}
        self._once: dict[str, asyncio.Task[Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def usage(self) -> Usage:
        """What was asked of the servers so far, with this log in earlier processes too."""
        return self.answered.usage

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Continue `prompt`; what was answered before is not asked again.

        Raises LLMError where the server is slow or wrong, ContextError where the prompt is too
        long for it, OutageError where it is down.
        """
        await self._known()
        key = self.answered.key(self.model, prompt, sampling)
        found = self.answered.find(key)
        if found is not None:
            return found
        done: Completion = await self._shared(
            f"answer {key}", lambda: self._answer(key, prompt, sampling)
        )
        return done

    async def chat(self, system: str, user: str, sampling: Sampling) -> str:
        """Answer `user` under `system`. Raises LLMError as `complete` does."""
        messages = (Message("system", system), Message("user", user))
        return (await self.complete(Conversation(messages), sampling)).text

    async def structured(
        self, system: str, user: str, sampling: Sampling, schema: dict[str, Any]
    ) -> str:
        """Answer as `chat` does, held to a JSON schema unless this server refuses schemas.

        The first refusal that goes away without the schema is remembered.
        """
        if FORMAT in self._refused.get(CHAT, ()):
            return await self.chat(system, user, sampling)
        held = msgspec.structs.replace(sampling, schema=msgspec.json.encode(schema).decode())
        try:
            return await self.chat(system, user, held)
        except TooLongError:
            raise
        except RefusedError:
            text = await self.chat(system, user, sampling)
            self._refused[CHAT] = self._refused.get(CHAT, frozenset()) | {FORMAT}
            return text

    async def named(self) -> str:
        """Return what identifies the model: its name where one was given, else with the address.

        Two servers may list different models by one name. Raises LLMError where it lists none.
        """
        await self._known()
        return self.model if self._by_name else f"{self.model} at {self.url}"

    async def probe(self) -> Capabilities:
        """Find out what the server can do, unless it is known already.

        Raises LLMError where it is down, or completes neither text nor chats.
        """
        if self.capabilities is None:
            await self._known()
            await self._shared("probe", self._probe)
        assert self.capabilities is not None
        return self.capabilities

    async def aclose(self) -> None:
        """Close the connections of this event loop; the model can be used again afterwards."""
        for task in self._once.values():
            if self._loop is asyncio.get_running_loop():
                task.cancel()
        self._once.clear()
        self.answered.close()
        await self.pool.aclose()

    async def _answer(self, key: str, prompt: Prompt, sampling: Sampling) -> Completion:
        if self.manners is None and not isinstance(prompt, Conversation):
            await self._shared("manners", self._text_manners)
        reply = await self._fitted(prompt, sampling)
        habit = self.manners.habit if self.manners is not None else "unknown"
        try:
            done = completion_of(reply, prompt, sampling, habit)
        except LLMError as error:
            raise LLMError(f"{self.url}: {error}{self._hint(reply, sampling)}") from error
        self.answered.add(key, done)
        return done

    async def _fitted(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        """Ask; where the prompt fits and the new tokens do not, ask for as many as fit."""
        try:
            return await self._ask(path_of(prompt), prompt, sampling)
        except TooLongError as error:
            limit, used = _first(_LIMIT, str(error)), _first(_PROMPT, str(error))
            room = limit - used if limit and used else 0
            if not 0 < room < sampling.max_tokens:
                raise
            fewer = msgspec.structs.replace(sampling, max_tokens=room)
            return await self._ask(path_of(prompt), prompt, fewer)

    async def _ask(self, path: str, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        return await self._post(path, lambda refused: body_of(prompt, sampling, refused))

    async def _post(
        self,
        path: str,
        body: Callable[[frozenset[str]], dict[str, Any]],
        retries: int | None = None,
    ) -> dict[str, Any]:
        """Post what `body` makes, without what this server has refused by name before."""
        while True:
            before = self._refused.get(path, frozenset())
            try:
                whole = {**body(before), "model": self.model}
                return await self.pool.post(path, whole, retries=retries)
            except TooLongError:
                raise
            except RefusedError as error:
                named = refused_by_name(str(error)) - before
                if not named:
                    raise
                self._refused[path] = before | named

    async def _raw(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post a probe; a server that fails at it is not asked again and again."""

        def made(refused: frozenset[str]) -> dict[str, Any]:
            kept = {key: value for key, value in body.items() if key not in refused}
            if "max_tokens" in refused:
                kept["max_completion_tokens"] = body["max_tokens"]
            return kept

        return await self._post(path, made, retries=1)

    async def _text_manners(self) -> None:
        self.manners = await text_manners(self._raw)

    async def _probe(self) -> None:
        refusal: LLMError | None = None
        if self.manners is None:
            try:
                self.manners = await text_manners(self._raw)
            except RefusedError as error:
                refusal = error
        found = await capabilities_of(self._raw, self.manners or Manners("unknown", text=False))
        if refusal is not None and not found.chat:
            raise refusal
        self.capabilities = found

    async def _known(self) -> None:
        """Have the server say the model's name where none was given."""
        if not self.model:
            await self._shared("name", self._name)

    async def _name(self) -> None:
        listed = await self.pool.get("/models")
        rows = listed.get("data")
        first = rows[0] if isinstance(rows, list) and rows else None
        name = first.get("id") if isinstance(first, dict) else None
        if not isinstance(name, str):
            raise LLMError(
                f"{self.url}/models: got no model name, expected a list with ids; set "
                f"{setting(self._role, 'name')} to the model's name on this server"
            )
        self.model = name

    async def _shared(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something once for all that wait for it; it goes on when one of them is cancelled."""
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._once = asyncio.get_running_loop(), {}
        task = self._once.get(name)
        if task is None:
            task = self._once[name] = asyncio.ensure_future(work())
            task.add_done_callback(lambda _: self._once.pop(name, None))
        return await asyncio.shield(task)

    def _hint(self, reply: dict[str, Any], sampling: Sampling) -> str:
        """Say what to do where a model thought until its tokens were used up."""
        choices = reply.get("choices") or [{}]
        if not isinstance(choices[0], dict) or choices[0].get("finish_reason") != "length":
            return ""
        key = "utility.judge_tokens" if self._role == "judge" else "agent.max_tokens"
        return f"; it used up all {sampling.max_tokens} tokens, so raise {key}"


def _first(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.search(text)
    return int(next(group for group in match.groups() if group)) if match else 0
