"""A Hugging Face causal language model in this process.

Requests come in one by one and are worked on in batches as soon as nothing else can run, so
that the rollout needs no barrier. There are no timers and no threads: the same requests make
the same batches, and with them the same floating-point results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from agentic_r.agent.chat import rendered, with_calls
from agentic_r.agent.decode import Decoder, Row
from agentic_r.agent.gather import Gather
from agentic_r.agent.slab import PrefixStore
from agentic_r.errors import ConfigError, ContextError, LLMError
from agentic_r.io import digest_model
from agentic_r.protocols import Capabilities, Completion, Conversation, Message, Prompt, Sampling

PATIENCE = 8
"""Quiet rounds of the event loop before a batch begins; searches, which feed it, need fewer."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class LocalLLM:
    """Completes prompts with the model in folder (or hub name) `name`.

    `batch` requests decode together. `device` "auto" takes a GPU where there is one; `precision`
    bf16 halves the memory, and lets the batch decide between tokens that are almost as likely.
    `prefix_bytes` bounds the memory for beginnings that prompts have in common; 0 turns it off.
    Raises ConfigError where the model cannot be loaded, or is no whole causal language model.
    """

    def __init__(
        self,
        name: str | Path,
        *,
        batch: int = 64,
        device: str = "auto",
        precision: Literal["fp32", "bf16"] = "fp32",
        seed: int = 0,
        prefix_bytes: int = 768 * 2**20,
    ) -> None:
        if batch < 1:
            raise ConfigError(f"agent.batch: got {batch}, expected at least 1")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.name = str(name)
        self._named = ""
        self.batch = batch
        self.device = device
        self.model, self.tokenizer = _load(self.name, DTYPES[precision], device)
        self.limit = _limit(self.model.config)
        self.template = _template(self.name)
        self._store = PrefixStore(prefix_bytes)
        # A small group stays in a processor's cache; a GPU wants to be filled.
        group_tokens = 1024 if device == "cpu" else 16384
        self._decoder = Decoder(self.model, self._store, group_tokens)
        self._ends = _end_tokens(self.model, self.tokenizer)
        self._closing: dict[str, frozenset[int]] = {}
        self._gather: Gather[tuple[Prompt, Sampling], Completion] = Gather(
            self._work, limit=batch, patience=PATIENCE
        )
        self._seed = seed
        self._unseeded = 0
        chat = bool(self.tokenizer.chat_template)
        self.capabilities = Capabilities(
            ids=True,
            chat=chat,
            begun=chat,
            tools=chat,
            tokens=True,
            logprobs=True,
            seed=True,
            independent=False,
        )

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Continue one prompt.

        Raises ContextError where it is too long for the model, LLMError for a conversation where
        the model has no chat template.
        """
        return await self._gather.submit((prompt, sampling))

    async def chat(self, system: str, user: str, sampling: Sampling) -> str:
        """Answer `user` under `system`. Raises LLMError as `complete` does."""
        messages = (Message("system", system), Message("user", user))
        return (await self.complete(Conversation(messages), sampling)).text

    async def named(self) -> str:
        """Return what identifies the model, as the cache of a judge wants to know it."""
        self._named = self._named or digest_model(self.name)  # gigabytes are read, and once
        return self._named

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Continue many prompts at once, in batches in their order."""
        done: list[Completion] = []
        for start in range(0, len(prompts), self.batch):
            chunk: list[tuple[Prompt, Sampling]] = [
                (prompt, sampling) for prompt in prompts[start : start + self.batch]
            ]
            for result in self._work(chunk):
                if isinstance(result, Exception):
                    raise result
                done.append(result)
        return done

    def forget(self) -> None:
        """Drop what is known of earlier prompts, so that results cannot depend on them.

        Reading from what is known and reading anew differ in the last bits of a float. A run
        that must come out the same after a restart forgets at each point that it may restart at.
        """
        self._store.clear()

    def _work(self, requests: list[tuple[Prompt, Sampling]]) -> list[Completion | Exception]:
        rows: list[Row | Exception] = []
        encoded = self._encoded([prompt for prompt, _ in requests])
        for ids, (_, sampling) in zip(encoded, requests, strict=True):
            try:
                rows.append(ids if isinstance(ids, Exception) else self._row(ids, sampling))
            except LLMError as error:
                rows.append(error)
        ready = [row for row in rows if isinstance(row, Row)]
        if ready:
            self._decoder.run(ready)
        done: list[Completion | Exception] = []
        for row, (prompt, _) in zip(rows, requests, strict=True):
            found = self._completion(row) if isinstance(row, Row) else row
            offered = isinstance(prompt, Conversation) and prompt.tools
            done.append(with_calls(found) if offered and isinstance(found, Completion) else found)
        return done

    def _encoded(self, prompts: Sequence[Prompt]) -> list[list[int] | LLMError]:
        """Turn every prompt into token ids, those of one kind at once."""
        found: list[list[int] | LLMError] = [[] for _ in prompts]
        texts: dict[bool, dict[int, str]] = {True: {}, False: {}}
        for index, prompt in enumerate(prompts):
            try:
                if isinstance(prompt, tuple):
                    found[index] = self._checked(prompt)
                elif isinstance(prompt, Conversation):
                    texts[False][index] = rendered(prompt, self.tokenizer)
                else:
                    texts[True][index] = prompt
            except LLMError as error:
                found[index] = error
        for marks, several in texts.items():
            if several:  # a template writes the marks of a text's beginning itself
                ids = self.tokenizer(list(several.values()), add_special_tokens=marks)["input_ids"]
                for index, row in zip(several, ids, strict=True):
                    found[index] = row
        return found

    def _checked(self, ids: tuple[int, ...]) -> list[int]:
        size = self.model.get_input_embeddings().num_embeddings
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            raise LLMError(f"{self.name}: got token id {wrong}, expected 0 to {size - 1}")
        return list(ids)

    def _row(self, ids: list[int], sampling: Sampling) -> Row:
        room = self.limit - len(ids)
        if not ids or room < 1:
            raise ContextError(
                f"{self.name}: got a prompt of {len(ids)} tokens, expected 1 to {self.limit - 1}; "
                "show fewer passages (k), allow fewer turns, or take a model that reads more"
            )
        seed = sampling.seed
        if seed is None:
            seed = self._seed * 1_000_003 + self._unseeded
            self._unseeded += 1
        return Row(ids, min(room, sampling.max_tokens), sampling, seed, self._ended(sampling.stop))

    def _ended(self, stop: tuple[str, ...]) -> Callable[[list[int]], bool]:
        closing = frozenset().union(*(self._closers(string) for string in stop))
        return partial(self._is_end, closing, stop)

    def _is_end(self, closing: frozenset[int], stop: tuple[str, ...], tokens: list[int]) -> bool:
        if tokens[-1] in self._ends:
            return True
        return tokens[-1] in closing and any(s in self._text(tokens) for s in stop)

    def _closers(self, string: str) -> frozenset[int]:
        """Return the tokens that can be the last of a stop string, or more; found once."""
        last = string[-1:]
        if last not in self._closing:
            vocabulary: dict[str, int] = self.tokenizer.get_vocab()
            # Tokenizers store plain characters as they are; others may be spread over tokens.
            plain = last.isascii() and last.isprintable() and last != " "
            self._closing[last] = frozenset(
                index for token, index in vocabulary.items() if not plain or last in token
            )
        return self._closing[last]

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _completion(self, row: Row) -> Completion:
        tokens, counts = tuple(row.tokens), (len(row.prompt), len(row.tokens))

        def made(text: str, finish: str, stop: str = "") -> Completion:
            return Completion(text, finish, tokens, tuple(row.logprobs), stop, (), *counts)

        if tokens[-1] in self._ends:
            return made(self._text(tokens[:-1]), "eos")
        text = self._text(tokens)
        found = [(text.find(s), s) for s in row.sampling.stop if s in text]
        if found:
            at, string = min(found)
            return made(text[: at + len(string)], "stop", string)
        return made(text, "length")


