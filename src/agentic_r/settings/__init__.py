"""Every setting of the program: its name, type, default, range and one line about it.

The tables are the folders of the package. Each field carries its own line of documentation, from
which docs/config.md is made. The tables of the two learners have files of their own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agentic_r.settings.agent import AgentConfig, AgentTrainConfig, DialectName
from agentic_r.settings.retriever import (
    EncoderConfig,
    IndexConfig,
    Positive,
    RemoteConfig,
    RerankConfig,
    RetrieverConfig,
    RetrieverTrainConfig,
)
from agentic_r.settings.rl import GuardConfig, RewardConfig, RLConfig, VerlConfig

__all__ = [
    "AgentConfig",
    "AgentTrainConfig",
    "Config",
    "DataConfig",
    "DialectName",
    "EncoderConfig",
    "EvaluationConfig",
    "GivenConfig",
    "GuardConfig",
    "IndexConfig",
    "LoopConfig",
    "RLConfig",
    "RemoteConfig",
    "RerankConfig",
    "RetrieverConfig",
    "RetrieverTrainConfig",
    "RewardConfig",
    "ServeConfig",
    "UtilityConfig",
    "VerlConfig",
    "WorldConfig",
]

Entries = tuple[dict[str, Any], ...]
"""Tables of a list, each with settings of its own."""

JUDGE = r"^(offline|containment|gold|cross-encoder|likelihood|https?://.+)$"
"""What names a judge."""


class DataConfig(msgspec.Struct, frozen=True):
    """Where passages and questions come from."""

    source: Annotated[
        Literal["world", "files"],
        Meta(description="A generated world, or your own files."),
    ] = "world"
    corpus: Annotated[
        str, Meta(description="Corpus file for source files, relative to the working directory.")
    ] = ""
    questions: Annotated[
        str, Meta(description="Question file for source files, relative to the working directory.")
    ] = ""
    test: Annotated[
        str,
        Meta(description="Test question file; empty: questions are split, 10 % dev, 30 % test."),
    ] = ""
    sub_answers: Annotated[
        Literal["hops", "judge"],
        Meta(description="What a search should have found: annotated hops, or asked of the judge."),
    ] = "hops"


class GivenConfig(msgspec.Struct, frozen=True):
    """What was made elsewhere and is taken in place of steps of the first iteration.

    Each is a list of files in upstream's formats, one a data set, as paths from the working folder;
    trajectories may be ours.
    """

    trajectories: Annotated[
        tuple[str, ...],
        Meta(description="What the agent did on training questions; it is asked the others alone."),
    ] = ()
    candidates: Annotated[
        tuple[str, ...],
        Meta(description="Passages to label at their searches, in place of those retrieved."),
    ] = ()
    sub_answers: Annotated[
        tuple[str, ...],
        Meta(description="What their searches should have found, before data.sub_answers."),
    ] = ()
    row_numbers: Annotated[
        bool, Meta(description="Candidates are rows of the corpus, as upstream names them.")
    ] = False


class WorldConfig(msgspec.Struct, frozen=True):
    """How large the generated world is."""

    people: Annotated[int, Meta(ge=10, description="Invented people.")] = 84
    companies: Annotated[int, Meta(ge=10, description="Invented companies.")] = 54
    cities: Annotated[int, Meta(ge=10, description="Invented cities.")] = 54
    films: Annotated[int, Meta(ge=10, description="Invented films.")] = 46
    novels: Annotated[int, Meta(ge=10, description="Invented novels.")] = 46
    train_questions: Annotated[int, Meta(ge=1, description="Questions to train on.")] = 700
    dev_questions: Annotated[int, Meta(ge=1, description="Questions to choose settings on.")] = 120
    test_questions: Annotated[int, Meta(ge=1, description="Questions held out.")] = 440


class UtilityConfig(msgspec.Struct, frozen=True):
    """How passages are judged and training examples are selected."""

    candidates: Annotated[int, Meta(ge=2, description="Passages considered per search.")] = 20
    judge: Annotated[
        str,
        Meta(
            pattern=JUDGE,
            description=(
                "Judge of relevance: offline, containment, gold, cross-encoder, likelihood, or "
                "http://... of a chat server."
            ),
        ),
    ] = "offline"
    judge_name: Annotated[
        str,
        Meta(
            description=(
                "Judge's model: its name on the server (empty takes the first), or the folder or "
                "hub name of the cross-encoder or language model."
            )
        ),
    ] = ""
    judge_input: Annotated[
        Literal["query", "question+query", "question+reasoning+query"],
        Meta(description="What a chat model is told of the search besides the reference."),
    ] = "query"
    window: Annotated[
        int, Meta(ge=2, description="Passages that a chat model grades in one call at most.")
    ] = 20
    anchors: Annotated[
        int,
        Meta(ge=0, description="Passages shown in every window, to put windows on one scale."),
    ] = 2
    structured: Annotated[
        Literal["auto", "off"],
        Meta(description="Hold a chat model to a JSON schema where its server can: auto or off."),
    ] = "auto"
    cache: Annotated[
        str,
        Meta(
            min_length=1,
            description="File of what judges have said: auto (in the folder of runs), off, a path.",
        ),
    ] = "auto"
    judge_tokens: Annotated[
        int, Meta(ge=1, description="New tokens per reply of the judge; thinking needs more.")
    ] = 1000
    judge_prompt_file: Annotated[
        str,
        Meta(description="Your own words for grading, with {query} and {passages} in them."),
    ] = ""
    subanswer_prompt_file: Annotated[
        str,
        Meta(description="Your own words for asking sub-answers, with {trajectory} in them."),
    ] = ""
    judge_concurrency: Annotated[
        int, Meta(ge=1, description="Requests to the judge's server at once.")
    ] = 16
    judge_retries: Annotated[
        int, Meta(ge=0, description="Further tries of a request to the judge.")
    ] = 8
    judge_price: Annotated[
        tuple[float, float],
        Meta(description="The judge's price per million tokens, read and written."),
    ] = (0.0, 0.0)
    judge_timeout: Annotated[
        float, Meta(gt=0, description="Seconds to wait for one reply of the judge.")
    ] = 300.0
    judge_api_key_env: Annotated[
        str, Meta(description="Name of the environment variable that holds the judge's key.")
    ] = ""
    rule: Annotated[
        Literal["upstream", "graded"],
        Meta(description="Rule that selects positives and negatives."),
    ] = "graded"
    signals: Annotated[
        Literal["both", "relevance", "correctness"],
        Meta(description="Rule upstream: go by both signals, or by one alone (ablation)."),
    ] = "both"
    relevance: Annotated[
        float, Meta(ge=0, le=100, description="Least relevance of a positive, 0-100.")
    ] = 60.0
    max_positives: Annotated[int, Meta(ge=1, description="Positives used per search.")] = 3
    negatives: Annotated[int, Meta(ge=1, description="Hard negatives per search.")] = 15
    per_question: Annotated[
        int, Meta(ge=0, description="Searches kept per question at most; 0 keeps all.")
    ] = 0
    margin: Annotated[
        float,
        Meta(ge=0, le=100, description="Rule graded: points of relevance that count as equal."),
    ] = 10.0
    fewer_searches: Annotated[
        bool,
        Meta(description="Rule graded: of equal passages prefer those that save searches."),
    ] = True
    unanswered: Annotated[
        Literal["drop", "relevance"],
        Meta(
            description="Rule graded: searches after which the agent never succeeds are dropped, "
            "or judged by relevance alone."
        ),
    ] = "relevance"
    samples: Annotated[
        int, Meta(ge=1, description="Continuations averaged per candidate; 1 decodes greedily.")
    ] = 1
    temperature: Annotated[
        float, Meta(gt=0, le=2, description="Temperature of continuations where samples > 1.")
    ] = 1.0
    evidence: Annotated[
        Literal["alone", "in-place"],
        Meta(description="The passage alone, or in place of the top hit among the usual k."),
    ] = "alone"
    baseline: Annotated[
        bool, Meta(description="Count what a passage adds to continuing without any.")
    ] = False
    exhaustive: Annotated[
        bool, Meta(description="Continue from every candidate, also where it cannot matter.")
    ] = False
    continued_searches: Annotated[
        bool, Meta(description="Also label the searches inside a successful continuation.")
    ] = True


class LoopConfig(msgspec.Struct, frozen=True):
    """The iteration of rollout, labelling and training."""

    iterations: Annotated[int, Meta(ge=1, description="Times the retriever is trained.")] = 2


class EvaluationConfig(msgspec.Struct, frozen=True):
    """What the table compares."""

    ks: Annotated[
        tuple[Positive, ...],
        Meta(min_length=1, description="Values of k for the untouched encoder in the table."),
    ] = (1, 2, 3)
    bm25: Annotated[bool, Meta(description="Have a row for BM25.")] = True
    oracle: Annotated[bool, Meta(description="Have a row for oracle retrieval.")] = True
    bootstrap: Annotated[
        int, Meta(ge=1, description="Samples of the paired bootstrap clustered by root.")
    ] = 10000
    agents: Annotated[
        Entries,
        Meta(description="Agents of the grid: each a label and settings of [agent] that differ."),
    ] = ()
    retrievers: Annotated[
        Entries,
        Meta(
            description="Retrievers of the grid: a label, a kind (dense, bm25, oracle) and "
            "settings of [retriever] that differ."
        ),
    ] = ()
    datasets: Annotated[
        Entries,
        Meta(
            description="Data sets of the grid: name, path, split, sample, qrels, answers "
            "(see docs/evaluate.md)."
        ),
    ] = ()
    sample: Annotated[
        int, Meta(ge=0, description="Questions drawn from a data set that sets none; 0 for all.")
    ] = 0
    depth: Annotated[
        int, Meta(ge=3, description="Hits of each search in the TREC files of the grid.")
    ] = 10


class ServeConfig(msgspec.Struct, frozen=True):
    """The service that answers searches over HTTP and MCP; no result of a run depends on it."""

    host: Annotated[
        str, Meta(min_length=1, description="Address to listen at; 0.0.0.0 is every network.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port; 0 takes a free one.")] = 8000
    token_env: Annotated[
        str,
        Meta(description="Name of the environment variable with the bearer token; empty: none."),
    ] = ""
    topk: Annotated[int, Meta(ge=1, description="Hits per query where a request names none.")] = 3
    max_topk: Annotated[int, Meta(ge=1, description="Largest topk of a request.")] = 1000
    max_queries: Annotated[int, Meta(ge=1, description="Most queries of one request.")] = 4096
    max_chars: Annotated[
        int, Meta(ge=1, description="Longest query, question or reasoning in characters.")
    ] = 32768
    max_body_mib: Annotated[int, Meta(ge=1, description="Largest body of a request, MiB.")] = 16
    queue: Annotated[
        int, Meta(ge=1, description="Requests that may wait; beyond it the answer is 503.")
    ] = 256
    timeout: Annotated[
        float, Meta(ge=120, description="Seconds after which a request is answered with 504.")
    ] = 600.0
    batch: Annotated[int, Meta(ge=1, description="Queries searched for at once at most.")] = 64
    cache_mib: Annotated[
        int, Meta(ge=0, description="Memory for answers of earlier queries, MiB; 0 keeps none.")
    ] = 64
    shards: Annotated[
        tuple[str, ...],
        Meta(description="Servers that hold a part of the corpus each; empty: all of it is here."),
    ] = ()
    missing_shard: Annotated[
        Literal["refuse", "answer"],
        Meta(description="A shard is away: refuse with 503, or answer and say that it is partial."),
    ] = "refuse"
    shard_timeout: Annotated[
        float, Meta(gt=0, description="Seconds after which a shard counts as away.")
    ] = 30.0
    shard_token_env: Annotated[
        str, Meta(description="Name of the environment variable with the shards' token.")
    ] = ""


class Config(msgspec.Struct, frozen=True):
    """All settings of a run."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
            description="Name of the run, which is its folder's name.",
        ),
    ] = "quickstart"
    seed: Annotated[
        int, Meta(ge=0, description="Moves the world, the sampling and the training.")
    ] = 0
    runs: Annotated[str, Meta(min_length=1, description="Folder that holds the runs.")] = "runs"
    data: DataConfig = DataConfig()
    given: GivenConfig = GivenConfig()
    world: WorldConfig = WorldConfig()
    retriever: RetrieverConfig = RetrieverConfig()
    agent: AgentConfig = AgentConfig()
    utility: UtilityConfig = UtilityConfig()
    loop: LoopConfig = LoopConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serve: ServeConfig = ServeConfig()
