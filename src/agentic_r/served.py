"""What a config names, opened to be searched: the retriever of the config, and those beside it.

Nothing is written and no lock is taken where the indexes are there, so that a run can be served
and searched while its loop goes on; the next opening finds what the loop has finished meanwhile.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agentic_r.agent.query import read_form
from agentic_r.config import Config
from agentic_r.data.corpus import Corpus
from agentic_r.errors import ConfigError
from agentic_r.finding import LOCAL, compose, finish, open_reranker, reranked_name, reranker_key
from agentic_r.io import user_cache
from agentic_r.loop import open_run, run_folder
from agentic_r.parts import load_encoder, open_corpus, open_encoder
from agentic_r.retriever.dense import DenseRetriever
from agentic_r.retriever.encoder import Encoder
from agentic_r.retriever.loading import find_folder
from agentic_r.retriever.pooling import read_settings
from agentic_r.retriever.quick import QuickEncoder
from agentic_r.retriever.ruler import QueryRuler
from agentic_r.serve.offer import Offer, Served
from agentic_r.serve.secret import secret
from agentic_r.serve.shards import ShardedRetriever, Shards
from agentic_r.steps import index_corpus

if TYPE_CHECKING:
    from agentic_r.retriever.rerank import Reranker

PAIRS = 512
"""Query and passage pairs that are ranked anew at once, so that others are not kept waiting."""


class Opening:
    """Opens what a config names, again and again; models that have not changed are kept.

    With `quick`, as a service wants it, queries go through the fastest engine of this machine and
    are searched together, and the files of an index are checked whole before they are used; the
    file of `retriever.cache` is left alone, for the service remembers by itself.
    """

    def __init__(self, config: Config, *, quick: bool = False) -> None:
        if quick:
            retriever = msgspec.structs.replace(config.retriever, cache="")
            config = msgspec.structs.replace(config, retriever=retriever)
        self.config = config
        self.quick = quick
        self.folder = run_folder(config)
        self._encoders: dict[str, QuickEncoder] = {}
        self._reranker: tuple[str, Reranker] | None = None

    def __call__(self) -> Served:
        """Open the newest; raises AgenticRError where what is there cannot be opened.

        Where a dense retriever is wanted and there is no index at all, the untouched one's is
        built, under the run's lock.
        """
        if self.config.serve.shards:
            return self._routed()
        settings = self.config.retriever
        corpus, _ = open_corpus(self.config)
        dense = self._dense(corpus) if settings.kind in LOCAL else []
        reranker = self._open_reranker()
        offers = tuple(dense)
        if settings.kind != "dense" or settings.rerank.model or settings.cache:
            main = self._composed(corpus, dense, reranker)
            offers = (main, *(offer for offer in dense if offer.name != main.name))
        return Served(corpus, offers, self.folder if self.folder.is_dir() else None, reranker)

    def _routed(self) -> Served:
        """Open a router over shards; its encoder is retriever.base, as theirs is."""
        settings, serve = self.config.retriever, self.config.serve
        if settings.kind != "dense":
            raise ConfigError(
                f"retriever.kind: got {settings.kind}, expected dense: the scores of other kinds "
                "cannot be compared between shards"
            )
        shards = Shards(
            serve.shards,
            serve.missing_shard,
            secret("serve.shard_token_env", serve.shard_token_env),
            serve.shard_timeout,
        )
        encoder = open_encoder(self.config)
        engine = ""
        if self.quick:
            encoder = quick = self._quickened(encoder, {})
            engine = quick.engine.name
        shards.open(encoder.passage_side)
        reranker = self._open_reranker()
        ruler = QueryRuler(encoder) if encoder.tokenizer.is_fast else None
        retriever, key = finish(
            self.config,
            shards.digest,
            ShardedRetriever(shards, encoder, ruler),
            f"{encoder.fingerprint}|{shards.digest}",
            reranker,
        )
        name, batch = "shards", None
        if reranker is not None:
            name += reranked_name(self.config)
            batch = max(1, PAIRS // settings.rerank.depth)
        model, form = encoder.settings.base, self._base_form()
        offer = Offer(name, key, model, form, retriever, encoder, engine, batch)
        return Served(shards, (offer,), None, reranker, shards)

    def _base_form(self) -> str:
        """Return the input that the base was trained with, where it says so: else the query."""
        return read_form(find_folder(self.config.retriever.base), "query")

    def _quickened(self, encoder: Encoder, used: dict[str, QuickEncoder]) -> QuickEncoder:
        key = encoder.fingerprint
        found = self._encoders.get(key) or QuickEncoder(encoder, user_cache() / "engines")
        used[key] = self._encoders[key] = found
        return found

    def _composed(self, corpus: Corpus, dense: list[Offer], reranker: Reranker | None) -> Offer:
        settings = self.config.retriever
        retriever, key = compose(
            self.config, corpus, lambda: (dense[0].retriever, dense[0].key), reranker
        )
        name: str = settings.kind
        if dense:
            name = dense[0].name if name == "dense" else f"{name} ({dense[0].name} dense)"
        most = None
        if reranker is not None:
            name += reranked_name(self.config)
            most = max(1, PAIRS // settings.rerank.depth)
        if dense:
            model = f"{dense[0].model}, {settings.kind}" if settings.kind != "dense" else ""
            return replace(
                dense[0], name=name, key=key, retriever=retriever, batch=most,
                model=model or dense[0].model,
            )  # fmt: skip
        form = settings.input if settings.kind == "remote" else "query"
        return Offer(name, key, settings.kind, form, retriever, batch=most)

    def _dense(self, corpus: Corpus) -> list[Offer]:
        number = newest(self.config)
        base = self.folder / "base" / "index"
        if number is None and not _finished(base):
            with open_run(self.config) as run:
                index_corpus(run, self.config, corpus, "base/index", open_encoder(self.config))
        offers = []
        used: dict[str, QuickEncoder] = {}
        if number is not None:
            part = self.folder / f"iteration-{number}"
            model = part / "retriever" / "model"
            encoder = load_encoder(self.config, str(model))
            stage = base if encoder.settings.trained_for else part / "index"
            form = read_form(model, self.config.retriever.input)
            name = f"iteration {number}"
            offers.append(self._offer(name, encoder, stage, form, corpus, used))
        if _finished(base):
            encoder = open_encoder(self.config)
            form = self._base_form()
            offers.append(self._offer("untouched", encoder, base, form, corpus, used))
        self._encoders = used
        return offers

    def _offer(
        self,
        name: str,
        encoder: Encoder,
        stage: Path,
        form: str,
        corpus: Corpus,
        used: dict[str, QuickEncoder],
    ) -> Offer:
        engine = ""
        if self.quick:
            encoder = quick = self._quickened(encoder, used)
            engine = quick.engine.name
        retriever = DenseRetriever.open(encoder, corpus, stage / "index")
        if self.quick:
            retriever.index.share_batches()
            retriever.index.check.wait()
        model = encoder.settings.base if name == "untouched" else f"{encoder.settings.base}, {name}"
        side = encoder.passage_side
        return Offer(
            name, encoder.fingerprint, model, form, retriever, encoder, engine, index=side
        )  # fmt: skip

    def _open_reranker(self) -> Reranker | None:
        if not self.config.retriever.rerank.model:
            return None
        key = reranker_key(self.config)
        if self._reranker is None or self._reranker[0] != key:
            self._reranker = key, open_reranker(self.config)
        return self._reranker[1]


def open_served(config: Config) -> Served:
    """Open what a config names, once; raises as `Opening` does."""
    return Opening(config)()


def newest(config: Config) -> int | None:
    """Return the newest iteration whose model and index are finished, None where there is none.

    One that trained the query side alone is found in the untouched one's index.
    """
    folder = run_folder(config)
    for number in range(config.loop.iterations, 0, -1):
        part = folder / f"iteration-{number}"
        if not _finished(part / "retriever"):
            continue
        if _finished(part / "index"):
            return number
        model = part / "retriever" / "model"
        if _finished(folder / "base" / "index") and read_settings(model, str(model)).trained_for:
            return number
    return None


def _finished(stage: Path) -> bool:
    return (stage / "manifest.json").is_file()
