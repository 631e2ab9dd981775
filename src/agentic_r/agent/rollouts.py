"""vLLM servers that draw trajectories with the weights under training.

    weights written    once, where every server reads them
    pause              what is being drawn ends, keys and values of the old weights are dropped
    reload, version    the server takes the weights up and is told what they are called
    resume

What a server draws comes back with the version of the weights that drew each token (vLLM's
`/inference/v1/generate`), so that a server that lags behind, or was started again beside the
training, is noticed at its first word. It is started as

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out

which opens the addresses that change weights; nobody but the training should reach it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import torch

from agentic_r.agent.connection import RefusedError, TooLongError
from agentic_r.agent.policy import Policy
from agentic_r.agent.pool import Pool
from agentic_r.agent.saved import save_model
from agentic_r.agent.wire import choice_of, made_good
from agentic_r.errors import ConfigError, LLMError, OutageError
from agentic_r.protocols import Capabilities, Completion, Prompt, Sampling
from agentic_r.settings import AgentConfig
from agentic_r.training.processes import Processes

GENERATE = "/generate"
APART = {"fp32": 0.01, "bf16": 0.1}
"""Nats by which a token's log-probability may differ, on average, between server and trainer."""

SLOWEST = 600.0
"""Least seconds that a server is given to end what it draws, and to read weights."""


class _Span(msgspec.Struct):
    version: str
    start: int
    end: int


