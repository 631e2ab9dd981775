"""The agent loop that verl runs, named in agent_loops.yaml; needs verl."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput

from agentic_r.retriever.remote import RemoteRetriever
from agentic_r.verl.carried import Carrying, carried, question_of
from agentic_r.verl.reward import KEY


class SearchLoop(AgentLoopBase):  # type: ignore[misc]
    """Answers a question with searches, in the protocol that `settings` (a file) describes."""

    def __init__(self, *arguments: Any, settings: str, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._settings = _read(settings)

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Carry one row; the reward goes with it, so that nobody reads it from the text."""
        request, priority = uuid4().hex, int(row.get("priority", 0))

        async def generate(ids: list[int], sampling: dict[str, Any]) -> Any:
            # One request id for all turns: the replica that knows the beginning answers.
            return await self.server_manager.generate(
                request_id=request, prompt_ids=ids, sampling_params=sampling, priority=priority
            )

        done = await carried(
            question_of(row),
            self._settings,
            generate,
            self.tokenizer,
            _retriever(self._settings.retriever),
            sampling_params,
        )
        return AgentLoopOutput(
            prompt_ids=done.prompt,
            response_ids=done.response,
            response_mask=done.mask,
            response_logprobs=done.logprobs,
            reward_score=done.reward,
            num_turns=done.calls,
            metrics={"generate_sequences": done.generating, "tool_calls": done.searching},
            extra_fields={
                KEY: done.reward,
                "reward_extra_info": done.figures,
                "turn_scores": [],
                "tool_rewards": [],
            },
        )


@cache
def _read(path: str) -> Carrying:
    return msgspec.json.decode(Path(path).read_bytes(), type=Carrying)


@cache
def _retriever(url: str) -> RemoteRetriever:
    return RemoteRetriever(url)
