"""Every setting of the program: its name, type, default, range and one line about it.

The tables are the folders of the package. Each field carries its own line of documentation, from
which docs/config.md is made.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agentic_r.settings_rl import RLConfig

Positive = Annotated[int, Meta(ge=1)]

Entries = tuple[dict[str, Any], ...]
"""Tables of a list, each with settings of its own."""

JUDGE = r"^(offline|https?://.+)$"
"""What names a judge."""


DialectName = Literal[
    "search-r1",
    "search-r1-rl",
    "r1-searcher",
    "simple-deep-searcher",
    "autorefine",
    "o2-searcher",
    "rearag",
    "corag",
    "react",
    "tool-calling",
    "direct",
    "rag",
    "ircot",
    "self-ask",
    "iter-retgen",
    "flare",
]
"""The packaged agent protocols; `agent/dialects` has one file for each."""


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
        0.02
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
        Meta(description="Number format of training; auto takes bf16 where the hardware has it."),
    ] = "auto"


class RerankConfig(msgspec.Struct, frozen=True):
    """How a small re-ranker, which reads query and passage together, learns the same labels."""

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
        Meta(description="Number format of training; auto takes bf16 where the hardware has it."),
    ] = "auto"


class RetrieverConfig(msgspec.Struct, frozen=True):
    """The dense retriever."""

    base: Annotated[
        str,
        Meta(min_length=1, description="Encoder to start from: name, folder or hub name."),
    ] = "all-MiniLM-L6-v2"
    input: Annotated[
        Literal["question+query", "query", "question+reasoning+query", "question+history+query"],
        Meta(description="What is sent: the agent's query, and what stands before it."),
    ] = "question+query"
    k: Annotated[int, Meta(ge=1, description="Passages shown to the agent per search.")] = 2
    max_length: Annotated[int, Meta(ge=8, description="Longest encoder input in tokens.")] = 128
    batch_tokens: Annotated[int, Meta(ge=1, description="Tokens per encoding batch.")] = 4096
    train: RetrieverTrainConfig = RetrieverTrainConfig()
    rerank: RerankConfig = RerankConfig()


class AgentTrainConfig(msgspec.Struct, frozen=True):
    """How the agent is trained: on its own correct trajectories, or by reinforcement."""

    method: Annotated[
        Literal["supervised", "ppo", "grpo", "rloo", "reinforce++"],
        Meta(description="Imitate correct trajectories, or learn from rewards ([agent.train.rl])."),
    ] = "supervised"
    epochs: Annotated[
        int, Meta(ge=0, description="Passes over the correct trajectories; 0 leaves the agent.")
    ] = 0
    learning_rate: Annotated[float, Meta(gt=0, description="Peak learning rate of AdamW.")] = 1e-4
    batch: Annotated[int, Meta(ge=1, description="Trajectories per step.")] = 16
    rl: RLConfig = RLConfig()

    @property
    def wanted(self) -> bool:
        """Whether the loop trains the agent at all."""
        return self.method != "supervised" or self.epochs > 0


class AgentConfig(msgspec.Struct, frozen=True):
    """The search agent."""

    model: Annotated[
        str,
        Meta(
            min_length=1,
            description="tiny (in the package), a folder, a hub name, http://... (several with "
            "commas or as a list) or oracle-reader.",
        ),
    ] = "tiny"
    name: Annotated[
        str, Meta(description="Model name on the server; empty takes the server's first.")
    ] = ""
    dialect: Annotated[
        DialectName, Meta(description="Protocol that the agent speaks, see docs/dialects.md.")
    ] = "search-r1"
    prompt_file: Annotated[
        str, Meta(description="Prompt with {question} in it; empty takes the dialect's own.")
    ] = ""
    invalid_file: Annotated[
        str,
        Meta(
            description="What the model is told of an unreadable turn; empty takes the dialect's."
        ),
    ] = ""
    chat: Annotated[
        bool,
        Meta(description="Put a text dialect's prompt into the model's chat template."),
    ] = False
    turns: Annotated[
        int,
        Meta(ge=0, description="Model calls per question at most; 0 takes the dialect's own."),
    ] = 0
    max_tokens: Annotated[int, Meta(ge=1, description="New tokens per model call at most.")] = 160
    batch: Annotated[int, Meta(ge=1, description="Prompts that a local model decodes at once.")] = (
        64
    )
    precision: Annotated[
        Literal["fp32", "bf16"], Meta(description="Number format of a local model.")
    ] = "fp32"
    concurrency: Annotated[int, Meta(ge=1, description="Requests to each server at once.")] = 32
    retries: Annotated[
        int, Meta(ge=0, description="Further tries of a request, with growing pauses.")
    ] = 8
    price: Annotated[
        tuple[float, float], Meta(description="Price per million tokens, read and written.")
    ] = (0.0, 0.0)
    api_key_env: Annotated[
        str, Meta(description="Name of the environment variable that holds the server's key.")
    ] = ""
    timeout: Annotated[float, Meta(gt=0, description="Seconds to wait for one completion.")] = 120.0
    train: AgentTrainConfig = AgentTrainConfig()


class UtilityConfig(msgspec.Struct, frozen=True):
    """How passages are judged and training examples are selected."""

    candidates: Annotated[int, Meta(ge=2, description="Passages considered per search.")] = 20
    judge: Annotated[
        str,
        Meta(
            pattern=JUDGE,
            description="Judge of relevance: offline, or http://... of a chat server.",
        ),
    ] = "offline"
    judge_name: Annotated[
        str, Meta(description="Judge's model name on the server; empty takes the server's first.")
    ] = ""
    judge_tokens: Annotated[
        int, Meta(ge=1, description="New tokens per reply of the judge; thinking needs more.")
    ] = 1000
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
        Literal["upstream"], Meta(description="Rule that selects positives and negatives.")
    ] = "upstream"
    relevance: Annotated[
        float, Meta(ge=0, le=100, description="Least relevance of a positive, 0-100.")
    ] = 60.0
    max_positives: Annotated[int, Meta(ge=1, description="Positives used per search.")] = 3
    negatives: Annotated[int, Meta(ge=1, description="Hard negatives per search.")] = 15
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
    world: WorldConfig = WorldConfig()
    retriever: RetrieverConfig = RetrieverConfig()
    agent: AgentConfig = AgentConfig()
    utility: UtilityConfig = UtilityConfig()
    loop: LoopConfig = LoopConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serve: ServeConfig = ServeConfig()