def _load(name: str, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    disable_progress_bar()  # of the library, for weights that load in a moment
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=dtype,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,  # they are refused below, in one line
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, AttributeError, ImportError, KeyError) as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise ConfigError(
            f"agent.model: {name} cannot be loaded as a causal language model ({reason}); "
            "expected a Hugging Face folder or name, or an http:// address"
        ) from error
    _refuse_random_weights(name, found)
    return model.to(device).eval(), tokenizer


def _refuse_random_weights(name: str, found: Mapping[str, Any]) -> None:
    """Refuse a folder that lacks weights: transformers only warns and draws them at random."""
    lacking = sorted({*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])})
    if lacking:
        raise ConfigError(
            f"agent.model: {name} is not a whole causal language model: {len(lacking)} of its "
            f"weights are missing or of another shape, the first {lacking[0]}; expected the "
            "folder or name of a model that writes text, not of an encoder or an adapter"
        )


def _limit(config: Any) -> int:
    """Return how many tokens the model reads, a sliding window counting as the end."""
    text = config.get_text_config()
    limit = int(getattr(text, "max_position_embeddings", None) or 2**20)
    kinds = getattr(text, "layer_types", None) or []
    window = getattr(text, "sliding_window", None)
    if window and (not kinds or any("sliding" in kind for kind in kinds)):
        limit = min(limit, int(window))
    return limit


def _template(name: str) -> str | None:
    """Return the instruction that a checkpoint folder brings along, if it does."""
    file = Path(name) / "prompt.txt"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None)
