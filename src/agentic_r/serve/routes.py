"""What each path answers: requests are checked, computed by the batcher, and written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from agentic_r.errors import AgenticRError, DataError, OutageError
from agentic_r.serve import wire
from agentic_r.serve.batching import Batcher, FullError
from agentic_r.serve.cache import Cache
from agentic_r.serve.metrics import Metrics
from agentic_r.serve.offer import Opener, Served
from agentic_r.serve.runs import RunReader
from agentic_r.serve.shards import Partial
from agentic_r.serve.wire import BadRequest
from agentic_r.serve.work import (
    ByVector,
    Encode,
    Score,
    SearchHits,
    SearchRendered,
    SearchVectors,
)
from agentic_r.settings import ServeConfig
from agentic_r.types import Passage

T = TypeVar("T")


class Service:
    """Answers for one version at a time; a request is answered by one version throughout.

    What it computes waits in one queue for all routes, counted in requests.
    """

    def __init__(self, opener: Opener, limits: ServeConfig) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.cache = Cache(limits.cache_mib << 20)
        self.batcher = Batcher(limits.batch, limits.queue, self.metrics)
        self.draining = False
        self._opener = opener
        self._served: Served | None = None
        self._before: Served | None = None
        self._runs: RunReader | None = None
        self._reloading = asyncio.Lock()

    @property
    def served(self) -> Served:
        """What is served now. Raises BadRequest 503 while it is being loaded."""
        if self._served is None:
            raise BadRequest(503, "model and index are still being loaded", {"Retry-After": "5"})
        return self._served

    def held(self, version: str | None) -> Served:
        """Return the version of this name, which may be the one before; None is the present one.

        Raises BadRequest 410 where it is held no longer.
        """
        for served in (self.served, self._before):
            if served is not None and version in (None, served.version):
                return served
        before = f" and {self._before.version} before it" if self._before else ""
        raise BadRequest(
            410,
            f"version: got {version!r:.80}, this server has {self.served.version}{before}; "
            "search again",
        )

    @property
    def state(self) -> Literal["ok", "loading", "stopping"]:
        """Whether the service can be asked."""
        return "stopping" if self.draining else "loading" if self._served is None else "ok"

    def health(self) -> wire.Health:
        """Say whether the service is ready, and what encodes the queries."""
        if self._served is None:
            return wire.Health(self.state)
        shards = self._served.shards
        up = {each.url: "up" if each.up else "away" for each in shards.shards} if shards else None
        return wire.Health(self.state, self._served.main.engine or None, up)  # type: ignore[arg-type]

    async def load(self) -> Served:
        """Open the newest version beside the present one and change over. Raises AgenticRError."""
        async with self._reloading:
            try:
                opened = await asyncio.to_thread(self._opener)
            except Exception:
                self.metrics.events["reload_failed"] += 1
                raise
            if self._served is None or opened.version != self._served.version:
                self.cache.clear()
                self._before = self._served
            self.metrics.events["reloaded"] += self._served is not None
            self._served = opened
            self._runs = RunReader(opened.run) if opened.run is not None else None
            return opened

    async def compute(self, work: Any, texts: Sequence[Any]) -> list[Any]:
        """Compute texts in the common queue.

        Raises BadRequest 503 where it is full or what is behind this server is away, 504 late.
        """
        try:
            async with asyncio.timeout(self.limits.timeout):
                return await self.batcher.submit(work, texts)
        except FullError as full:
            self.metrics.events["rejected"] += 1
            raise BadRequest(
                503,
                f"the queue is full: {len(self.batcher)} requests wait; try again in {full.wait} s",
                {"Retry-After": str(full.wait)},
            ) from None
        except OutageError as error:
            self.metrics.events["outage"] += 1
            raise BadRequest(503, str(error), {"Retry-After": "2"}) from None
        except TimeoutError:
            self.metrics.events["timeout"] += 1
            raise BadRequest(
                504, f"not done within {self.limits.timeout:g} s; send fewer queries at once"
            ) from None

    async def retrieve(self, body: wire.Retrieve) -> tuple[bytes, str]:
        """Answer `/retrieve`: what is remembered from memory, the rest computed.

        Returns the reply and the version that all of it is from.
        """
        queries = wire.queries_of(body)
        wire.check_texts(queries, self.limits, "queries")
        k = wire.check_topk(body.topk, len(queries), self.limits)
        questions = wire.beside(body.question, len(queries), "question")
        thoughts = wire.beside(body.reasoning, len(queries), "reasoning")
        for name, texts in (("question", questions), ("reasoning", thoughts)):
            wire.check_texts([t for t in texts if t is not None], self.limits, name)
        served, scores = self.served, bool(body.return_scores)
        offer = served.main
        self.metrics.queries += len(queries)
        sent = [offer.sent(*each) for each in zip(queries, questions, thoughts, strict=True)]
        found: dict[str, bytes] = {}
        missing = []
        for text in dict.fromkeys(sent):
            kept = self.cache.get((served.version, k, scores, text))
            if kept is None:
                missing.append(text)
            else:
                found[text] = kept
        answers = await self.compute(SearchRendered(offer, k, scores), missing)
        partial = False
        for text, answer in zip(missing, answers, strict=True):
            found[text] = answer.body
            partial = partial or answer.partial
            if not answer.partial:
                self.cache.put((served.version, k, scores, text), answer.body, text)
        self.metrics.events["partial"] += partial
        end = b'],"partial":true}' if partial else b"]}"
        return b'{"result":[' + b",".join([found[text] for text in sent]) + end, served.version

    async def search(self, body: wire.SearchOne) -> wire.SearchReply:
        """Answer `/search`: one query, any of the retrievers."""
        texts = [t for t in (body.query, body.question, body.reasoning) if t is not None]
        wire.check_texts(texts, self.limits, "query, question and reasoning")
        k = wire.check_topk(body.topk, 1, self.limits)
        served = self.served
        offer = served.offer(body.retriever)
        if offer is None:
            names = ", ".join(o.name for o in served.offers)
            raise BadRequest(422, f"retriever: got {body.retriever!r:.80}, expected one of {names}")
        self.metrics.queries += 1
        sent = offer.sent(body.query, body.question, body.reasoning)
        hits = (await self.compute(SearchHits(offer, k), [sent]))[0]
        partial = isinstance(hits, Partial)
        self.metrics.events["partial"] += partial
        return wire.SearchReply(offer.name, served.version, sent, wire.found(hits), partial)

    async def shard_search(self, body: wire.SearchVectors) -> wire.VectorHits:
        """Answer `/shard/search`: what this server's part has for a router's vectors.

        The version before the last reload answers too, until the router has followed. Raises
        BadRequest 409 where no index is of that encoder or version, 422 for vectors that cannot be.
        """
        wire.check_count(len(body.vectors), self.limits, "vectors")
        k = wire.check_topk(body.topk, len(body.vectors), self.limits)
        for served in (self.served, self._before):
            if served is None or body.version not in (None, served.version):
                continue
            offer = next((o for o in served.offers if o.index == body.index), None)
            if offer is not None and isinstance(offer.retriever, ByVector):
                break
        else:
            raise BadRequest(
                409,
                f"got index {body.index!r:.80} of version {body.version!r:.80}, this server has "
                f"version {self.served.version}; reload the router",
            )
        size = 4 * offer.encoder.dimension if offer.encoder else 0
        for at, vector in enumerate(body.vectors):
            if len(vector) != size or not np.isfinite(np.frombuffer(vector, "<f4")).all():
                raise BadRequest(
                    422, f"vectors[{at}]: expected {size} bytes, finite float32 in base64"
                )
        self.metrics.queries += len(body.vectors)
        found = await self.compute(SearchVectors(offer.retriever, k), body.vectors)
        return wire.VectorHits(served.version, found)

    async def rerank(self, body: wire.Rerank) -> wire.Reranked:
        """Answer `/rerank`. Raises BadRequest 404 where no re-ranker is configured."""
        reranker = self.served.reranker
        if reranker is None:
            raise BadRequest(404, "this server has no re-ranker; set one in the config it serves")
        wire.check_texts([body.query], self.limits, "query")
        wire.check_texts(body.documents, self.limits, "documents")
        scores = await self.compute(Score(reranker, body.query), body.documents)
        order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))[: body.top_n]
        return wire.Reranked(
            [
                wire.RerankedText(
                    at, float(scores[at]), body.documents[at] if body.return_documents else None
                )
                for at in order
            ]
        )

    async def embeddings(self, body: wire.Embeddings) -> wire.EmbeddingList:
        """Answer `/v1/embeddings` with the main retriever's encoder."""
        main = self.served.main
        if main.encoder is None:
            raise BadRequest(404, f"the retriever {main.name} has no encoder, so no vectors")
        texts = [body.input] if isinstance(body.input, str) else body.input
        wire.check_texts(texts, self.limits, "input")
        if body.model not in (None, main.model, main.name):
            raise BadRequest(404, f"model: got {body.model!r:.80}, this server has {main.model}")
        if body.dimensions not in (None, main.encoder.dimension):
            raise BadRequest(
                422, f"dimensions: got {body.dimensions}, expected {main.encoder.dimension}"
            )
        vectors = await self.compute(Encode(main.encoder, body.input_type), texts)
        encoded = body.encoding_format == "base64"
        data = [
            wire.Embedded(
                "embedding", at, wire.base64_floats(vector) if encoded else vector.tolist()
            )
            for at, vector in enumerate(vectors)
        ]
        return wire.EmbeddingList("list", data, main.model, wire.Usage(len(texts), len(texts)))

    async def passage(self, id: str, version: str | None = None) -> tuple[Passage, str]:
        """Look a passage up by id in a version, else in the present one; returns the version too.

        Raises BadRequest 404, 410 as `held` does, or 503 where a shard is away.
        """
        served = self.held(version)
        try:
            if served.shards is None:
                return served.corpus.get(id), served.version
            return await asyncio.to_thread(served.corpus.get, id), served.version
        except OutageError as error:
            self.metrics.events["outage"] += 1
            raise BadRequest(503, str(error), {"Retry-After": "2"}) from None
        except DataError:
            raise BadRequest(404, f"the corpus has no passage with the id {id[:80]!r}") from None

    async def found_before(self, id: str) -> tuple[Passage, str]:
        """Look a passage up, in the version before where the present one has it no longer.

        This is for clients that have searched and cannot name a version. Raises as `passage` does.
        """
        before = self._before
        try:
            return await self.passage(id)
        except BadRequest as bad:
            if bad.status != 404 or before is None:
                raise
            return await self.passage(id, before.version)

    def info(self) -> wire.Info:
        """Say what is served."""
        served, limits = self.served, self.limits
        return wire.Info(
            served.version,
            len(served.corpus),
            [
                wire.OfferInfo(
                    o.name,
                    o.model,
                    o.key,
                    o.form,
                    o.encoder.dimension if o.encoder else None,
                    o.engine or None,
                    o.index,
                )
                for o in served.offers
            ],
            limits.topk,
            served.reranker is not None,
            served.run.name if served.run else None,
            {
                "queries": limits.max_queries,
                "characters": limits.max_chars,
                "topk": limits.max_topk,
                "hits": wire.MAX_HITS,
                "body_bytes": limits.max_body_mib << 20,
                "seconds": limits.timeout,
                "waiting_requests": limits.queue,
            },
        )

    async def reload(self) -> wire.Reloaded:
        """Change to the newest index. Raises BadRequest 409 where it cannot be opened."""
        before = self.served.version
        try:
            after = (await self.load()).version
        except AgenticRError as error:
            raise BadRequest(409, f"still serving {before}: {error}") from None
        return wire.Reloaded(before, after)

    @property
    def runs(self) -> RunReader:
        """The trajectories of the run. Raises BadRequest 404 where none is served."""
        self.served  # noqa: B018 - 503 while loading
        if self._runs is None:
            raise BadRequest(404, "no run folder is served")
        return self._runs

    def prometheus(self) -> str:
        """Write the metrics."""
        gauges = {
            "queue_requests": float(len(self.batcher)),
            "ready": float(self.state == "ok"),
            "cache_bytes": float(self.cache.size),
            "cache_entries": float(len(self.cache)),
        }
        counters = {
            "cache_hits_total": float(self.cache.hits),
            "cache_misses_total": float(self.cache.misses),
        }
        shards = self._served.shards if self._served is not None else None
        return self.metrics.text(gauges, counters) + (shards.prometheus() if shards else "")


async def unless_gone(work: Awaitable[T], gone: Callable[[], Awaitable[None]]) -> T | None:
    """Await `work`; None, with the work cancelled, where the client goes away first."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for each in (task, watch):
            if not each.done():
                each.cancel()


def encoded(reply: Any) -> bytes:
    """Write a reply as JSON."""
    return reply if isinstance(reply, bytes) else msgspec.json.encode(reply)
