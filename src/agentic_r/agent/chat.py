"""Conversations as text: a model's own chat template in front, its tool calls read behind.

Templates are those of the model; what is rendered into them is data, so that a model's control
tokens inside a message are shown in other brackets and cannot end it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from agentic_r.errors import LLMError
from agentic_r.protocols import Completion, Conversation, Message, Tool, ToolCall

_BRACKETS = str.maketrans({"<": "\u2039", ">": "\u203a", "[": "\u2045", "]": "\u2046"})
_OTHER = "\u00b7"


def rendered(conversation: Conversation, tokenizer: Any) -> str:
    """Return the text that a model with this Hugging Face tokenizer continues.

    Raises LLMError where the tokenizer has no chat template or its template refuses the
    conversation.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise LLMError(
            f"{tokenizer.name_or_path}: got a conversation, and the tokenizer has no chat "
            "template; take a model made for chat, or a dialect that writes plain text"
        )
    special = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
    messages = [template_message(message, special) for message in conversation.messages]
    try:
        text: str = tokenizer.apply_chat_template(
            messages,
            tools=[tool_schema(tool) for tool in conversation.tools] or None,
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception as error:
        # Templates are programs of the model's owner and raise what they like.
        reason = " ".join(str(error).split())
        raise LLMError(f"{tokenizer.name_or_path}: its chat template refused: {reason}") from error
    return text + conversation.begun


def template_message(message: Message, special: list[str]) -> dict[str, Any]:
    """Make a message as chat templates want it, control tokens in its content made harmless."""
    made: dict[str, Any] = {"role": message.role, "content": harmless(message.content, special)}
    if message.calls:
        made["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": arguments(call)},
            }
            for call in message.calls
        ]
    if message.role == "tool":
        made["tool_call_id"] = message.call_id
    return made


def harmless(text: str, special: list[str]) -> str:
    """Show a model's control tokens in other brackets; nothing is removed."""
    for token in special:
        if token.strip() and token in text:
            shown = token.translate(_BRACKETS)
            text = text.replace(token, shown if shown != token else _OTHER.join(token))
    return text


def tool_schema(tool: Tool) -> dict[str, Any]:
    """Describe a tool as the OpenAI interface and chat templates want it."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def arguments(call: ToolCall) -> Any:
    """Return a call's arguments as a template wants them: an object where they are one."""
    try:
        return json.loads(call.arguments)
    except ValueError:
        return call.arguments


_BLOCK = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
_FUNCTION = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|$)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_MISTRAL = "[TOOL_CALLS]"
_LLAMA = "<|python_tag|>"


def with_calls(done: Completion) -> Completion:
    """Read the tool calls that a model wrote into its text, and take them out of the text.

    Known are the forms of Hermes and Qwen (JSON or XML inside tool_call tags), of Mistral (a JSON
    list after its mark) and of Llama (the whole text is one JSON object). What is malformed
    stays text.
    """
    at, calls = _find_calls(done.text)
    if not calls:
        return done
    return Completion(
        done.text[:at].rstrip(),
        "calls",
        done.tokens,
        done.logprobs,
        calls=calls,
        prompt_tokens=done.prompt_tokens,
        new_tokens=done.new_tokens,
    )


def _find_calls(text: str) -> tuple[int, tuple[ToolCall, ...]]:
    at = text.find("<tool_call>")
    if at >= 0:
        found = [call for block in _BLOCK.findall(text[at:]) for call in _in_block(block)]
    elif _MISTRAL in text:
        at = text.find(_MISTRAL)
        found = _in_json(text[at + len(_MISTRAL) :])
    else:
        found = _in_json(text.strip().removeprefix(_LLAMA))
        at = 0
    return at, tuple(
        ToolCall(name, written, f"call_{number}") for number, (name, written) in enumerate(found)
    )


def _in_block(block: str) -> list[tuple[str, str]]:
    found = _FUNCTION.findall(block)
    if not found:
        return _in_json(block)
    return [(name, json.dumps(dict(_PARAMETER.findall(body)))) for name, body in found]


def _in_json(text: str) -> list[tuple[str, str]]:
    """Read (name, arguments as JSON) of a call object or a list of them, else nothing."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    found = []
    for item in value if isinstance(value, list) else [value]:
        name = item.get("name") if isinstance(item, dict) else None
        given = item.get("arguments", item.get("parameters")) if isinstance(item, dict) else None
        if not isinstance(name, str) or given is None:
            return []
        found.append((name, given if isinstance(given, str) else json.dumps(given)))
    return found
