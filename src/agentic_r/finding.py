"""The retriever that search, ask and serve use, put together as the config says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agentic_r.config import Config
from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError
from agentic_r.io import digest_file, fingerprint
from agentic_r.protocols import Retriever

if TYPE_CHECKING:
    from agentic_r.retriever.rerank import Reranker
    from agentic_r.retriever.stores import Store

STORES = ("qdrant", "milvus")
"""Kinds that search in a vector engine."""

LOCAL = ("dense", "fused", *STORES)
"""Kinds that search with the run's own index, or with its encoder at least."""


def compose(
    config: Config,
    corpus: Corpus,
    dense: Callable[[], tuple[Retriever, str]],
    reranker: Reranker | None = None,
) -> tuple[Retriever, str]:
    """Return the retriever of a config and what identifies it.

    `dense` opens the run's dense retriever and its key; it is called for the kinds that need it.
    `reranker` is the config's, where it is open already. Raises ConfigError where a kind lacks its
    address or the re-ranker cannot be opened.
    """
    return finish(config, corpus.digest, *_base(config, corpus, dense), reranker)


def finish(
    config: Config,
    passages: str,
    retriever: Retriever,
    key: str,
    reranker: Reranker | None = None,
) -> tuple[Retriever, str]:
    """Put the config's re-ranker and cache around a retriever; returns it and its key.

    `passages` identifies what is searched.
    """
    settings = config.retriever
    if settings.rerank.model:
        from agentic_r.retriever.rerank import RerankedRetriever

        model = reranker or open_reranker(config)
        depth, weight = settings.rerank.depth, reranker_weight(config)
        retriever = RerankedRetriever(retriever, model, depth=depth, weight=weight)
        key = f"{key}|{reranker_key(config)}"
    if settings.cache:
        from agentic_r.retriever.cache import CachedRetriever

        retriever = CachedRetriever(retriever, settings.cache, f"{passages}|{key}")
    return retriever, key


def open_reranker(config: Config) -> Reranker:
    """Open the config's re-ranker, as its own files say which kind it is.

    Raises ConfigError where it is none.
    """
    from agentic_r.retriever.cross import CrossEncoder
    from agentic_r.retriever.late import LateInteraction, is_late
    from agentic_r.retriever.loading import find_folder

    settings = config.retriever.rerank
    folder = find_folder(settings.model)
    if is_late(folder):
        return LateInteraction(folder)
    return CrossEncoder.open(settings.model, settings.max_length, config.retriever.batch_tokens)


def reranker_key(config: Config) -> str:
    """Return what identifies the config's re-ranker: its files, and how it is used."""
    from agentic_r.retriever.loading import find_folder

    settings = config.retriever.rerank
    folder = find_folder(settings.model)
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    model = fingerprint([(path.name, digest_file(path)) for path in files])
    return f"reranked:{model}:{settings.depth}:{settings.max_length}:{settings.weight}"


def reranker_weight(config: Config) -> float:
    """Return the share of the re-ranker's scores: the config's, else the re-ranker's own, else 1.

    Raises ConfigError where the re-ranker's file is damaged.
    """
    from agentic_r.retriever.cross import own_weight
    from agentic_r.retriever.loading import find_folder

    settings = config.retriever.rerank
    return settings.weight or own_weight(find_folder(settings.model))


def reranked_name(config: Config) -> str:
    """Return what a re-ranker adds to a retriever's name, nothing where there is none.

    Raises ConfigError as `reranker_weight` does.
    """
    if not config.retriever.rerank.model:
        return ""
    return ", reranked" if reranker_weight(config) else ", re-ranker of weight 0"


def open_store(config: Config) -> Store:
    """Open the vector engine of a config, which its retriever.kind names.

    Raises ConfigError where that names none, and where it lacks address or key.
    """
    from agentic_r.serve.secret import secret

    store, kind = config.retriever.store, config.retriever.kind
    if kind not in STORES:
        raise ConfigError(
            f"retriever.kind: got {kind}, expected {' or '.join(STORES)}, the engine to publish in"
        )
    if not store.url:
        raise ConfigError(f"retriever.store.url: got none, expected the address of {kind}")
    token = secret("retriever.store.api_key_env", store.api_key_env)
    limits = store.timeout, store.build_timeout
    if kind == "milvus":
        from agentic_r.retriever.stores.milvus import MilvusStore

        return MilvusStore(store.url, token, *limits)
    from agentic_r.retriever.stores.qdrant import QdrantStore

    return QdrantStore(store.url, token, *limits)


def _stored(
    config: Config, corpus: Corpus, dense: Callable[[], tuple[Retriever, str]]
) -> tuple[Retriever, str]:
    """Search the store with the encoder of the run's dense retriever."""
    from agentic_r.retriever.dense import DenseRetriever
    from agentic_r.retriever.stored import StoredRetriever

    local, _ = dense()
    assert isinstance(local, DenseRetriever)
    name = config.retriever.store.name
    found = StoredRetriever(local.encoder, open_store(config), name, corpus)
    return found, f"{config.retriever.kind}:{config.retriever.store.url}|{found.version}"


def _base(
    config: Config, corpus: Corpus, dense: Callable[[], tuple[Retriever, str]]
) -> tuple[Retriever, str]:
    kind, remote = config.retriever.kind, config.retriever.remote
    if kind == "dense":
        return dense()
    if kind in ("remote", "web"):
        from agentic_r.retriever.remote import RemoteRetriever, WebRetriever

        options = {"timeout": remote.timeout, "api_key_env": remote.api_key_env}
        if kind == "web":
            address = {"url": remote.url} if remote.url else {}
            return WebRetriever(**address, **options), f"web:{remote.url}"  # type: ignore[arg-type]
        if not remote.url:
            raise ConfigError("retriever.remote.url: got none, expected the address of a server")
        return RemoteRetriever(remote.url, **options), f"remote:{remote.url}"  # type: ignore[arg-type]
    if kind in STORES:
        return _stored(config, corpus, dense)
    from agentic_r.retriever.bm25 import BM25Retriever

    lexical, lexical_key = BM25Retriever(corpus), f"bm25:{corpus.digest}"
    if kind == "bm25":
        return lexical, lexical_key
    from agentic_r.retriever.fuse import FusedRetriever

    found, key = dense()
    return FusedRetriever([found, lexical]), f"fused:{key}|{lexical_key}"
