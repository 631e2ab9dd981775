"""Trains an agent by reinforcement: roll out, reward, update; validate, save, notice a collapse.

The rollouts are the product's own, with the live weights. Each step's questions and draws are
keyed by the seed and the step, so a run that was killed goes on from its last checkpoint and ends
with the same weights, bit for bit. Several processes share the trajectories of a step out, to roll
out, to reward, to score and to learn from, and end as one alone would, but for rounding.

    FOLDER/checkpoints/step-N.pt   weights, optimisers, schedules, figures; the last few
    FOLDER/best.pt                 the same where validation was best
    FOLDER/model                   the best weights, in bfloat16, as Hugging Face writes them
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agentic_r.agent.guard import collapsed, invalid_rate, repeated
from agentic_r.agent.reinforce import Reinforcer
from agentic_r.agent.rewards import Rewarder, em
from agentic_r.agent.rollout import run_rollout
from agentic_r.agent.rollouts import Feed, Rollouts
from agentic_r.agent.saved import Saved, save_model
from agentic_r.agent.tokens import TokenDialect
from agentic_r.errors import DataError
from agentic_r.protocols import Dialect, Retriever, Sampling
from agentic_r.training.timed import Timed
from agentic_r.types import Question, Trajectory

MOST_ROLL_BACKS = 3


@dataclass(frozen=True)
class Practice:
    """Where the agent practises: what it searches, how it is shown passages, how long it may go."""

    retriever: Retriever
    dialect: Dialect
    k: int
    form: str
    turns: int
    max_tokens: int


@dataclass
class Learned:
    """What a training gave: figures of each step, the best dev EM and its step, why it ended."""

    curve: list[dict[str, float]] = field(default_factory=list)
    best: float = -1.0
    best_step: int = 0
    ended: str = ""
    roll_backs: int = 0


class Learning:
    """One training from `train` questions, validated greedily on `dev` questions.

    `on_step` hears each step's figures. With `rollouts` those servers draw, else the policy's own
    model. Raises DataError where there is no question.
    """

    def __init__(
        self,
        reinforcer: Reinforcer,
        practice: Practice,
        train: Sequence[Question],
        dev: Sequence[Question],
        folder: Path,
        on_step: Callable[[dict[str, float]], None] | None = None,
        rollouts: Rollouts | None = None,
    ) -> None:
        config = reinforcer.config
        if not train or not dev:
            raise DataError(
                f"got {len(train)} training and {len(dev)} dev questions, expected at least 1 of "
                "each for reinforcement learning"
            )
        self.reinforcer, self.practice, self.config = reinforcer, practice, config
        self.train, self.dev = list(train), list(dev)[: config.validate_questions]
        self.folder, self.processes = folder, reinforcer.processes
        policy = reinforcer.policy
        self.llm: Any = rollouts or policy.llm
        self.reward = Rewarder(config.reward)
        self.dialect: Any = TokenDialect(practice.dialect, policy.llm.tokenizer)
        self._feed = Feed(rollouts, policy, folder, self.processes) if rollouts else None
        self.saved = Saved(folder, config.keep, self.processes)
        self.learned = Learned()
        self._on_step = on_step or (lambda _: None)

    def run(self) -> Learned:
        """Train to the end, or on from the last checkpoint, and write the best model."""
        self._resume()
        silent = not self.processes.first
        total, done = self.config.steps, self.reinforcer.step
        with tqdm(total=total, initial=done, unit="step", disable=silent) as bar:
            bar.set_description("training the agent")
            if self.reinforcer.step == 0 and not self.learned.curve:
                self._validate({"step": 0.0})
            while self.reinforcer.step < self.config.steps and not self.learned.ended:
                figures = self._step()
                bar.n = self.reinforcer.step
                bar.set_postfix(reward=f"{figures['reward']:.3f}", dev=f"{self.learned.best:.3f}")
                self._on_step(figures)
        self.reinforcer.restore(self.saved.best()["reinforcer"])
        policy = self.reinforcer.policy
        model, weights = policy.whole()
        if self.processes.first:
            save_model(model, weights, policy.llm, self.folder / "model")
        if self._feed is not None:
            self._feed.close()
        return self.learned

    def _step(self) -> dict[str, float]:
        """Roll out, update, validate and save where it is time, look for a collapse."""
        step = self.reinforcer.step
        trajectories, figures = self._rollouts(step)
        kept = [t for t in trajectories if t.turns and t.turns[-1].tokens]
        if not kept:
            raise DataError(
                f"step {step}: all {len(trajectories)} rollouts failed; the first: "
                f"{trajectories[0].error}"
            )
        samples = [self.dialect.sample(trajectory) for trajectory in kept]
        rewards = self.processes.collect([self.reward(t) for t in self.processes.own(kept)])
        figures |= self.reinforcer.update(samples, rewards)
        if self._feed is not None:
            self._feed.refuse_others(figures["apart"])
        figures |= {
            "step": float(self.reinforcer.step),
            "reward": sum(rewards) / len(rewards),
            "em": sum(map(em, kept)) / len(kept),
            "searches": sum(len(t.searches) for t in kept) / len(kept),
            "written": sum(len(s.logprobs) for s in samples) / len(samples),
            "invalid": invalid_rate(kept),
            "repeated": repeated(kept),
            "failed": float(len(trajectories) - len(kept)),
        }
        last = self.reinforcer.step >= self.config.steps
        self.learned.curve.append(figures)
        if self.reinforcer.step % self.config.validate_every == 0 or last:
            self._validate(figures)
        if why := collapsed([f for f in self.learned.curve if "entropy" in f], self.config.guard):
            self._collapse(why)
        if self.reinforcer.step % self.config.save_every == 0 or last or self.learned.ended:
            self.saved.save(self._state(), self.reinforcer.step)
        return figures

    def _rollouts(self, step: int) -> tuple[list[Trajectory], dict[str, float]]:
        count = self.config.samples
        starts = [
            Trajectory(f"{question.dataset}/{question.id}#{sample}", question)
            for question in self._questions(step)
            for sample in range(count)
        ]
        # After a roll-back the same draws would lead to the same collapse.
        seed = (self.reinforcer.seed * 1_000_003 + step) * 8 + self.learned.roll_backs
        sampling = Sampling(
            self.practice.max_tokens,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            seed=seed,
        )
        return self._carried(starts, sampling)

    def _questions(self, step: int) -> list[Question]:
        """Return the questions of a step: whole passes over all, each in an order of its own."""
        wanted, size = self.config.questions, len(self.train)
        found = []
        for at in range(step * wanted, (step + 1) * wanted):
            number, place = divmod(at, size)
            order = list(range(size))
            random.Random(f"{self.reinforcer.seed}:questions:{number}").shuffle(order)
            found.append(self.train[order[place]])
        return _once(found)

    def _carried(
        self, starts: Sequence[Trajectory], sampling: Sampling
    ) -> tuple[list[Trajectory], dict[str, float]]:
        """Carry every start to its end, each process its share; seconds are this process's."""
        fed = 0.0
        if self._feed is not None:
            fed = self._feed.give((self.reinforcer.step, self.learned.roll_backs))
        began = time.perf_counter()
        retriever = Timed(self.practice.retriever)
        self.llm.forget()
        self.dialect.forget()
        policy = self.reinforcer.policy
        # What is drawn is scored as it was drawn; servers have the weights already.
        with policy.arithmetic() if self._feed is not None else policy.drawing():
            done = run_rollout(
                self.llm,
                retriever,
                self.processes.own(starts),
                self.dialect,
                k=self.practice.k,
                form=self.practice.form,
                turns=self.practice.turns,
                sampling=sampling,
                keep_tokens=True,
            )
        seconds = time.perf_counter() - began
        return self.processes.collect(done), {
            "generation_seconds": seconds - retriever.seconds,
            "retrieval_seconds": retriever.seconds,
            **({"weights_seconds": fed} if self._feed else {}),
        }

    def _validate(self, figures: dict[str, float]) -> None:
        """Answer the dev questions greedily and keep the weights where that was best."""
        starts = [Trajectory(f"{q.dataset}/{q.id}", q) for q in self.dev]
        done, _ = self._carried(starts, Sampling(self.practice.max_tokens))
        figures["dev_em"] = sum(map(em, done)) / len(done)
        figures["dev_searches"] = sum(len(t.searches) for t in done) / len(done)
        figures["dev_invalid"] = invalid_rate(done)
        if not self.learned.curve:
            self.learned.curve.append(figures)
        if figures["dev_em"] > self.learned.best:
            self.learned.best = figures["dev_em"]
            self.learned.best_step = self.reinforcer.step
            self.saved.save_best(self._state())

    def _collapse(self, why: str) -> None:
        """End, or go back to the best weights with half the learning rate."""
        again = self.config.guard.on_collapse == "roll-back"
        if not again or self.learned.roll_backs >= MOST_ROLL_BACKS:
            self.learned.ended = f"step {self.reinforcer.step}: {why}"
            return
        backs, best = self.learned.roll_backs + 1, self.saved.best()
        self.reinforcer.restore(best["reinforcer"])
        self.reinforcer.slow_down(0.5**backs)
        self.learned = Learned(**best["learned"])
        self.learned.roll_backs = backs
        self.saved.drop_after(self.reinforcer.step)
        self.saved.save(self._state(), self.reinforcer.step)
        if self.processes.first:
            tqdm.write(f"rolled back to step {self.reinforcer.step}: {why}")

    def _state(self) -> dict[str, Any]:
        learned = dict(vars(self.learned), curve=[dict(f) for f in self.learned.curve])
        return {"reinforcer": self.reinforcer.state(), "learned": learned}

    def _resume(self) -> None:
        state = self.saved.last()
        if state is not None:
            self.reinforcer.restore(state["reinforcer"])
            self.learned = Learned(**state["learned"])


def _once(questions: Sequence[Question]) -> list[Question]:
    """Return each question once: two draws of one in a step would have equal trajectories."""
    return list({question.key: question for question in questions}.values())
