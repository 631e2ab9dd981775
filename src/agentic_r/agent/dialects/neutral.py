"""Makes texts that the agent did not write harmless: data never becomes protocol.

Passages, titles and questions may hold the tags of any protocol, chat control tokens or the
syntax of a tool call. Each is shown in other characters that look alike, so that a reader sees
what stood there and neither a model's tokenizer nor a parser takes it for the real thing. One
character becomes one, so nothing can join to a new tag, and doing it twice changes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

TAGS = frozenset(
    (
        *("think", "thinking", "search", "information", "answer", "documents", "document"),
        *("refine", "learnings", "query", "queries", "user", "assistant", "system", "tools"),
        *("tool", "tool_call", "tool_calls", "tool_response", "function", "function_call"),
        *("function_calls", "invoke", "parameter", "parameters", "observation", "result"),
        *("s", "bos", "eos", "pad", "unk", "mask", "sep", "cls", "start_of_turn"),
        *("end_of_turn", "end_of_utterance", "sub"),
    )
)
"""Names of tags that some agent protocol, chat template or tool syntax gives a meaning."""

_OPEN, _CLOSE = "\u2039", "\u203a"
_ANGLED = re.compile("[<\uff1c\ufe64]([^<>\uff1c\uff1e\ufe64\ufe65]*)([>\uff1e\ufe65]?)")
_NAME = re.compile(r"\s*/?\s*([a-z_]+)")
_BRACKETED = re.compile(
    r"\[(\s*/?\s*(?:INST|SYS|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|SYSTEM_PROMPT|gMASK)\s*)\]",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\(\s*boxed)", re.IGNORECASE)
_FENCE = re.compile(r"```")


def neutralise(text: str, labels: Sequence[str] = ()) -> str:
    r"""Return `text` with everything that a protocol could act on in look-alike characters.

    Angle brackets of known tags and of chat tokens (`<|...|>`) become U+2039 and U+203A, also
    where the name is written with capitals, full-width letters or invisible characters inside;
    other angle brackets stay. `[INST]` and its like get U+27E6 and U+27E7, the backslash of
    `\boxed` becomes U+2216 and a code fence three U+02CB. `labels` are words that begin a turn
    in the dialect at hand, as "Observation": their colon becomes U+2236 wherever they stand.
    """
    text = _ANGLED.sub(_angled, text)
    text = _BRACKETED.sub("\u27e6\\1\u27e7", text)
    text = _BOXED.sub("\u2216\\1", text)
    text = _FENCE.sub("\u02cb" * 3, text)
    if labels:
        words = "|".join(re.escape(label).replace(r"\ ", r"\s+") for label in labels)
        text = re.sub(rf"(?i)\b((?:{words})\s*\d*\s*)[:\uff1a]", "\\1\u2236", text)
    return text


def one_line(text: str, labels: Sequence[str] = ()) -> str:
    """Return `neutralise(text)` on a single line, for protocols whose turns begin lines."""
    return " ".join(neutralise(" ".join(text.split()), labels).split())


def _angled(match: re.Match[str]) -> str:
    inner, close = match.groups()
    plain = "".join(c for c in unicodedata.normalize("NFKC", inner) if not _invisible(c)).lower()
    name = _NAME.match(plain)
    if not plain.lstrip().startswith("|") and (name is None or name.group(1) not in TAGS):
        return match.group(0)
    return f"{_OPEN}{inner}{_CLOSE if close else ''}"


def _invisible(character: str) -> bool:
    return unicodedata.category(character) in ("Cf", "Mn", "Cc") and character not in "\n\t "