class Rollouts:
    """Completes token ids on the servers at `urls` (with commas), which follow `take`.

    Requests are balanced between them and tried again as `agent.retries` says. Raises
    ConfigError for an address that is none.
    """

    capabilities = Capabilities(text=False, ids=True, tokens=True, logprobs=True, seed=True)

    def __init__(self, urls: str, config: AgentConfig, *, pause: float = 0.5) -> None:
        self.roots = [_root(url) for url in urls.split(",") if url.strip()]
        self.url = ", ".join(self.roots)
        self.version = ""
        self._pool = Pool(
            [f"{root}/inference/v1" for root in self.roots],
            concurrency=config.concurrency,
            timeout=config.timeout,
            api_key_env=config.api_key_env,
            retries=config.retries,
            pause=pause,
        )
        self.capacity = self._pool.capacity
        secret = os.environ.get(config.api_key_env, "") if config.api_key_env else ""
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._timeout = max(SLOWEST, config.timeout)

    def forget(self) -> None:
        """Do nothing: a server drops what it knows of old weights when it takes new ones."""

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Continue token ids with the newest weights.

        Raises OutageError where a server is down or draws with other weights than those it was
        told last, ContextError where the prompt is too long, LLMError for anything but ids.
        """
        if not isinstance(prompt, tuple):
            raise LLMError(f"{self.url}: got {type(prompt).__name__}, expected token ids")
        try:
            reply = await self._pool.post(GENERATE, _body(prompt, sampling))
        except TooLongError:
            raise
        except RefusedError as error:  # none of the others would be taken either
            raise OutageError(str(error)) from error
        choice = choice_of(reply)
        tokens, logprobs = _drawn(choice, self.url)
        self._check_version(choice, len(tokens))
        done = made_good(choice, sampling.stop, "keeps")
        return msgspec.structs.replace(
            done,
            tokens=tokens,
            logprobs=logprobs,
            prompt_tokens=len(prompt),
            new_tokens=len(tokens),
            weights=self.version,
        )

    async def aclose(self) -> None:
        """Close the connections of this event loop; the servers can be asked again afterwards."""
        await self._pool.aclose()

    def take(self, folder: Path, version: str) -> None:
        """Let every server take up the weights in `folder` and call them `version`.

        Raises OutageError naming the server and what it refused; no server is left paused.
        """
        for root in self.roots:
            with self._line() as line:
                self._taken(line, root, folder, version)
        self.version = version

    def refuse_raw(self, temperature: float) -> None:
        """Raise ConfigError where a server tells log-probabilities before the temperature."""
        for root in self.roots:
            with self._line() as line:
                info = _control(line, "GET", f"{root}/server_info?config_format=json")
            mode = info.get("vllm_config", {}).get("model_config", {}).get("logprobs_mode")
            if mode != "processed_logprobs":
                raise ConfigError(
                    f"agent.train.rl.temperature: got {temperature}, but {root} tells {mode} of "
                    "temperature 1; start it with --logprobs-mode processed_logprobs"
                )

    def _line(self) -> httpx.Client:
        return httpx.Client(headers=self._headers, timeout=self._timeout, trust_env=False)

    def _taken(self, line: httpx.Client, root: str, folder: Path, version: str) -> None:
        _control(line, "POST", f"{root}/pause?mode=wait")
        try:
            call = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
            _control(line, "POST", f"{root}/collective_rpc", call)
            _control(line, "POST", f"{root}/update_weight_version", {"new_version": version})
            dropped = _control(line, "POST", f"{root}/reset_prefix_cache")
        finally:
            _control(line, "POST", f"{root}/resume")
        if dropped.get("success") is not True:
            raise OutageError(
                f"{root}: it kept keys and values of the old weights; start it again, and let "
                "nothing but this training use it"
            )
        now = _control(line, "GET", f"{root}/weight_info").get("weight_version")
        if now != version:
            raise OutageError(
                f"{root}: got weights {now!r} after the update, expected {version!r}; let nothing "
                "but this training change its weights"
            )

    def _check_version(self, choice: dict[str, Any], count: int) -> None:
        try:
            spans = msgspec.convert(choice.get("weight_versions") or [], list[_Span])
        except msgspec.ValidationError:
            spans = []
        known = sum(span.end - span.start for span in spans)
        versions = sorted({span.version for span in spans} - {self.version})
        if versions or known != count:
            got = ", ".join(versions) or "no version"
            raise OutageError(
                f"{self.url}: got tokens drawn with weights of {got}, expected {self.version!r}; "
                "a server was started again or fed by somebody else; start this command again"
            )


class Feed:
    """Gives rollout servers the weights of a policy, whenever these have changed.

    The weights lie below `agent.train.rl.weights`, or `folder`, in bfloat16 where the policy
    computes in it. Of several processes the first gives and the others wait. Versions name the
    training by a random word: the same step of a training before has other weights.
    """

    def __init__(
        self, rollouts: Rollouts, policy: Policy, folder: Path, processes: Processes
    ) -> None:
        self._rollouts, self._policy, self._processes = rollouts, policy, processes
        self._word = processes.tell(secrets.token_hex(4))
        shared = policy.config.weights  # perhaps with other trainings
        self._folder = Path(shared, self._word) if shared else folder / "weights"
        self._folder = self._folder.absolute()
        self._given: tuple[int, int] | None = None

    def give(self, state: tuple[int, int]) -> float:
        """Let the servers draw with the policy's weights at `state`, step and roll-backs.

        Returns the seconds it took. Raises OutageError as `Rollouts.take` does, and ConfigError
        where a server tells log-probabilities of another temperature.
        """
        if state == self._given:
            return 0.0
        began = time.perf_counter()
        version = f"{self._word}-step-{state[0]}" + f"-again-{state[1]}" * (state[1] > 0)
        model, weights = self._policy.whole()
        if self._processes.first:
            if self._given is None and self._policy.config.temperature != 1:
                self._rollouts.refuse_raw(self._policy.config.temperature)
            half = self._policy.config.precision == "bf16"
            dtype = torch.bfloat16 if half else torch.float32
            save_model(model, weights, self._policy.llm, self._folder, dtype)
            self._rollouts.take(self._folder, version)
        self._rollouts.version = self._processes.tell(version)
        self._given = state
        return time.perf_counter() - began

    def refuse_others(self, apart: float) -> None:
        """Raise OutageError where what the servers drew cannot come from the policy's weights.

        `apart` is the mean distance of its log-probabilities to the policy's, in nats.
        """
        most = APART[self._policy.config.precision]
        if apart > most:
            raise OutageError(
                f"{self._rollouts.url}: its log-probabilities are {apart:.3f} nats a token off "
                f"those of the trained model, expected at most {most}; serve the model that is "
                "trained, in the number format of agent.train.rl.precision (docs/rl.md)"
            )

    def close(self) -> None:
        """Remove the weights: the finished model is elsewhere."""
        if self._processes.first:
            shutil.rmtree(self._folder, ignore_errors=True)


def _root(url: str) -> str:
    return url.strip().rstrip("/").removesuffix("/v1")


def _body(ids: tuple[int, ...], sampling: Sampling) -> dict[str, Any]:
    """Return a request: the text is wanted as the back end in this process writes it."""
    asked: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": list(sampling.stop),
        "logprobs": 0,  # of the token that was drawn, and no other
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
    }
    if sampling.seed is not None and sampling.temperature > 0:
        asked["seed"] = sampling.seed
    return {"token_ids": list(ids), "sampling_params": asked, "output_mode": "text"}


def _drawn(choice: dict[str, Any], where: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the ids and the log-probability of each. Raises LLMError where either is missing."""
    ids, told = choice.get("token_ids"), choice.get("logprobs")
    rows = told.get("content") if isinstance(told, dict) else None
    if isinstance(ids, list) and isinstance(rows, list):
        numbers = [row.get("logprob") for row in rows if isinstance(row, dict)]
        logprobs = tuple(float(n) for n in numbers if isinstance(n, int | float))
        if len(logprobs) == len(rows) == len(ids) > 0:
            return tuple(ids), logprobs
    raise LLMError(
        f"{where}: got no token ids with a log-probability each, expected them of "
        "/inference/v1/generate (vLLM 0.32 or newer)"
    )


def _control(
    line: httpx.Client, method: str, url: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Change or ask something of a server. Raises OutageError in one line where it cannot be."""
    try:
        response = line.request(method, url, json=body)
    except httpx.TransportError as error:
        raise OutageError(
            f"{url}: got no connection ({str(error) or type(error).__name__}); check that the "
            "server runs, then start this command again"
        ) from error
    if response.status_code == 404:
        raise OutageError(
            f"{url}: there is no such address; start vLLM (0.32 or newer) with "
            "VLLM_SERVER_DEV_MODE=1 in its environment"
        )
    try:
        reply = response.json()
    except ValueError:
        reply = None
    if response.status_code >= 400 or not isinstance(reply, dict):
        said = " ".join(response.text.split())[:300] or "no reason given"
        raise OutageError(f"{url}: got answer {response.status_code}: {said}; see its log")
    return reply
