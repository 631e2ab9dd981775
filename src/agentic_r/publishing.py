"""A run's newest index, published in the store that its config names, and taken back."""

from __future__ import annotations

from contextlib import closing

import msgspec
from tqdm import tqdm

from agentic_r.config import Config
from agentic_r.finding import open_store
from agentic_r.retriever.dense import DenseRetriever
from agentic_r.retriever.publish import about_published, publish, roll_back
from agentic_r.served import open_served


def published(config: Config) -> str:
    """Publish the newest dense index of a run; it is built where there is none.

    Returns what was done in one line. Raises OutageError, before any long work, where the store is
    away, and as `publish.publish` does.
    """
    name = config.retriever.store.name
    with closing(open_store(config)) as store:
        store.aliases()
        plain = msgspec.structs.replace(config.retriever.rerank, model="")
        local = msgspec.structs.replace(config.retriever, kind="dense", cache="", rerank=plain)
        found = open_served(msgspec.structs.replace(config, retriever=local)).main.retriever
        assert isinstance(found, DenseRetriever)
        with tqdm(total=len(found.corpus), desc="publishing", unit=" passage") as bar:

            def tick(count: int) -> None:
                bar.update(count)

            folder = found.index.folder
            done = publish(store, name, folder, found.encoder, found.corpus, tick)
    return about_published(name, done)


def rolled_back(config: Config) -> str:
    """Go back to what was published before; returns what was done in one line."""
    name = config.retriever.store.name
    with closing(open_store(config)) as store:
        return about_published(name, roll_back(store, name))
