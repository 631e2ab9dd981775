"""Servers that draw with the weights under training: what they are told, and what is refused.

The scripted server below speaks vLLM's addresses and really draws, with `LocalLLM`; vLLM itself is
tried where AGENTIC_R_VLLM names its program (marker `server`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from agentic_r.agent.learning import Learning
from agentic_r.agent.local import LocalLLM
from agentic_r.agent.rollouts import Rollouts
from agentic_r.config import load_config
from agentic_r.errors import ConfigError, LLMError, OutageError
from agentic_r.protocols import Sampling
from agentic_r.settings import AgentConfig
from tests.agent.test_contract import program, real_server
from tests.agent.test_learning import learning, rl
from tests.runs import write_config

from .conftest import make_model

AGENT = AgentConfig(retries=0)
SHORT: dict[str, Any] = {"steps": 2, "questions": 3, "validate_every": 2}
FEED = ["/pause", "/collective_rpc", "/update_weight_version", "/reset_prefix_cache", "/resume"]


class Follower(ThreadingHTTPServer):
    """Speaks vLLM's addresses; `fault` names what goes wrong."""

    daemon_threads = True

    def __init__(self, model: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.llm, self.version, self.paused, self.fault = LocalLLM(model), "default", False, ""
        self.told: list[str] = []
        self.one = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and reply."""
        path = path.partition("?")[0]
        if path == "/inference/v1/generate":
            return 200, {"choices": [self.drawn(**body)]}
        if self.fault == "no development mode":
            return 404, {"detail": "Not Found"}
        self.told.append(path)
        if path == "/pause":
            self.paused = True
        if path == "/resume":
            self.paused = False
        if path == "/collective_rpc":
            if self.fault == "unreadable":
                return 500, {"error": {"message": "no\nsuch file"}}
            if self.fault != "deaf":
                self.llm = LocalLLM(body["kwargs"]["weights_path"])
        if path == "/update_weight_version" and self.fault != "own version":
            self.version = body["new_version"]
        if path == "/reset_prefix_cache":
            return 200, {"success": self.fault != "busy"}
        if path == "/server_info":
            mode = "raw_logprobs" if self.fault == "raw" else "processed_logprobs"
            return 200, {"vllm_config": {"model_config": {"logprobs_mode": mode}}}
        return 200, {"weight_version": self.version}

    def drawn(self, token_ids: list[int], sampling_params: dict[str, Any], output_mode: str) -> Any:
        """Draw as vLLM does, which leaves the stop string out and names it."""
        assert output_mode == "text" and not self.paused
        asked = {k: sampling_params[k] for k in ("max_tokens", "temperature", "top_p")}
        stop = tuple(sampling_params["stop"])
        sampling = Sampling(stop=stop, seed=sampling_params.get("seed"), **asked)
        with self.one:
            [done] = self.llm.generate([tuple(token_ids)], sampling)
        count = len(done.tokens or ())
        rows = [{"token": "", "logprob": value} for value in done.logprobs or ()]
        choice = {
            "text": done.text.removesuffix(done.stop),
            "token_ids": list(done.tokens or ()),
            "logprobs": None if self.fault == "mute" else {"content": rows},
            "finish_reason": "length" if done.finish == "length" else "stop",
            "stop_reason": done.stop or None,
            "weight_versions": [{"version": self.version, "start": 0, "end": count}],
        }
        if self.fault == "unversioned":
            choice.pop("weight_versions")
        if self.fault == "changed half-way":
            early = {"version": "before", "start": 0, "end": 1}
            choice["weight_versions"] = [early, {"version": self.version, "start": 1, "end": count}]
        return choice


class Handler(BaseHTTPRequestHandler):
    server: Follower

    def do_GET(self) -> None:
        self.reply({})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.reply(json.loads(self.rfile.read(length) or b"{}"))

    def reply(self, body: dict[str, Any]) -> None:
        status, said = self.server.answer(self.path, body)
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        """Answer, unless the caller has hung up: a training that stops lets go of its requests."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().handle()


@pytest.fixture
def server(model_folder: Path) -> Iterator[Follower]:
    with Follower(model_folder) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield found
        found.shutdown()


def fed(model: Path, folder: Path, url: str, on_step: Any = None, **changes: Any) -> Learning:
    """Return a training whose trajectories a server draws."""
    config = rl(rollouts=url, **{**SHORT, **changes})
    plain = learning(model, folder, config, "grpo")
    rollouts = Rollouts(url, AGENT, pause=0.01)
    parts = (plain.reinforcer, plain.practice, plain.train, plain.dev)
    return Learning(*parts, folder, on_step, rollouts)


def test_it_trains_as_if_it_drew_itself(
    server: Follower, model_folder: Path, tmp_path: Path
) -> None:
    here = learning(model_folder, tmp_path / "here", rl(**SHORT), "grpo").run()
    there = fed(model_folder, tmp_path / "there", server.url).run()
    # Adam makes much of the last bits of small gradients, so that later steps drift apart.
    for one, other in zip(here.curve[:2], there.curve[:2], strict=True):
        for name in one:
            if "seconds" not in name:
                assert other[name] == pytest.approx(one[name], abs=1e-4), name
    assert all(abs(figures["mismatch"]) < 1e-5 for figures in there.curve[1:])
    # Given before the first validation and after each update that something is drawn after.
    assert server.told == [*FEED, "/weight_info"] * 3
    assert {path.name for path in (tmp_path / "there").iterdir()} == {
        *("model", "checkpoints", "best.pt")
    }


def test_every_turn_names_the_weights_that_drew_it(
    server: Follower, model_folder: Path, tmp_path: Path
) -> None:
    learner = fed(model_folder, tmp_path, server.url)
    before, figures = learner._rollouts(0)
    assert figures["weights_seconds"] > 0
    learner._step()
    after, _ = learner._rollouts(1)
    names = [{turn.weights for t in found for turn in t.turns} for found in (before, after)]
    assert [len(found) for found in names] == [1, 1]
    assert [str(name).partition("-")[2] for found in names for name in found] == [
        "step-0",
        "step-1",
    ]
    weights = tmp_path / "weights"
    live = learner.reinforcer.policy.model.state_dict()
    for name, value in LocalLLM(weights).model.state_dict().items():
        assert torch.equal(value, live[name])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no development mode", "VLLM_SERVER_DEV_MODE=1"),
        ("unreadable", "answer 500: .*no.*such file"),
        ("own version", "got weights 'default' after the update"),
        ("busy", "kept keys and values of the old weights"),
        ("unversioned", "drawn with weights of no version"),
        ("changed half-way", "drawn with weights of before"),
    ],
)
def test_a_server_that_does_not_follow_stops_the_training(
    server: Follower, model_folder: Path, tmp_path: Path, fault: str, said: str
) -> None:
    server.fault = fault
    with pytest.raises(OutageError, match=said) as caught:
        fed(model_folder, tmp_path, server.url).run()
    assert "\n" not in str(caught.value)
    assert not server.paused


