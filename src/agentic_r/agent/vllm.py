"""vLLM in this process: `agent.model = "vllm:NAME"`, with the extra `vllm`.

The engine has an event loop of its own in a thread of its own, because it belongs to one loop for
good and the rollout makes a new one for every call. What is asked is scheduled by vLLM itself:
requests join the running batch, and keys and values of common beginnings are kept (prefix
caching). On a machine with several GPUs each holds a copy of the model and requests are spread
over them; CUDA_VISIBLE_DEVICES says which are used.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

from agentic_r.agent.chat import rendered, with_calls
from agentic_r.errors import ConfigError, ContextError, LLMError, MissingExtraError
from agentic_r.io import digest_model
from agentic_r.protocols import Capabilities, Completion, Conversation, Message, Prompt, Sampling

T = TypeVar("T")

TOGETHER = 256
"""Requests that one copy of the model works on at once."""

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


class VllmLLM:
    """Completes prompts with the model in folder (or hub name) `name`, run by vLLM.

    `copies` of the model stand on as many GPUs, 0 on all of them; without a GPU there is one on
    the CPU. `seed` begins the row of seeds for draws that name none. Floats depend on the batch
    in their last bits, as with a server. Raises MissingExtraError without vLLM, ConfigError where
    the model cannot be loaded.
    """

    def __init__(
        self,
        name: str | Path,
        *,
        precision: Literal["fp32", "bf16"] = "bf16",
        copies: int = 0,
        seed: int = 0,
        **engine: Any,
    ) -> None:
        self.name = str(name)
        self._named = ""
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count()
        self._seeds = itertools.count(seed * 1_000_003)
        self._engine: Any = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        try:
            opening = _opened(self.name, DTYPES[precision], copies, engine)
            self._engine, self.copies = self._submit(opening).result()
        except BaseException:
            self.close()
            raise
        self.tokenizer: Any = self._engine.get_tokenizer()
        self.limit = int(self._engine.model_config.max_model_len)
        self.capacity = TOGETHER * self.copies
        self.template = _template(self.name)
        chat = bool(getattr(self.tokenizer, "chat_template", None))
        self.capabilities = Capabilities(
            ids=True, chat=chat, begun=chat, tools=chat, tokens=True, logprobs=True, seed=True
        )

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Continue one prompt.

        Raises ContextError where it is too long for the model, LLMError for a conversation where
        the model has no chat template, and where the engine has died.
        """
        ids = self._encoded(prompt)
        done = await asyncio.wrap_future(self._submit(self._generate(ids, sampling)))
        return with_calls(done) if isinstance(prompt, Conversation) and prompt.tools else done

    async def chat(self, system: str, user: str, sampling: Sampling) -> str:
        """Answer `user` under `system`. Raises LLMError as `complete` does."""
        messages = (Message("system", system), Message("user", user))
        return (await self.complete(Conversation(messages), sampling)).text

    async def named(self) -> str:
        """Return what identifies the model, as the cache of a judge wants to know it."""
        self._named = self._named or digest_model(self.name)  # gigabytes are read, and once
        return self._named

    def close(self) -> None:
        """End the engine and its processes; nothing can be asked afterwards."""
        if self._loop.is_closed():
            return
        atexit.unregister(self.close)
        if self._engine is not None:
            self._submit(_ended(self._engine)).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Any:
        if self._loop.is_closed():
            work.close()
            raise LLMError(f"{self.name}: the model is closed; open it again")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _encoded(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, tuple):
            size = len(self.tokenizer)
            wrong = next((token for token in prompt if not 0 <= token < size), None)
            if wrong is not None:
                raise LLMError(f"{self.name}: got token id {wrong}, expected 0 to {size - 1}")
            ids = list(prompt)
        elif isinstance(prompt, Conversation):
            text = rendered(prompt, self.tokenizer)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = self.tokenizer(prompt)["input_ids"]
        if not 0 < len(ids) < self.limit:
            raise ContextError(
                f"{self.name}: got a prompt of {len(ids)} tokens, expected 1 to {self.limit - 1}; "
                "show fewer passages (k), allow fewer turns, or take a model that reads more"
            )
        return ids

    async def _generate(self, ids: list[int], sampling: Sampling) -> Completion:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        seed = next(self._seeds) if sampling.seed is None else sampling.seed
        asked = SamplingParams(
            max_tokens=min(sampling.max_tokens, self.limit - len(ids)),
            stop=list(sampling.stop),
            temperature=max(sampling.temperature, 0.0),
            top_p=sampling.top_p,
            seed=seed if sampling.temperature > 0 else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
            logprobs=0,  # of the token that was drawn, and no other
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
        )
        number = f"agentic-r-{next(self._numbers)}"
        try:
            given = {"type": "token", "prompt_token_ids": ids}
            answers = self._engine.generate(given, asked, number)
            done = [answer async for answer in answers]
        except Exception as error:  # vLLM's own errors differ from version to version
            raise LLMError(f"{self.name}: vLLM failed: {' '.join(str(error).split())}") from error
        return _completion(done[-1].outputs[0], len(ids))


def _completion(out: Any, read: int) -> Completion:
    """Make a completion of what vLLM gives; the stop string, which it leaves out, is put back."""
    tokens = tuple(out.token_ids)
    logprobs = tuple(
        float(told[token].logprob) for token, told in zip(tokens, out.logprobs, strict=True)
    )
    stop = out.stop_reason if isinstance(out.stop_reason, str) else ""
    finish = "length" if out.finish_reason == "length" else "stop" if stop else "eos"
    return Completion(out.text + stop, finish, tokens, logprobs, stop, (), read, len(tokens))


async def _opened(name: str, dtype: str, copies: int, settings: dict[str, Any]) -> tuple[Any, int]:
    """Start the engine in the loop that it will belong to; returns it and the number of copies."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    try:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "vllm", "vllm") from error
    import torch

    copies = copies or max(1, torch.cuda.device_count())
    given: dict[str, Any] = {
        "model": name,
        "dtype": dtype,
        "enable_prefix_caching": True,
        "data_parallel_size": copies,
        "max_num_seqs": TOGETHER,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **settings,
    }
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**given)), copies
    except Exception as error:  # of whatever kind vLLM and the libraries under it raise
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"agent.model: vllm:{name} cannot be opened with vLLM ({reason}); expected "
            "a Hugging Face folder or name of a causal language model"
        ) from error


async def _ended(engine: Any) -> None:
    engine.shutdown()
    await asyncio.sleep(0)  # its task hears that it is over before the loop stops


def _template(name: str) -> str | None:
    """Return the instruction that a checkpoint folder brings along, if it does."""
    file = Path(name) / "prompt.txt"
    return file.read_text(encoding="utf-8") if file.is_file() else None
