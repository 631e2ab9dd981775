"""One update of reinforcement learning, from sampled trajectories and their rewards.

    score       values and, where wanted, reference and old log-probabilities, each once
    advantages  PPO (GAE), GRPO, RLOO or REINFORCE++
    update      mini-batches of packed micro-batches, one optimiser step each

Every number stands in a table [trajectories, written tokens]; the environment's tokens have no
place in it, so that nothing can be learned from them or about them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from agentic_r.agent.advantage import gae, grpo, reinforce_plus_plus, rloo, whiten
from agentic_r.agent.batch import Packed, pack, table
from agentic_r.agent.descent import Descent, rising
from agentic_r.agent.loss import (
    importance,
    kl_term,
    policy_term,
    token_weights,
    value_term,
    weighted,
)
from agentic_r.agent.policy import Policy
from agentic_r.agent.tokens import Sample
from agentic_r.errors import ConfigError
from agentic_r.training.processes import ALONE, Processes

Method = Literal["ppo", "grpo", "rloo", "reinforce++"]


class Reinforcer:
    """Updates a policy; `steps` is how many updates there will be, for the warm-up.

    Raises ConfigError where grpo or rloo are to compare a single trajectory a question.
    """

    def __init__(
        self,
        policy: Policy,
        method: Method,
        steps: int,
        seed: int,
        processes: Processes = ALONE,
    ) -> None:
        config = policy.config
        self.processes = processes
        if method in ("grpo", "rloo") and config.samples < 2:
            raise ConfigError(
                f"agent.train.rl.samples: got {config.samples}, expected at least 2 with "
                f"{method}, which compares the trajectories of a question"
            )
        self.policy, self.method, self.config, self.seed = policy, method, config, seed
        self.step = 0
        self._descents = [
            self._descent(policy.parameters(), config.learning_rate, config.warmup * steps)
        ]
        if policy.critic is not None:
            rising_for = config.critic_warmup * steps
            self._descents.append(
                self._descent(policy.critic.parameters(), config.critic_learning_rate, rising_for)
            )

    def _descent(self, parameters: Iterable[Tensor], rate: float, rising_for: float) -> Descent:
        norm, scale = self.config.max_grad_norm, rising(rising_for)
        return Descent(parameters, rate, scale, max_norm=norm, processes=self.processes)

    def update(self, samples: Sequence[Sample], rewards: Sequence[float]) -> dict[str, float]:
        """Take one step and return its figures; seconds are split into scoring and update."""
        began = time.perf_counter()
        known = self._score(samples)
        mask = known["mask"].bool()
        self._advantages(known, samples, rewards)
        scored = time.perf_counter()
        figures = self._learn(samples, known)
        self.step += 1
        for descent in self._descents:
            descent.advance()
        # What draws and what is trained are the same weights; where they say different things of
        # what was drawn, an engine or a number format is at fault.
        apart = (known["sampled"] - known["now"])[mask]
        mismatch = float(apart.mean())
        if self.config.importance_cap:
            figures["importance"] = float(known["importance"][mask].mean())
        return figures | {
            "entropy": float(known["entropy"][mask].mean()),
            "mismatch": mismatch,
            "apart": float(apart.abs().mean()),
            "kl": float(known["kl"][mask].mean()) if "kl" in known else mismatch,
            "scoring_seconds": scored - began,
            "update_seconds": time.perf_counter() - scored,
        }

    def _score(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Read the trajectories once: what the model, the reference and the critic say of them."""
        mask = table(samples)
        sampled = torch.zeros(mask.shape)
        sampled[mask] = torch.tensor([number for s in samples for number in s.logprobs])
        shares = self.processes.shares([len(sample.ids) for sample in samples])
        mine = [samples[row] for row in shares[self.processes.rank]]
        shape = (len(mine), mask.shape[1])
        read = {name: torch.zeros(shape) for name in ("values", "entropy", "now", "ref")}
        with torch.no_grad():
            for packed in self._packed(mine, samples[0]):
                at = (packed.owner.cpu(), packed.place.cpu())
                written = self.policy.score(packed)
                read["now"][at] = written.logprobs.cpu()
                read["entropy"][at] = written.entropy.cpu()
                if self.policy.critic is not None:
                    read["values"][at] = self.policy.critic(packed, written.hidden).cpu()
                if self.config.kl != "none":
                    read["ref"][at] = self.policy.reference(packed).cpu()
        known = {name: self.processes.gather(own, shares) for name, own in read.items()}
        known["old"] = sampled if self.config.old_logprobs == "sampled" else known["now"]
        known["importance"] = torch.ones(mask.shape)
        if self.config.importance_cap:
            known["importance"] = importance(known["now"], sampled, self.config.importance_cap)
        if self.config.kl != "none":
            known["kl"] = torch.where(mask, known["now"] - known["ref"], 0.0)
        return known | {"mask": mask, "sampled": sampled}

    def _advantages(
        self, known: dict[str, Tensor], samples: Sequence[Sample], rewards: Sequence[float]
    ) -> None:
        """Put the reward on each last written token, take the KL off, and estimate."""
        mask, config = known["mask"].bool(), self.config
        given = torch.zeros(mask.shape)
        last = mask.sum(-1) - 1
        given[torch.arange(len(samples)), last] = torch.tensor(list(rewards), dtype=torch.float32)
        if config.kl == "reward":
            penalty = kl_term(known["old"], known["ref"], config.kl_kind)
            given = given - config.kl_coefficient * torch.where(mask, penalty, 0.0)
        keys = [sample.key for sample in samples]
        if self.method == "ppo":
            advantages, known["targets"] = gae(
                given, known["values"], mask, gamma=config.gamma, lam=config.lam
            )
            advantages = whiten(advantages, mask)
        elif self.method == "grpo":
            advantages = grpo(given, mask, keys, scale=config.scale)
        elif self.method == "rloo":
            advantages = rloo(given, mask, keys)
        else:
            advantages = reinforce_plus_plus(given, mask, gamma=config.gamma)
        known["advantages"] = advantages

    def _learn(self, samples: Sequence[Sample], known: dict[str, Tensor]) -> dict[str, float]:
        sums: dict[str, float] = {}
        taken = 0
        size = self.config.mini_batch or len(samples)
        with self.policy.training():
            for epoch in range(self.config.epochs):
                order = list(range(len(samples)))
                random.Random(f"{self.seed}:mini-batches:{self.step}:{epoch}").shuffle(order)
                for start in range(0, len(order), size):
                    found = self._mini_batch(samples, known, order[start : start + size])
                    sums = {name: sums.get(name, 0.0) + value for name, value in found.items()}
                    taken += 1
        return {name: value / taken for name, value in sums.items()}

    def _mini_batch(
        self, samples: Sequence[Sample], known: dict[str, Tensor], rows: list[int]
    ) -> dict[str, float]:
        """One optimiser step on some trajectories; micro-batches add up to it exactly.

        So do the processes, each of which takes its share of the rows: whatever is divided by is
        counted over all of them.
        """
        weights = token_weights(known["mask"][rows], self.config.averaging)
        figures = {"policy_loss": 0.0, "clipped": 0.0, "value_loss": 0.0}
        mine = self.processes.shares([len(samples[row].ids) for row in rows])[self.processes.rank]
        own = {name: value[rows][mine] for name, value in known.items()}
        weights = weights[mine]
        for packed in self._packed([samples[rows[at]] for at in mine], samples[0]):
            at = (packed.owner.cpu(), packed.place.cpu())
            here = {n: v[at].to(packed.ids.device) for n, v in own.items()}
            loss = self._loss(packed, here, weights[at].to(packed.ids.device), figures)
            loss.backward()  # type: ignore[no-untyped-call]
        figures = self.processes.add_up(figures)
        norm, *_ = [descent.step() for descent in self._descents]
        return figures | {"gradient": norm}

    def _loss(
        self, packed: Packed, here: dict[str, Tensor], weights: Tensor, figures: dict[str, float]
    ) -> Tensor:
        """Return this micro-batch's share of the loss, and add its figures."""
        config = self.config
        written = self.policy.score(packed)
        term = policy_term(
            written.logprobs,
            here["old"],
            here["advantages"],
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
        )
        loss = weighted(weights, term.loss * here["importance"])
        figures["policy_loss"] += float(loss.detach())
        figures["clipped"] += float(weighted(weights, term.clipped.float()))
        if config.kl == "loss":
            penalty = kl_term(written.logprobs, here["ref"], config.kl_kind)
            loss = loss + config.kl_coefficient * weighted(weights, penalty)
        if config.entropy:
            loss = loss - config.entropy * weighted(weights, written.entropy)
        if self.policy.critic is not None:
            values = self.policy.critic(packed, written.hidden)
            term_ = value_term(values, here["values"], here["targets"], clip=config.clip_value)
            value_loss = weighted(weights, term_)
            figures["value_loss"] += float(value_loss.detach())
            loss = loss + value_loss
        return loss

    def _packed(self, samples: Sequence[Sample], any_one: Sample) -> list[Packed]:
        """Return the micro-batches of this process.

        Where layers are sharded all processes need as many passes: one that has fewer reads any
        sample once more, of which no token counts.
        """
        device, tokens = self.policy.llm.device, self.config.micro_tokens
        found = list(pack(samples, tokens, device)) if samples else []  # fewer than processes
        if self.config.shard:
            most = max(self.processes.collect([len(found)]))
            idle = replace(any_one, written=(False,) * len(any_one.ids), logprobs=())
            found += [next(pack([idle], tokens, device)) for _ in range(most - len(found))]
        return found

    def slow_down(self, factor: float) -> None:
        """Multiply the learning rates from now on."""
        for descent in self._descents:
            descent.slow_down(factor)

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs to go on as if nothing had happened."""
        return {
            "policy": self.policy.state(),
            "descents": [descent.state() for descent in self._descents],
            "step": self.step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.policy.restore(state["policy"])
        for descent, saved in zip(self._descents, state["descents"], strict=True):
            descent.restore(saved)
        self.step = state["step"]
