"""Every setting of the program: its name, type, default, range and one line about it.

The tables are the folders of the package. Each field carries its own line of documentation, from
which docs/config.md is made.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]

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


class RetrieverConfig(msgspec.Struct, frozen=True):
    """The dense retriever."""

    base: Annotated[
        str,
        Meta(min_length=1, description="Encoder to start from: name, folder or hub name."),
    ] = "all-MiniLM-L6-v2"
    input: Annotated[
        Literal["question+query", "query"],
        Meta(description="What is sent: question [SEP] query, or the agent's query alone."),
    ] = "question+query"
    k: Annotated[int, Meta(ge=1, description="Passages shown to the agent per search.")] = 2
    max_length: Annotated[int, Meta(ge=8, description="Longest encoder input in tokens.")] = 128
    batch_tokens: Annotated[int, Meta(ge=1, description="Tokens per encoding batch.")] = 4096
    train: RetrieverTrainConfig = RetrieverTrainConfig()


class AgentTrainConfig(msgspec.Struct, frozen=True):
    """How the agent is trained on its own correct trajectories."""

    epochs: Annotated[
        int, Meta(ge=0, description="Passes over the correct trajectories; 0 leaves the agent.")
    ] = 0
    learning_rate: Annotated[float, Meta(gt=0, description="Peak learning rate of AdamW.")] = 1e-4
    batch: Annotated[int, Meta(ge=1, description="Trajectories per step.")] = 16


class AgentConfig(msgspec.Struct, frozen=True):
    """The search agent."""

    model: Annotated[
        str,
        Meta(
            min_length=1,
            description="tiny (in the package), a folder, a hub name, http://... or oracle-reader.",
        ),
    ] = "tiny"
    name: Annotated[
        str, Meta(description="Model name on the server; empty takes the server's first.")
    ] = ""
    dialect: Annotated[
        Literal["search-r1"], Meta(description="Protocol that the agent speaks.")
    ] = "search-r1"
    prompt_file: Annotated[
        str, Meta(description="Prompt with {question} in it; empty takes the dialect's own.")
    ] = ""
    turns: Annotated[int, Meta(ge=1, description="Model calls per question at most.")] = 6
    max_tokens: Annotated[int, Meta(ge=1, description="New tokens per model call at most.")] = 160
    batch: Annotated[int, Meta(ge=1, description="Prompts that a local model decodes at once.")] = (
        64
    )
    concurrency: Annotated[int, Meta(ge=1, description="Requests to a server at once.")] = 32
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
    judge_concurrency: Annotated[
        int, Meta(ge=1, description="Requests to the judge's server at once.")
    ] = 16
    judge_timeout: Annotated[
        float, Meta(gt=0, description="Seconds to wait for one reply of the judge.")
    ] = 300.0
    judge_api_key_env: Annotated[
        str, Meta(description="Name of the environment variable that holds the judge's key.")
    ] = ""
    rule: Annotated[
        Literal["upstream", "graded"],
        Meta(description="Rule that selects positives and negatives."),
    ] = "upstream"
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
