"""The messages of the service: what requests may hold, what replies look like.

The OpenAPI schema is made from these types, and requests are decoded with them, so that the one
cannot differ from the other. Upper limits are settings: `check_*` tests them, and
`openapi` writes them into the schema.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agentic_r.settings import ServeConfig
from agentic_r.types import Hit, Passage

MAX_HITS = 131_072
"""Most hits of one reply, queries times topk: about 100 MB of JSON."""

AtLeastOne = Annotated[int, Meta(ge=1)]


class BadRequest(Exception):
    """A request that cannot be answered: the HTTP status and what is wrong with it."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


class Retrieve(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Queries as the clients of Search-R1 and Agentic-R (`queries`) and SkyRL (`query`) send them.

    With `question` (and `reasoning`) the server builds the input that its retriever was trained
    with; without, each query is the retriever's input as it stands. One string goes with all
    queries, a list has one for each. A turn in which nobody searches is an empty list, and what a
    model searches for may be empty too.
    """

    queries: list[str] | None = None
    query: str | list[str] | None = None
    topk: AtLeastOne | None = None
    return_scores: bool | None = False
    question: str | list[str] | None = None
    reasoning: str | list[str] | None = None


class Rerank(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One query and the texts to put in order for it, as Cohere's and Jina's clients send it."""

    query: str
    documents: list[str]
    top_n: AtLeastOne | None = None
    return_documents: bool = False
    model: str | None = None


class Embeddings(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Texts to encode, as OpenAI's client sends them; `input_type` says which side they are."""

    input: str | list[str]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: AtLeastOne | None = None
    user: str | None = None
    input_type: Literal["query", "passage"] = "query"


class SearchOne(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One query for one of the retrievers that `/v1/info` names."""

    query: str
    question: str | None = None
    reasoning: str | None = None
    topk: AtLeastOne | None = None
    retriever: str | None = None


class Document(msgspec.Struct):
    """A passage as FlashRAG and Search-R1 write it: the title in quotes, a newline, the text."""

    id: str
    contents: str


class Scored(msgspec.Struct):
    """A passage and its score."""

    document: Document
    score: float


class Retrieved(msgspec.Struct, omit_defaults=True):
    """One list a query, best first: with `return_scores` scored passages, else bare ones.

    `partial` is there, and true, where a router could not ask every shard.
    """

    result: list[list[Any]]
    partial: bool = False


class RerankedText(msgspec.Struct):
    """A text's place in the request and its score; the text itself where it was asked for."""

    index: int
    relevance_score: float
    document: str | None = None


class Reranked(msgspec.Struct):
    """The texts, best first."""

    results: list[RerankedText]


class Embedded(msgspec.Struct):
    """One vector: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(msgspec.Struct):
    """Tokens are not counted; texts are."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct):
    """One vector a text, in order."""

    object: Literal["list"]
    data: list[Embedded]
    model: str
    usage: Usage


class Found(msgspec.Struct):
    """A passage, in its parts, and its score."""

    id: str
    title: str
    text: str
    score: float


class SearchReply(msgspec.Struct):
    """What one retriever found, and the exact string that it was sent."""

    retriever: str
    version: str
    sent: str
    hits: list[Found]
    partial: bool = False


class Health(msgspec.Struct, omit_defaults=True):
    """Whether the service is alive, or ready; then `engine` is what encodes queries."""

    status: Literal["ok", "loading", "stopping"]
    engine: str | None = None
    shards: dict[str, Literal["up", "away"]] | None = None


class SearchVectors(msgspec.Struct, forbid_unknown_fields=True):
    """Vectors of queries, for a router over shards: float32, little-endian, base64.

    `index` names the encoder that the passages have to have gone through, `version` the version
    of the shard that the router has opened.
    """

    vectors: list[bytes]
    topk: AtLeastOne
    index: str
    version: str | None = None


class VectorHits(msgspec.Struct):
    """One list a vector, best first, of one version."""

    version: str
    result: list[list[Found]]


class OfferInfo(msgspec.Struct):
    """A retriever that can be asked for by name."""

    name: str
    model: str
    key: str
    input: str
    dimension: int | None
    engine: str | None
    index: str | None


class Info(msgspec.Struct):
    """What is served: the first retriever answers `/retrieve`."""

    version: str
    passages: int
    retrievers: list[OfferInfo]
    topk: int
    reranker: bool
    run: str | None
    limits: dict[str, float]


class Reloaded(msgspec.Struct):
    """The version before and after."""

    before: str
    after: str


class ErrorBody(msgspec.Struct):
    """What was wrong."""

    message: str
    type: str


class Error(msgspec.Struct):
    """Every answer that is not a success."""

    error: ErrorBody


def contents(passage: Passage) -> str:
    """Write a passage as FlashRAG corpora have it; the reader of corpora reads it back."""
    return f'"{passage.title}"\n{passage.text}' if passage.title else passage.text


def render(hits: Sequence[Hit], scores: bool) -> bytes:
    """Write the hits of one query as the JSON list that clients of Search-R1 read."""
    documents = [Document(hit.passage.id, contents(hit.passage)) for hit in hits]
    if not scores:
        return msgspec.json.encode(documents)
    return msgspec.json.encode(
        [Scored(document, hit.score) for document, hit in zip(documents, hits, strict=True)]
    )


def found(hits: Sequence[Hit]) -> list[Found]:
    """Write hits with their passages in parts."""
    return [Found(h.passage.id, h.passage.title, h.passage.text, h.score) for h in hits]


def base64_floats(vector: Any) -> str:
    """Write a vector as OpenAI does: float32, little-endian, base64."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def check_count(count: int, limits: ServeConfig, what: str) -> None:
    """Refuse more than the limit, with 422."""
    if count > limits.max_queries:
        raise BadRequest(
            422, f"{what}: got {count}, expected at most {limits.max_queries} in one request"
        )


def check_texts(texts: Sequence[str], limits: ServeConfig, what: str) -> None:
    """Refuse texts that are too many or too long, with 422."""
    check_count(len(texts), limits, what)
    longest = max(map(len, texts), default=0)
    if longest > limits.max_chars:
        raise BadRequest(
            422, f"{what}: got {longest} characters, expected at most {limits.max_chars}"
        )


def check_topk(topk: int | None, queries: int, limits: ServeConfig) -> int:
    """Return topk or the default; refuses what is too much, with 422."""
    k = limits.topk if topk is None else topk
    if k > limits.max_topk:
        raise BadRequest(422, f"topk: got {k}, expected at most {limits.max_topk}")
    if k * queries > MAX_HITS:
        raise BadRequest(
            422,
            f"got {queries} queries with topk {k}, which may be {k * queries} hits; expected at "
            f"most {MAX_HITS} in one request: send several",
        )
    return k


def queries_of(body: Retrieve) -> list[str]:
    """Return the queries of a request under either name. Raises BadRequest for both or none."""
    if (body.queries is None) == (body.query is None):
        raise BadRequest(422, "expected either queries or query, got both or neither")
    given = body.queries if body.queries is not None else body.query
    return [given] if isinstance(given, str) else list(given or ())


def beside(value: str | list[str] | None, count: int, what: str) -> list[str | None]:
    """Spread what goes with queries: one string for all, or one for each. Raises BadRequest."""
    if value is None or isinstance(value, str):
        return [value] * count
    if len(value) != count:
        raise BadRequest(
            422, f"{what}: got {len(value)} strings for {count} queries, expected as many or one"
        )
    return list(value)
