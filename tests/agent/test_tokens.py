"""Tokens are what was sampled, through the product's own rollout with a real model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from agentic_r.agent.batch import pack, score
from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.rollout import rollout
from agentic_r.agent.tokens import TokenDialect
from agentic_r.errors import ConfigError
from agentic_r.protocols import Conversation, Sampling
from agentic_r.testing import TableRetriever
from agentic_r.types import Passage, Question, Trajectory

PASSAGES = [Passage("p", "the bag of cat was near dog", "A")]


@pytest.fixture(scope="module")
def llm(model_folder: Path) -> LocalLLM:
    return LocalLLM(model_folder)


def rolled(
    llm: LocalLLM, count: int = 12, temperature: float = 1.0
) -> tuple[Any, list[Trajectory]]:
    dialect = TokenDialect(SearchR1("Question: {question}\n"), llm.tokenizer)
    starts = [Trajectory(str(n), Question(str(n), f"the ba of {n}?", ("x",))) for n in range(count)]
    done = rollout(
        llm,
        TableRetriever({}, PASSAGES),
        starts,
        dialect,  # type: ignore[arg-type]
        k=1,
        form="query",
        turns=3,
        sampling=Sampling(24, temperature=temperature, seed=5),
        keep_tokens=True,
    )
    return dialect, asyncio.run(done)


def test_the_sample_is_the_prompt_the_draws_and_the_evidence(llm: LocalLLM) -> None:
    dialect, trajectories = rolled(llm)
    assert any(len(t.turns) > 1 for t in trajectories)
    for trajectory in trajectories:
        sample = dialect.sample(trajectory)
        drawn = [i for turn in trajectory.turns for i in turn.tokens or ()]
        assert [i for i, own in zip(sample.ids, sample.written, strict=True) if own] == drawn
        for number in range(len(trajectory.turns)):
            head = msgspec.structs.replace(trajectory, turns=trajectory.turns[:number])
            prompt = dialect.prompt(head)
            assert sample.ids[: len(prompt)] == prompt
            begin = len(prompt)
            tokens = trajectory.turns[number].tokens or ()
            assert sample.ids[begin : begin + len(tokens)] == tokens


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_sampled_log_probabilities_are_those_of_the_packed_pass(
    llm: LocalLLM, temperature: float
) -> None:
    dialect, trajectories = rolled(llm, temperature=temperature)
    samples = [dialect.sample(trajectory) for trajectory in trajectories]
    for packed in pack(samples, 512):
        with torch.no_grad():
            got = score(llm.model, packed, temperature=temperature).logprobs
        wanted = [
            samples[o].logprobs[p]
            for o, p in zip(packed.owner.tolist(), packed.place.tolist(), strict=True)
        ]
        torch.testing.assert_close(got, torch.tensor(wanted), rtol=0, atol=1e-4)


def test_data_sets_keep_equal_ids_apart(llm: LocalLLM) -> None:
    dialect, trajectories = rolled(llm, count=1)
    other = msgspec.structs.replace(
        trajectories[0], question=Question("0", "the ba of 0?", ("x",), "nq")
    )
    assert dialect.sample(trajectories[0]).key == ("", "0")
    assert dialect.sample(other).key == ("nq", "0")


def test_what_cannot_be_kept_is_refused(llm: LocalLLM) -> None:
    _, trajectories = rolled(llm)
    long = next(t for t in trajectories if len(t.turns) > 1)

    class After(SearchR1):
        def prompt(self, trajectory: Trajectory) -> str:
            return super().prompt(trajectory) + "Go on. "

    with pytest.raises(ConfigError, match="behind the evidence"):
        cut = msgspec.structs.replace(long, turns=long.turns[:1])
        TokenDialect(After(), llm.tokenizer).prompt(cut)

    class Chat(SearchR1):
        def prompt(self, trajectory: Trajectory) -> Any:
            return Conversation(())

    with pytest.raises(ConfigError, match="prompts with Conversation, expected text"):
        TokenDialect(Chat(), llm.tokenizer).prompt(long)
    last = msgspec.structs.replace(long.turns[-1], tokens=None)
    with pytest.raises(ConfigError, match="lacks its sampled tokens"):
        broken = msgspec.structs.replace(long, turns=(*long.turns[:-1], last))
        TokenDialect(SearchR1(), llm.tokenizer).sample(broken)
