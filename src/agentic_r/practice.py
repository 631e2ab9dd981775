"""The loop's agent stage: by reinforcement, or on its own correct trajectories."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agentic_r.agent.agent import TINY, tiny_checkpoint
from agentic_r.config import AgentConfig, Config
from agentic_r.data.questions import Questions
from agentic_r.data.rl_rows import load_rl_questions
from agentic_r.errors import ConfigError
from agentic_r.io import fingerprint, write_jsonl
from agentic_r.metrics import score_question
from agentic_r.parts import agent_key
from agentic_r.steps import Loop, Nothing, Retrieval
from agentic_r.training.trackers import check_tracker, open_tracker
from agentic_r.types import Trajectory

if TYPE_CHECKING:
    from agentic_r.agent.together import Job


def refuse_unfit(config: Config) -> None:
    """Raise ConfigError, before any work, where the agent cannot be trained by reward as set."""
    train = config.agent.train
    if train.wanted:
        check_tracker(train.tracker, "agent.train.tracker")
    if train.method == "supervised":
        return
    if config.agent.model.startswith(("http://", "https://", "vllm:")) or (
        config.agent.model == "oracle-reader"
    ):
        raise ConfigError(
            f"agent.train.method is {train.method}, but {config.agent.model} cannot be trained "
            "from here; set it to supervised, or set agent.model to a folder or hub name"
        )
    if train.method in ("grpo", "rloo") and train.rl.samples < 2:
        raise ConfigError(
            f"agent.train.rl.samples: got {train.rl.samples}, expected at least 2 with "
            f"{train.method}, which compares the trajectories of a question"
        )
    if train.rl.importance_cap and train.rl.old_logprobs == "sampled":
        raise ConfigError(
            "agent.train.rl.importance_cap: got a cap with old_logprobs sampled, whose ratio holds "
            "that difference already; set old_logprobs to recomputed, or the cap to 0"
        )
    if train.rl.shard and (train.rl.lora_rank or int(os.environ.get("WORLD_SIZE", "1")) < 2):
        why = "LoRA, whose base is not trained" if train.rl.lora_rank else "one process"
        raise ConfigError(
            f"agent.train.rl.shard: got true with {why}; leave it out, or start several processes "
            "with torchrun --nproc-per-node N -m agentic_r.cli train CONFIG agent"
        )
    if train.rl.rollouts and train.rl.top_p < 1:
        raise ConfigError(
            f"agent.train.rl.top_p: got {train.rl.top_p}, expected 1 with rollouts on a server, "
            "whose log-probabilities are those of the whole vocabulary"
        )


def reinforced(loop: Loop, name: str, retrieval: Retrieval) -> Loop:
    """Train the agent by reward with a retriever; returns the loop with the new agent.

    Resumed at the last checkpoint. The stage leaves model/ and curve.jsonl, one row a step.
    """
    from agentic_r.agent.agent import open_llm
    from agentic_r.agent.saved import Saved
    from agentic_r.agent.together import learn

    config, train = loop.config, loop.config.agent.train
    questions = practice_questions(loop)
    previous = train.rl.start == "previous"
    start = (
        msgspec.structs.replace(config.agent, model=getattr(loop.llm, "name", config.agent.model))
        if previous
        else config.agent
    )
    stage = loop.run.stage(
        name,
        {
            "method": train.method,
            **loop.settings("agent.train.rl"),
            "reward": loop.settings("agent.train.rl.reward"),
            "guard": loop.settings("agent.train.rl.guard"),
            "agent": loop.agent_settings(),
            "k": config.retriever.k,
            "input": config.retriever.input,
            "seed": config.seed,
        },
        {
            "questions": fingerprint(list(questions)),
            "dev": loop.data.digests["dev"],
            "agent": loop.llm_key if previous else agent_key(config),
            "retriever": retrieval.key,
        },
    )
    if not stage.done:
        tracker = open_tracker(
            train.tracker, f"{config.name} {name}", stage.folder, msgspec.to_builtins(train.rl)
        )

        def hear(figures: dict[str, float]) -> None:
            stage.tick()
            tracker.log(int(figures["step"]), figures)

        learned = learn(_job(loop, retrieval, questions, start, stage.folder), hear)
        tracker.close()
        write_jsonl(stage.folder / "curve.jsonl", learned.curve)
        Saved(stage.folder, train.rl.keep).discard()
        stage.finish(
            {"questions": len(questions), "steps": int(learned.curve[-1]["step"])},
            best_dev_em=learned.best,
            best_step=learned.best_step,
            roll_backs=learned.roll_backs,
            ended=learned.ended,
        )
    model = stage.folder / "model"
    opened = msgspec.structs.replace(config.agent, model=str(model))
    return loop.with_llm(open_llm(opened), stage.digest("model/model.safetensors"))


def agent_trained(loop: Loop, name: str, trajectories: Sequence[Trajectory]) -> Loop:
    """Train the agent on its own correct trajectories; returns the loop with the new agent."""
    from agentic_r.agent.agent import open_llm
    from agentic_r.agent.finetune import finetune

    correct = [t for t in trajectories if score_question(t.question, t.answer).em == 1.0]
    stage = loop.run.stage(
        name,
        {**loop.settings("agent.train"), "seed": loop.config.seed},
        {"trajectories": fingerprint(correct), "agent": loop.llm_key},
    )
    model = stage.folder / "model"
    if not stage.done:
        steps, skipped = finetune(
            loop.config.agent,
            correct,
            seed=loop.config.seed,
            folder=model,
            dialect=loop.agent(Nothing()).dialect,
            name=f"{loop.config.name} {name}",
            on_step=lambda _: stage.tick(),
        )
        stage.finish(
            {"trajectories": len(trajectories), "correct": len(correct), "steps": steps},
            {"wrong answer": len(trajectories) - len(correct), "too long": skipped},
        )
    config = msgspec.structs.replace(loop.config.agent, model=str(model))
    return loop.with_llm(open_llm(config), stage.digest("model/model.safetensors"))


def _job(
    loop: Loop, retrieval: Retrieval, questions: Questions, start: AgentConfig, folder: Path
) -> Job:
    """Say what is trained, how, and on what."""
    from agentic_r.agent.learning import Practice
    from agentic_r.agent.together import Job

    train, agent = loop.config.agent.train, loop.agent(retrieval.retriever)
    assert train.method != "supervised"
    practice = Practice(
        retrieval.retriever, agent.dialect, agent.k, agent.form, start.turns, start.max_tokens
    )
    return Job(
        str(tiny_checkpoint()) if start.model == TINY else start.model,
        start.batch,
        train.rl,
        train.method,
        loop.config.seed,
        practice,
        list(questions),
        list(loop.data.dev),
        folder,
        start,
    )


def practice_questions(loop: Loop) -> Questions:
    """Return the questions to practise on: those of `agent.train.rl.files`, else the run's."""
    files = loop.config.agent.train.rl.files
    return load_rl_questions([Path(file) for file in files]) if files else loop.data.train
