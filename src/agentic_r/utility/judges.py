"""Every judge by its name in the settings, opened: the one place that knows them all."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from agentic_r.config import UtilityConfig
from agentic_r.errors import ConfigError
from agentic_r.protocols import ChatLLM, Judge, SubAnswers
from agentic_r.utility.by_rule import ContainmentJudge, GoldJudge, OfflineJudge
from agentic_r.utility.judge import LLMJudge
from agentic_r.utility.store import CacheableJudge, CachedJudge, CachedSubAnswers, Store
from agentic_r.utility.subanswers import HopSubAnswers, subanswers_of

NAMES = ("offline", "containment", "gold", "cross-encoder", "likelihood", "http://...")
"""What `utility.judge` may be."""


def open_judge(
    settings: UtilityConfig, *, store: Path | None = None, log: Path | None = None
) -> Judge:
    """Return the judge that the settings name; what it says is kept in `store`.

    `log` keeps what a server answered in this run, and with it what that cost.

    Raises ConfigError where its model cannot be loaded, DataError for a prompt file that does
    not hold what it must.
    """
    if settings.judge == "offline":
        return OfflineJudge()
    if settings.judge == "containment":
        return ContainmentJudge()
    if settings.judge == "gold":
        return GoldJudge()
    judge: CacheableJudge
    if settings.judge.startswith(("http://", "https://")):
        judge = _remote(settings, log)
    else:
        judge = _local(settings.judge, settings.judge_name)
    return judge if store is None else CachedJudge(judge, _store(store))


def named_judge(settings: UtilityConfig, name: str, *, store: Path | None = None) -> Judge:
    """Return a judge by "NAME" or "NAME=MODEL", other settings as they are.

    A server's name is its address. A name without a model takes `judge_name` where it is the
    configured judge. Raises ConfigError for a name that is none, or that needs a model and has
    none.
    """
    whole = name.startswith("http") and "?" in name  # an address may have a = of its own there
    kind, _, model = (name, "", "") if whole else name.partition("=")
    if kind not in NAMES[:-1] and not kind.startswith(("http://", "https://")):
        raise ConfigError(f"got the judge {kind!r}, expected one of {', '.join(NAMES)}")
    if not model and kind == settings.judge:
        model = settings.judge_name
    if kind in ("cross-encoder", "likelihood") and not model:
        raise ConfigError(f"the judge {kind} needs a model: write {kind}=FOLDER")
    chosen = msgspec.structs.replace(settings, judge=kind, judge_name=model)
    return open_judge(chosen, store=store)


def open_subanswers(
    settings: UtilityConfig,
    source: Literal["hops", "judge"],
    judge: Judge,
    *,
    store: Path | None = None,
) -> SubAnswers:
    """Return where sub-answers come from: annotated hops, or the judge's own chat model."""
    if source == "hops":
        return HopSubAnswers()
    chat = chat_of(judge)
    if chat is None:
        raise ConfigError("data.sub_answers = judge needs a judge: set utility.judge to its URL")
    said = subanswers_of(chat, settings)
    return said if store is None else CachedSubAnswers(said, _store(store))


def chat_of(judge: Judge) -> ChatLLM | None:
    """Return the chat model that a judge asks, None where it asks none."""
    inner = judge.judge if isinstance(judge, CachedJudge) else judge
    return inner.chat if isinstance(inner, LLMJudge) else None


def _remote(settings: UtilityConfig, log: Path | None) -> LLMJudge:
    from agentic_r.agent.remote import RemoteLLM

    chat = RemoteLLM(
        settings.judge,
        settings.judge_name,
        concurrency=settings.judge_concurrency,
        timeout=settings.judge_timeout,
        api_key_env=settings.judge_api_key_env,
        retries=settings.judge_retries,
        role="judge",
        log=log,
        price=settings.judge_price,
    )
    return LLMJudge(
        chat,
        window=settings.window,
        anchors=settings.anchors,
        about=settings.judge_input,
        structured=settings.structured == "auto",
        prompt_file=settings.judge_prompt_file,
        max_tokens=settings.judge_tokens,
    )


@lru_cache(maxsize=2)
def _local(kind: str, model: str) -> CacheableJudge:
    from agentic_r.utility.by_model import CrossEncoderJudge, LikelihoodJudge

    return CrossEncoderJudge(model) if kind == "cross-encoder" else LikelihoodJudge(model)


def forget_models() -> None:
    """Let go of local judges, whose memory the next stage may want; they are loaded anew."""
    _local.cache_clear()


@lru_cache(maxsize=4)
def _store(path: Path) -> Store:
    return Store(path)
