"""A real OpenAI-compatible server process for tests: `python -m agentic_r.testing.server`.

It serves a local model at /v1/completions, and at /v1/chat/completions too with --chat; without,
it grades there like a simple judge. Its faults are those of real servers and are switched on by
flags: it can trim stop strings, ignore them or whatever is not plain, be slow, and fail a number
of times first. The first line that it prints is its address.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from agentic_r.errors import AgenticRError, ConfigError
from agentic_r.protocols import (
    Completion,
    Conversation,
    Message,
    Prompt,
    Sampling,
    Tool,
    ToolCall,
)
from agentic_r.testing.grader import reply

INCLUDE = "include_stop_str_in_output"


class Model(Protocol):
    """What can be served: `agentic_r.agent.local.LocalLLM` is one."""

    batch: int

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Continue prompts."""
        ...


class Worker(threading.Thread):
    """The one thread that uses the model; what waits with equal settings is decoded together."""

    def __init__(self, model: Model) -> None:
        super().__init__(daemon=True)
        self.model = model
        self.waiting: queue.Queue[tuple[Prompt, Sampling, Future[Completion]]] = queue.Queue()

    def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Continue one prompt, blocking the caller's thread."""
        future: Future[Completion] = Future()
        self.waiting.put((prompt, sampling, future))
        return future.result()

    def run(self) -> None:
        """Work for ever."""
        while True:
            batch = [self.waiting.get()]
            while len(batch) < self.model.batch and not self.waiting.empty():
                batch.append(self.waiting.get())
            for sampling in dict.fromkeys(item[1] for item in batch):
                self._work([item for item in batch if item[1] == sampling], sampling)

    def _work(
        self, items: list[tuple[Prompt, Sampling, Future[Completion]]], sampling: Sampling
    ) -> None:
        try:
            results = self.model.generate([prompt for prompt, _, _ in items], sampling)
        except Exception as error:
            # One bad prompt must not fail those beside it.
            if len(items) > 1:
                for item in items:
                    self._work([item], sampling)
                return
            items[0][2].set_exception(error)
            return
        for (_, _, future), result in zip(items, results, strict=True):
            future.set_result(result)