def test_a_server_started_again_is_noticed_and_fed_by_the_same_command(
    server: Follower, model_folder: Path, tmp_path: Path
) -> None:
    def restart(figures: dict[str, float]) -> None:
        if figures["step"] == 1:
            server.version, server.llm = "default", LocalLLM(model_folder)

    learner = fed(model_folder, tmp_path, server.url, restart, validate_every=4)
    give = learner._feed.give  # type: ignore[union-attr]
    learner._feed.give = (  # type: ignore[union-attr]
        lambda state: 0.0 if state[0] == 1 else give(state)
    )
    with pytest.raises(OutageError, match=r"weights of default, expected .*-step-0'"):
        learner.run()
    assert fed(model_folder, tmp_path, server.url).run().curve[-1]["step"] == 2


def test_a_server_that_is_gone_stops_the_training(
    server: Follower, model_folder: Path, tmp_path: Path
) -> None:
    def end(figures: dict[str, float]) -> None:
        server.shutdown()
        server.server_close()

    with pytest.raises(OutageError, match="got no connection"):
        fed(model_folder, tmp_path, server.url, end, validate_every=4).run()


def test_a_server_that_serves_something_else_is_noticed(
    server: Follower, model_folder: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server.fault = "deaf"
    live = server.llm.model.get_input_embeddings().weight
    with torch.no_grad():
        live.mul_(2.0)
    with pytest.raises(OutageError, match="nats a token off those of the trained model"):
        fed(model_folder, tmp_path, server.url).run()


def test_what_a_server_cannot_tell_is_refused(
    server: Follower, model_folder: Path, tmp_path: Path
) -> None:
    server.fault = "raw"
    learner = fed(model_folder, tmp_path, server.url, temperature=0.8)
    with pytest.raises(ConfigError, match="--logprobs-mode processed_logprobs"):
        learner.run()
    rollouts = Rollouts(f"{server.url}/v1", AGENT)

    def asked(prompt: Any) -> Callable[[], Any]:
        return lambda: asyncio.run(rollouts.complete(prompt, Sampling(max_tokens=3)))

    with pytest.raises(LLMError, match="got str, expected token ids"):
        asked("the ba")()
    server.fault = "mute"
    with pytest.raises(LLMError, match="got no token ids with a log-probability each"):
        asked((5, 6, 7))()


@pytest.mark.server
def test_vllm_follows_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = program("vllm")
    if found is None:
        pytest.skip("AGENTIC_R_VLLM is not set")
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    model = make_model(tmp_path / "model", width=256, tied=False)
    with real_server("vllm", found, model, "--enable-scale-out") as url:
        config: dict[str, Any] = {"learning_rate": 1e-2, "steps": 3, "max_grad_norm": 100.0}
        learner = fed(model, tmp_path / "run", url, **config)
        curve = learner.run().curve[1:]
        assert [figures["step"] for figures in curve] == [1, 2, 3]
        # Each step drew with other weights, and what was told of them is what they say.
        assert all(abs(figures["mismatch"]) < 1e-3 for figures in curve)
        assert all(figures["apart"] < 1e-3 for figures in curve)


@pytest.mark.server
def test_vllm_on_a_processor_does_not_follow_a_tied_output_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM 0.32 keeps a packed copy of it there: it says the new version and draws with the old."""
    found = program("vllm")
    if found is None:
        pytest.skip("AGENTIC_R_VLLM is not set")
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    model = make_model(tmp_path / "model", width=256)
    with real_server("vllm", found, model, "--enable-scale-out") as url:
        config: dict[str, Any] = {"learning_rate": 1e-2, "steps": 3, "max_grad_norm": 100.0}
        with pytest.raises(OutageError, match="nats a token off those of the trained model"):
            fed(model, tmp_path / "run", url, **config).run()


def test_an_address_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected http://HOST:PORT, several with commas"):
        load_config(write_config(tmp_path), [("agent.train.rl.rollouts", "nonsense")])
