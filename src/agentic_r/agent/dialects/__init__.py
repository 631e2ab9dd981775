"""Agent protocols, one file each; `dialect` finds one by its name."""

from __future__ import annotations

from pathlib import Path

from agentic_r.agent.dialects.autorefine import AutoRefine
from agentic_r.agent.dialects.baselines import RAG, Direct, IterRetGen
from agentic_r.agent.dialects.corag import CoRAG
from agentic_r.agent.dialects.flare import Flare
from agentic_r.agent.dialects.ircot import IRCoT
from agentic_r.agent.dialects.o2_searcher import O2Searcher
from agentic_r.agent.dialects.r1_searcher import R1Searcher
from agentic_r.agent.dialects.react import ReAct
from agentic_r.agent.dialects.rearag import ReaRAG
from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.agent.dialects.search_r1_rl import SearchR1RL
from agentic_r.agent.dialects.self_ask import SelfAsk
from agentic_r.agent.dialects.simple_deep_searcher import SimpleDeepSearcher
from agentic_r.agent.dialects.template import read_file
from agentic_r.agent.dialects.text import Spoken, TextDialect
from agentic_r.agent.dialects.tool_calling import ToolCalling
from agentic_r.errors import ConfigError
from agentic_r.protocols import Dialect, Ruler

__all__ = ["DIALECTS", "SearchR1", "dialect"]

_ALL: tuple[type[Spoken], ...] = (
    *(SearchR1, SearchR1RL, R1Searcher, SimpleDeepSearcher, AutoRefine, O2Searcher, ReaRAG),
    *(CoRAG, ReAct, ToolCalling, Direct, RAG, IRCoT, SelfAsk, IterRetGen, Flare),
)

DIALECTS: dict[str, type[Spoken]] = {each.name: each for each in _ALL}
"""The packaged protocols by name: search agents first, then what papers put beside them."""


def dialect(
    name: str,
    prompt_file: str | Path = "",
    prompt: str | None = None,
    *,
    turns: int = 0,
    chat: bool = False,
    invalid_file: str | Path = "",
    ruler: Ruler | None = None,
) -> Dialect:
    """Make the dialect called `name`, with the prompt of `prompt_file` where one is given.

    `prompt` is the instruction that a checkpoint brings: it is used where there is no file and
    the protocol's prompt is one text, else the dialect's own is. `invalid_file` holds what the
    model is told of a turn that cannot be read. The rest is as in `Spoken`. Raises ConfigError
    for an unknown name, a file that cannot be read or lacks a place, and for settings that the
    protocol has no use for.
    """
    kind = DIALECTS.get(name)
    if kind is None:
        raise ConfigError(f"agent.dialect: got {name!r}, expected one of {', '.join(DIALECTS)}")
    if prompt_file:
        prompt = read_file(prompt_file, "agent.prompt_file")
    elif kind.sections != Spoken.sections:
        prompt = None
    if invalid_file and not kind.told:
        having = ", ".join(each.name for each in _ALL if each.told)
        raise ConfigError(
            f"agent.invalid_file: {name} ends at a turn that cannot be read and says nothing of "
            f"it; leave it empty, or take one of {having}"
        )
    invalid = read_file(invalid_file, "agent.invalid_file") if invalid_file else None
    # A protocol that is a conversation already has no use for `chat`.
    chat = chat and issubclass(kind, TextDialect)
    return kind(prompt, turns=turns, chat=chat, invalid=invalid, ruler=ruler)
