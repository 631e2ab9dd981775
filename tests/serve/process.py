"""`agentic-r serve` in a process of its own, over a small corpus and a small encoder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

import agentic_r
from tests.retriever.conftest import NAMES, make_checkpoint

TRAPS = ["<script>document.title='x'</script>", "<img src=x onerror=\"document.title='x'\">"]


def write_config(folder: Path) -> Path:
    """Write a corpus, questions, an encoder and the config that names them."""
    encoder = make_checkpoint(folder / "encoder")
    names = [NAMES[at % len(NAMES)] for at in range(40)]
    texts = [f"{name} was born in the city of {at}" for at, name in enumerate(names)]
    texts += TRAPS
    passages = [{"id": f"p{at}", "contents": f'"T{at}"\n{text}'} for at, text in enumerate(texts)]
    questions = [
        {"id": f"q{at}", "question": f"where was {names[at]} born?", "golden_answers": [str(at)]}
        for at in range(20)
    ]
    for name, lines in (("corpus", passages), ("questions", questions)):
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    path = folder / "run.toml"
    path.write_text(
        f'name = "run"\nruns = "{folder / "runs"}"\n'
        f'[data]\nsource = "files"\ncorpus = "{folder / "corpus.jsonl"}"\n'
        f'questions = "{folder / "questions.jsonl"}"\n'
        f'[retriever]\nbase = "{encoder}"\nmax_length = 48\n'
        '[agent]\nmodel = "oracle-reader"\n'
    )
    return path


def environment(**more: str) -> dict[str, str]:
    source = str(Path(agentic_r.__file__).parents[1])
    return os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"} | more


def command(config: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "agentic_r.cli", "serve", str(config), *flags]


@contextmanager
def process(config: Path, *flags: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the server and wait until it is ready; it is killed where it still runs at the end."""
    running = subprocess.Popen(
        command(config, "--port", "0", *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**env),
    )
    timer = threading.Timer(600, running.kill)
    timer.start()
    try:
        assert running.stdout is not None and running.stderr is not None
        url = ""
        for line in running.stdout:
            if line.startswith("listening on "):
                url = line.split()[2]
            if line.startswith("ready"):
                break
        else:
            raise RuntimeError(running.stderr.read())
        yield running, url
    finally:
        timer.cancel()
        running.kill()
        running.communicate()


def stopped(running: subprocess.Popen[str]) -> int:
    """Send SIGTERM and return the exit code."""
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)
    return running.returncode


def find(url: str, *queries: str, **more: object) -> httpx.Response:
    return httpx.post(f"{url}/retrieve", json={"queries": queries, **more}, timeout=60)
