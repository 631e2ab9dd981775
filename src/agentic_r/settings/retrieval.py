"""The settings of what finds passages: encoder, index, remote and web search."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SEARCH_ONLY = frozenset(
    f"retriever.{name}"
    for name in (
        *("index.workers", "kind", "cache", "rerank.model", "rerank.depth"),
        *("remote.url", "remote.api_key_env", "remote.timeout"),
        *("store.url", "store.name", "store.api_key_env", "store.timeout"),
    )
)
"""Settings that no stage of a run depends on: they move search and ask, or speed alone."""


class EncoderConfig(msgspec.Struct, frozen=True):
    """How the base encoder is read; auto takes what its files or its family say."""

    pooling: Annotated[
        Literal["auto", "mean", "cls", "last"],
        Meta(description="Which token states become the vector."),
    ] = "auto"
    normalise: Annotated[
        Literal["auto", "yes", "no"],
        Meta(description="Make vectors of unit length, so that scores are cosines."),
    ] = "auto"
    query_prefix: Annotated[
        str, Meta(description="Put before each query; auto, or the text itself, empty for none.")
    ] = "auto"
    passage_prefix: Annotated[
        str, Meta(description="Put before each passage; auto, or the text itself, empty for none.")
    ] = "auto"
    query_length: Annotated[
        int, Meta(ge=0, description="Longest query in tokens; 0 takes retriever.max_length.")
    ] = 0
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Meta(description="Weights; auto: float32 on a CPU, else as the checkpoint has them."),
    ] = "auto"


class IndexConfig(msgspec.Struct, frozen=True):
    """How passages are encoded and searched."""

    kind: Annotated[
        str,
        Meta(
            min_length=1,
            description="exact, sq8, pq, ivf-pq, hnsw, or any FAISS factory string.",
        ),
    ] = "exact"
    vectors: Annotated[
        Literal["fp32", "fp16"],
        Meta(description="Numbers of the exact vectors on the disk."),
    ] = "fp32"
    rescore: Annotated[
        Literal["auto", "none", "int8", "exact"],
        Meta(description="What the best of pq and ivf-pq are scored again with; auto: int8."),
    ] = "auto"
    candidates: Annotated[
        int, Meta(ge=1, description="Passages scored again per passage that is returned.")
    ] = 20
    probes: Annotated[
        int,
        Meta(ge=0, description="Lists (ivf-pq) or nodes (hnsw) visited; 0: an eighth, 128."),
    ] = 0
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "openvino"],
        Meta(
            description="Number format of encoding passages; auto: fp32 up to 20,000 passages, "
            "then bf16 where the hardware has it, through OpenVINO where it is installed."
        ),
    ] = "auto"
    ready: Annotated[
        str,
        Meta(
            description="Index folder of the base encoder, as convert index makes; empty encodes."
        ),
    ] = ""
    workers: Annotated[
        int, Meta(ge=0, description="Processes that encode a large corpus; 0: one a GPU.")
    ] = 0


class RemoteConfig(msgspec.Struct, frozen=True):
    """A retriever behind a URL, for kind remote or web."""

    url: Annotated[
        str, Meta(description="Server with POST /retrieve, or a Serper-compatible search API.")
    ] = ""
    api_key_env: Annotated[
        str, Meta(description="Name of the environment variable that holds its key.")
    ] = ""
    timeout: Annotated[float, Meta(gt=0, description="Seconds to wait for one reply.")] = 120.0


class StoreConfig(msgspec.Struct, frozen=True):
    """A vector engine that an index is published in, for kind qdrant."""

    url: Annotated[
        str, Meta(description="Qdrant server or cluster; a folder works in this process, slowly.")
    ] = ""
    name: Annotated[str, Meta(description="Alias that is searched: letters, digits and _.")] = (
        "agentic_r"
    )
    api_key_env: Annotated[
        str, Meta(description="Name of the environment variable that holds its key.")
    ] = ""
    timeout: Annotated[float, Meta(gt=0, description="Seconds to wait for one reply.")] = 120.0
