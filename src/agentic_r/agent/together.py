"""A training of the agent by reward as a job for every process of a `torchrun`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from agentic_r.agent.learning import Learned, Learning, Practice
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.policy import Policy
from agentic_r.agent.reinforce import Method, Reinforcer
from agentic_r.agent.rollouts import Rollouts
from agentic_r.settings import AgentConfig, RLConfig
from agentic_r.training.jobs import hand_out
from agentic_r.training.lending import lent
from agentic_r.training.processes import join
from agentic_r.types import Question

OnStep = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Job:
    """What is trained, how, and on what. Every process opens `model`, a folder or hub name.

    `agent` says how servers that draw are reached.
    """

    model: str
    batch: int
    config: RLConfig
    method: Method
    seed: int
    practice: Practice
    train: list[Question]
    dev: list[Question]
    folder: Path
    agent: AgentConfig = field(default_factory=AgentConfig)

    def take_part(self) -> None:
        """Train with the other processes, writing nothing."""
        self.learning().run()

    def learning(self, on_step: OnStep | None = None) -> Learning:
        """Open the weights, with their critic and reference, and what they practise on."""
        llm = LocalLLM(self.model, batch=self.batch)
        reference, critic = self.config.kl != "none", self.method == "ppo"
        processes = join()
        policy = Policy(llm, self.config, reference=reference, critic=critic, processes=processes)
        reinforcer = Reinforcer(policy, self.method, self.config.steps, self.seed, processes)
        rollouts = Rollouts(self.config.rollouts, self.agent) if self.config.rollouts else None
        questions = self.train, self.dev
        return Learning(reinforcer, self.practice, *questions, self.folder, on_step, rollouts)


def learn(job: Job, on_step: OnStep | None = None) -> Learned:
    """Train with the waiting processes, which search with this one's retriever."""
    if join().size == 1:
        return job.learning(on_step).run()
    with lent(job.practice.retriever) as (own, borrowed):
        hand_out(replace(job, practice=replace(job.practice, retriever=borrowed)))
        return replace(job, practice=replace(job.practice, retriever=own)).learning(on_step).run()
