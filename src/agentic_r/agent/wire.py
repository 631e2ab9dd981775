"""The OpenAI interface on the wire: what is asked, and what the answers mean.

Servers differ in what they do at a stop string: some keep it, most trim it, some ignore it. Every
completion is made good, so that its text keeps the stop string and holds nothing after it.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from agentic_r.agent.chat import tool_schema, with_calls
from agentic_r.errors import LLMError
from agentic_r.protocols import Completion, Conversation, Message, Prompt, Sampling, ToolCall

Habit = Literal["keeps", "trims", "ignores", "unknown"]
"""What a server does with a stop string."""

INCLUDE = "include_stop_str_in_output"
IDS = "return_token_ids"
FORMAT = "response_format"

TEXT, CHAT = "/completions", "/chat/completions"

OPTIONAL = (
    *("max_tokens", "temperature", "top_p", "seed", "stop", "system role"),
    *(INCLUDE, IDS, FORMAT, "logprobs"),
)
"""What some servers refuse by name; without it they answer all the same."""


def refused_by_name(message: str) -> frozenset[str]:
    """Return the optional parts of a request that a server's refusal names."""
    said = message.lower()
    return frozenset(name for name in OPTIONAL if re.search(rf"(?<!\w){name}(?!\w)", said))


def path_of(prompt: Prompt) -> str:
    """Return where a prompt is sent to."""
    return CHAT if isinstance(prompt, Conversation) else TEXT


def body_of(prompt: Prompt, sampling: Sampling, refused: frozenset[str]) -> dict[str, Any]:
    """Return the request for a prompt, all but the model, without what the server refused."""
    body: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    chat = isinstance(prompt, Conversation)
    if sampling.stop:
        body |= {"stop": list(sampling.stop), INCLUDE: True}
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.tokens:
        body |= {"logprobs": True if chat else 1, IDS: True}
    if sampling.schema and chat:
        schema = msgspec.json.decode(sampling.schema)
        body[FORMAT] = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    body = {key: value for key, value in body.items() if key not in refused}
    if "max_tokens" in refused:
        body["max_completion_tokens"] = sampling.max_tokens
    if isinstance(prompt, Conversation):
        return body | _chat(prompt, "system role" in refused)
    return body | {"prompt": prompt if isinstance(prompt, str) else list(prompt)}


def _chat(prompt: Conversation, no_system: bool) -> dict[str, Any]:
    messages = [_message(message) for message in prompt.messages]
    if no_system and len(messages) > 1 and messages[0]["role"] == "system":
        joined = f"{messages[0]['content']}\n\n{messages[1]['content']}"
        messages = [{**messages[1], "content": joined}, *messages[2:]]
    body: dict[str, Any] = {}
    if prompt.begun:
        messages.append({"role": "assistant", "content": prompt.begun})
        body = {"continue_final_message": True, "add_generation_prompt": False}
    if prompt.tools:
        body["tools"] = [tool_schema(tool) for tool in prompt.tools]
    return body | {"messages": messages}


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        made["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    if message.role == "tool":
        made["tool_call_id"] = message.call_id
    return made


def completion_of(
    reply: dict[str, Any], prompt: Prompt, sampling: Sampling, habit: Habit
) -> Completion:
    """Make a completion of a server's reply. Raises LLMError where it holds none."""
    choice = choice_of(reply)
    done = made_good(choice, sampling.stop, habit)
    usage = reply.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    done = msgspec.structs.replace(
        done,
        tokens=_tokens(choice),
        logprobs=_logprobs(choice),
        prompt_tokens=_count(counts.get("prompt_tokens")),
        new_tokens=_count(counts.get("completion_tokens")),
    )
    if not isinstance(prompt, Conversation) or not prompt.tools:
        return done
    calls = _calls(choice)
    if calls:
        return msgspec.structs.replace(done, finish="calls", stop="", calls=calls)
    return with_calls(done)


def choice_of(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the first choice of a reply. Raises LLMError where there is none."""
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise LLMError("got a reply without choices, expected an OpenAI-compatible server")
    choice: dict[str, Any] = choices[0]
    return choice


def text_of(choice: dict[str, Any]) -> str:
    """Return the text of a choice; that of a chat message may be missing beside tool calls."""
    message = choice.get("message")
    if isinstance(message, dict):
        text = message.get("content")
        text = "" if text is None and message.get("tool_calls") else text
    else:
        text = choice.get("text")
    if not isinstance(text, str):
        raise LLMError(
            "got a chat reply without text, expected message.content"
            if isinstance(message, dict)
            else "got a completion without text, expected an OpenAI-compatible server"
        )
    return text


def made_good(choice: dict[str, Any], stop: tuple[str, ...], habit: Habit) -> Completion:
    """Make a completion of a server's choice: cut at the first stop string, or put it back.

    A trimmed stop string is put back when the server says that it stopped: the one that it
    names, else the one whose tag is still open in the text (`</search>` closes `<search>`).
    """
    text = text_of(choice)
    ends = [(text.find(string), string) for string in stop if string in text]
    if ends:
        at, string = min(ends)
        return Completion(text[: at + len(string)], "stop", stop=string)
    reason = choice.get("finish_reason")
    if reason == "length":
        return Completion(text, "length")
    named = choice.get("stop_reason", choice.get("matched_stop"))
    if isinstance(named, str) and named in stop:
        return Completion(text + named, "stop", stop=named)
    if reason == "stop" and habit in ("trims", "unknown"):
        string = _open(text, stop)
        if string:
            return Completion(text + string, "stop", stop=string)
    return Completion(text, "eos")


def _open(text: str, stop: tuple[str, ...]) -> str:
    """Return the stop string whose opening tag is the last that is open, or ""."""
    found = (-1, "")
    for string in stop:
        if string.startswith("</"):
            at = text.rfind(f"<{string[2:]}")
            found = max(found, (at, string))
    return found[1] if found[0] >= 0 else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _tokens(choice: dict[str, Any]) -> tuple[int, ...] | None:
    ids = choice.get("token_ids")
    if isinstance(ids, list) and all(isinstance(token, int) for token in ids):
        return tuple(ids)
    return None


def _logprobs(choice: dict[str, Any]) -> tuple[float, ...] | None:
    held = choice.get("logprobs")
    if not isinstance(held, dict):
        return None
    values = held.get("token_logprobs")
    if values is None and isinstance(held.get("content"), list):
        values = [item.get("logprob") for item in held["content"] if isinstance(item, dict)]
    if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
        return None
    return tuple(float(value) for value in values)


def _calls(choice: dict[str, Any]) -> tuple[ToolCall, ...]:
    message = choice.get("message")
    listed = message.get("tool_calls") if isinstance(message, dict) else None
    found = []
    for number, call in enumerate(listed if isinstance(listed, list) else []):
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(function, dict) and isinstance(name, str):
            written = function.get("arguments")
            text = written if isinstance(written, str) else msgspec.json.encode(written).decode()
            found.append(ToolCall(name, text, str(call.get("id") or f"call_{number}")))
    return tuple(found)
