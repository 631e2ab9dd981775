"""The settings of the retriever: what finds passages, how it is trained, its re-ranker."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SEARCH_ONLY = frozenset(
    f"retriever.{name}"
    for name in (
        *("index.workers", "index.scale", "kind", "cache", "rerank.model", "rerank.depth"),
        *("remote.url", "remote.api_key_env", "remote.timeout"),
        *("store.url", "store.name", "store.api_key_env", "store.timeout", "store.build_timeout"),
    )
)
"""Settings that a run may change: they move search and ask, or speed alone.

Rows of a trained re-ranker name its depth among their inputs, and refuse another themselves.
"""

Positive = Annotated[int, Meta(ge=1)]


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
    ] = 40
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
    scale: Annotated[
        Literal["local", "ray"],
        Meta(
            description="Where they run: on this machine, or on the Ray cluster of RAY_ADDRESS "
            "(one of this machine alone without); then 0 workers is one a GPU, else one a core."
        ),
    ] = "local"


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
    """A vector engine that an index is published in, for kind qdrant and kind milvus."""

    url: Annotated[
        str,
        Meta(
            description="Server or cluster; in this process, slowly: a folder for Qdrant, a path "
            "ending in .db for Milvus."
        ),
    ] = ""
    name: Annotated[str, Meta(description="Alias that is searched: letters, digits and _.")] = (
        "agentic_r"
    )
    api_key_env: Annotated[
        str, Meta(description="Name of the environment variable that holds its key.")
    ] = ""
    timeout: Annotated[float, Meta(gt=0, description="Seconds to wait for one reply.")] = 120.0
    build_timeout: Annotated[
        float, Meta(gt=0, description="Seconds that it may take to make a version searchable.")
    ] = 21_600.0


class RetrieverTrainConfig(msgspec.Struct, frozen=True):
    """How the encoder is trained on the selected passages."""

    recipe: Annotated[
        Literal["agentic-r", "upstream"],
        Meta(
            description="Upstream fixes temperature 0.01, a row per positive with all its "
            "negatives, cross-entropy over every passage of the batch, no masks."
        ),
    ] = "agentic-r"
    loss: Annotated[
        Literal["info-nce", "multi-positive", "listwise-kl", "rank-net"],
        Meta(description="The last two learn graded targets beside InfoNCE; docs/training.md."),
    ] = "info-nce"
    graded_weight: Annotated[
        float, Meta(ge=0, le=1, description="Share of the graded loss beside InfoNCE.")
    ] = 0.5
    sharpness: Annotated[
        float, Meta(gt=0, description="Divisor of graded targets (0-1) before their softmax.")
    ] = 0.25
    matryoshka: Annotated[
        tuple[Positive, ...],
        Meta(description="Lengths at which cut vectors should work too; empty: whole ones only."),
    ] = ()
    epochs: Annotated[int, Meta(ge=1, description="Passes over the examples.")] = 2
    batch: Annotated[int, Meta(ge=1, description="Examples per step.")] = 16
    learning_rate: Annotated[float, Meta(gt=0, description="Peak learning rate of AdamW.")] = 5e-5
    temperature: Annotated[float, Meta(gt=0, description="Divisor of the cosine in InfoNCE.")] = (
        0.05
    )
    warmup: Annotated[
        float, Meta(ge=0, le=1, description="Share of the steps with a rising learning rate.")
    ] = 0.1
    negatives: Annotated[
        int, Meta(ge=1, description="Hard negatives drawn anew for each example in each epoch.")
    ] = 15
    side: Annotated[
        Literal["both", "query"],
        Meta(description="What learns: the encoder, or its query side alone; the index stays."),
    ] = "both"
    lora_rank: Annotated[
        int, Meta(ge=0, description="Rank of LoRA adapters, merged at the end; 0: all weights.")
    ] = 0
    lora_alpha: Annotated[int, Meta(ge=1, description="Scale of LoRA: alpha / rank.")] = 32
    cache_tokens: Annotated[
        int,
        Meta(
            ge=0,
            description="Tokens encoded at once with gradient caching: same gradients, little "
            "memory, more time; 0: off.",
        ),
    ] = 0
    gradient_checkpointing: Annotated[
        bool, Meta(description="Recompute activations in the backward pass to save memory.")
    ] = False
    refresh: Annotated[
        int,
        Meta(ge=0, description="Epochs between searches for new hard negatives; 0: never."),
    ] = 0
    refresh_margin: Annotated[
        float,
        Meta(gt=0, le=1, description="Share of the positive's cosine a new negative may reach."),
    ] = 0.95
    evaluations: Annotated[
        int, Meta(ge=0, description="Times per epoch that dev hit@k is measured; 0: never.")
    ] = 1
    dev_k: Annotated[int, Meta(ge=1, description="k of dev hit@k.")] = 3
    dev_passages: Annotated[
        int, Meta(ge=1, description="Passages that dev queries are searched in.")
    ] = 500
    hold_out: Annotated[
        float,
        Meta(
            ge=0,
            le=0.5,
            description="Share of the questions kept from training to measure on; 0: dev "
            "questions with gold passages.",
        ),
    ] = 0.0
    keep: Annotated[
        Literal["last", "best"],
        Meta(description="Weights that are kept: the last, or the best on dev."),
    ] = "last"
    patience: Annotated[
        int,
        Meta(ge=0, description="Measurements without a better one that end training; 0: none do."),
    ] = 0
    tracker: Annotated[
        Literal["none", "tensorboard", "trackio", "wandb"],
        Meta(description="Where curves are shown live, if installed."),
    ] = "none"
    start: Annotated[
        Literal["base", "previous"],
        Meta(description="Weights that each iteration starts from."),
    ] = "base"
    examples: Annotated[
        Literal["latest", "all"],
        Meta(description="Examples trained on: this iteration's, or those of all so far."),
    ] = "latest"
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Meta(
            description="Number format of training; auto: bf16 where the hardware is faster in it."
        ),
    ] = "auto"


class RerankConfig(msgspec.Struct, frozen=True):
    """A re-ranker, which reads query and passage together: its use, and how it is trained."""

    model: Annotated[
        str,
        Meta(
            description="Cross-encoder or late-interaction model that search, ask and serve rank "
            "anew with: folder or hub name; empty ranks nothing anew."
        ),
    ] = ""
    depth: Annotated[int, Meta(ge=1, description="Passages that are ranked anew.")] = 50
    weight: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Share of its score beside the retriever's, both scaled to 0-1; 0: what "
            "did best on dev where it was trained, else 1.",
        ),
    ] = 0.0
    epochs: Annotated[
        int, Meta(ge=0, description="Passes over the examples; 0: no re-ranker is trained.")
    ] = 0
    base: Annotated[
        str,
        Meta(description="What it starts from: name, folder or hub name; empty: retriever.base."),
    ] = ""
    loss: Annotated[
        Literal["listwise", "pointwise"],
        Meta(description="Distribution over a list of passages, or each passage's utility alone."),
    ] = "listwise"
    sharpness: Annotated[
        float, Meta(gt=0, description="Divisor of graded targets (0-1) before their softmax.")
    ] = 0.25
    batch: Annotated[int, Meta(ge=1, description="Lists, one an example, per step.")] = 8
    learning_rate: Annotated[float, Meta(gt=0, description="Peak learning rate of AdamW.")] = 5e-5
    warmup: Annotated[
        float, Meta(ge=0, le=1, description="Share of the steps with a rising learning rate.")
    ] = 0.1
    negatives: Annotated[
        int, Meta(ge=1, description="Negatives drawn anew for each list in each epoch.")
    ] = 15
    max_length: Annotated[
        int, Meta(ge=8, description="Longest query and passage together in tokens.")
    ] = 256
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Meta(
            description="Number format of training; auto: bf16 where the hardware is faster in it."
        ),
    ] = "auto"


class RetrieverConfig(msgspec.Struct, frozen=True):
    """The retriever."""

    kind: Annotated[
        Literal["dense", "bm25", "fused", "remote", "web", "qdrant", "milvus"],
        Meta(
            description="What search, ask and serve use; fused: dense and BM25. The loop is dense."
        ),
    ] = "dense"
    cache: Annotated[
        str, Meta(description="File that keeps what search and ask found; empty keeps nothing.")
    ] = ""

    base: Annotated[
        str,
        Meta(min_length=1, description="Encoder to start from: name, folder or hub name."),
    ] = "all-MiniLM-L6-v2"
    input: Annotated[
        Literal["question+query", "query", "question+reasoning+query", "question+history+query"],
        Meta(description="What is sent: the agent's query, and what stands before it."),
    ] = "question+query"
    k: Annotated[int, Meta(ge=1, description="Passages shown to the agent per search.")] = 2
    max_length: Annotated[
        int, Meta(ge=0, description="Longest encoder input in tokens; 0 takes the model's own.")
    ] = 128
    batch_tokens: Annotated[int, Meta(ge=1, description="Tokens per encoding batch.")] = 4096
    encoder: EncoderConfig = EncoderConfig()
    index: IndexConfig = IndexConfig()
    remote: RemoteConfig = RemoteConfig()
    store: StoreConfig = StoreConfig()
    train: RetrieverTrainConfig = RetrieverTrainConfig()
    rerank: RerankConfig = RerankConfig()