class Server(ThreadingHTTPServer):
    """The HTTP server with its model and its faults."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, model: Model, name: str, options: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", options.port), Handler)
        self.name = name
        self.options = options
        self.worker = Worker(model)
        self.worker.start()
        self.failures = options.fail_first
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The address to give to a client."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def note(self, body: dict[str, Any]) -> None:
        """Write down a request that was answered, one line each."""
        if self.options.log:
            with self.lock, Path(self.options.log).open("a", encoding="utf-8") as file:
                file.write(json.dumps(body, sort_keys=True) + "\n")

    def failing(self) -> bool:
        """Count down the failures that were asked for."""
        with self.lock:
            self.failures -= 1
            return bool(self.failures >= 0)


class Handler(BaseHTTPRequestHandler):
    """Answers the three addresses of the protocol that clients of ours use."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """List the one model."""
        if self.path != "/v1/models":
            return self._send(404, {"error": {"message": f"no such path: {self.path}"}})
        return self._send(200, {"object": "list", "data": [{"id": self.server.name}]})

    def do_POST(self) -> None:
        """Complete a prompt or answer a chat."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        options = self.server.options
        if self.server.failing():
            return self._send(503, {"error": {"message": "overloaded, as asked"}})
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            return self._send(404, {"error": {"message": f"no such path: {self.path}"}})
        if options.trim_stop and INCLUDE in body:
            return self._send(400, {"error": {"message": f"unknown field {INCLUDE}"}})
        if "messages" in body and not options.chat:
            text = reply(body["messages"][-1]["content"])
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            return self._send(200, {"choices": [{"index": 0, **choice}]})
        if options.slow:
            time.sleep(options.slow)
        try:
            answer = self._answer(body)
        except AgenticRError as error:
            return self._send(400, {"error": {"message": str(error)}})
        self._send(200, answer)
        self.server.note(body)

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        options = self.server.options
        prompt = prompt_of(body)
        if options.plain and isinstance(prompt, tuple):
            raise ConfigError("token ids are not supported")
        sampling = Sampling(
            max_tokens=int(body.get("max_tokens", 16)),
            stop=() if options.ignore_stop else tuple(body.get("stop") or ()),
            temperature=float(body.get("temperature", 1.0)),
            top_p=float(body.get("top_p", 1.0)),
            seed=None if options.plain else body.get("seed"),
        )
        count = 1 if options.plain else int(body.get("n", 1))
        done = [self.server.worker.complete(prompt, sampling) for _ in range(count)]
        usage = {
            "prompt_tokens": done[0].prompt_tokens or 0,
            "completion_tokens": sum(each.new_tokens or 0 for each in done),
        }
        return {"choices": [self._choice(each, body) for each in done], "usage": usage}

    def _choice(self, done: Completion, body: dict[str, Any]) -> dict[str, Any]:
        options = self.server.options
        names = {"length": "length", "calls": "tool_calls"}
        choice: dict[str, Any] = {"index": 0, "finish_reason": names.get(done.finish, "stop")}
        text = done.text
        ends = (s for s in body.get("stop") or () if text.endswith(s))
        stop = done.stop or (next(ends, "") if done.finish == "stop" else "")
        if stop and (options.trim_stop or not body.get(INCLUDE)):
            text = text.removesuffix(stop)
        if stop and not (options.trim_stop or options.plain):
            choice["stop_reason"] = stop
        if not options.plain and body.get("return_token_ids"):
            choice["token_ids"] = list(done.tokens or ())
        told = not options.plain and body.get("logprobs")
        if "messages" in body:
            choice["message"] = {"role": "assistant", "content": text, "tool_calls": _calls(done)}
            if told:
                choice["logprobs"] = {"content": [{"logprob": v} for v in done.logprobs or ()]}
        else:
            choice["text"] = text
            if told:
                choice["logprobs"] = {"token_logprobs": list(done.logprobs or ())}
        return choice

    def _send(self, status: int, reply: dict[str, Any]) -> None:
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of every request."""


def prompt_of(body: dict[str, Any]) -> Prompt:
    """Read what a request wants continued."""
    if "messages" not in body:
        prompt = body["prompt"]
        return prompt if isinstance(prompt, str) else tuple(prompt)
    messages = [_message(message) for message in body["messages"]]
    tools = [Tool(**tool["function"]) for tool in body.get("tools") or ()]
    begun = messages.pop().content if body.get("continue_final_message") else ""
    return Conversation(tuple(messages), tuple(tools), begun)


def _message(message: dict[str, Any]) -> Message:
    calls = tuple(
        ToolCall(call["function"]["name"], call["function"]["arguments"], call.get("id", ""))
        for call in message.get("tool_calls") or ()
    )
    content = message.get("content") or ""
    return Message(message["role"], content, calls, message.get("tool_call_id", ""))


def _calls(done: Completion) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "id": call.id,
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in done.calls
    ]


@contextmanager
def serving(model: str | Path, *flags: str, timeout: float = 120.0) -> Iterator[str]:
    """Run the server in a process of its own and yield its address; it ends with the block.

    Raises RuntimeError with what the process wrote where it does not come up.
    """
    with started(model, *flags, timeout=timeout) as (url, _):
        yield url


@contextmanager
def started(
    model: str | Path, *flags: str, timeout: float = 120.0
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Do as `serving`, and yield the process too, for tests that kill it."""
    command = [sys.executable, "-m", "agentic_r.testing.server", "--model", str(model), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            if line.startswith("http://"):
                break
            lines.append(line)
        else:
            raise RuntimeError(f"the test server did not start: {''.join(lines)[-2000:]}")
        timer.cancel()
        yield line.strip(), process
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="tiny", help="tiny, or a folder")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--trim-stop", action="store_true", help="always cut stop strings off")
    parser.add_argument("--ignore-stop", action="store_true", help="write past stop strings")
    parser.add_argument("--plain", action="store_true", help="ignore ids, logprobs, n and seed")
    parser.add_argument("--chat", action="store_true", help="chat with the model's own template")
    parser.add_argument("--slow", type=float, default=0.0, metavar="S", help="wait S seconds first")
    parser.add_argument("--log", default="", metavar="FILE", help="write down what was answered")
    parser.add_argument("--fail-first", type=int, default=0, metavar="N", help="503 N times")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and serve until killed."""
    options = build_parser().parse_args(arguments)
    # Only the process that serves needs torch; the clients of this module do not.
    from agentic_r.agent.agent import tiny_checkpoint
    from agentic_r.agent.local import LocalLLM

    folder = str(tiny_checkpoint()) if options.model == "tiny" else options.model
    with Server(LocalLLM(folder), Path(folder).name, options) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
