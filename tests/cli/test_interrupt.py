"""Ctrl-C and SIGTERM while a server is at work: a run ends at once and keeps what was answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from agentic_r.cli import main
from agentic_r.testing.server import serving

from ..checkpoint import checkpoint, needs_tiny
from ..runs import read_lines, write_config
from ..test_kill import IN_FRONT, LIMIT, SOURCE, write_files

CONCURRENCY = 4


def rollout(config: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start the rollouts of a config as a terminal does."""
    with (folder / "said.txt").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-c", IN_FRONT, "rollout", str(config)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=said,
        )


def prompts(log: Path) -> Counter[str]:
    """How often the server was asked each prompt of the agent's, probes left out."""
    asked = [str(line["prompt"]) for line in read_lines(log)] if log.exists() else []
    return Counter(prompt for prompt in asked if prompt.startswith("Question: "))


def stop(worker: subprocess.Popen[bytes], how: signal.Signals, said: Path) -> int:
    """Stop the rollouts and return the exit code; they end at once and say how to go on."""
    worker.send_signal(how)
    began = time.monotonic()
    code = worker.wait(LIMIT)
    assert time.monotonic() - began < 20, "what was asked for was waited for"
    text = said.read_text()
    assert text.endswith("\nagentic-r: stopped; the same command goes on from here\n")
    assert "Traceback" not in text
    assert "never awaited" not in text
    return code


@needs_tiny
def test_stopped_while_a_server_is_asked(tmp_path: Path) -> None:
    folder, log, said = checkpoint(), tmp_path / "served.jsonl", tmp_path / "said.txt"
    assert folder is not None
    with serving(folder, "--log", str(log), "--slow", "0.01") as url:
        config = write_config(tmp_path, write_files(tmp_path), agent=url)
        settings = f'concurrency = {CONCURRENCY}\nprompt_file = "{folder / "prompt.txt"}"\n'
        config.write_text(config.read_text().replace("[agent]\n", f"[agent]\n{settings}"))
        for how, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            before = prompts(log)
            worker = rollout(config, tmp_path)
            until = time.monotonic() + LIMIT
            while sum((prompts(log) - before).values()) < 15:
                assert worker.poll() is None, said.read_text()
                assert time.monotonic() < until, "the rollouts hang"
                time.sleep(0.01)
            assert stop(worker, how, said) == code
            time.sleep(1.0)  # what the server was at work on is over
        assert rollout(config, tmp_path).wait(LIMIT) == 0, said.read_text()
        twice = [prompt for prompt, count in prompts(log).items() if count > 1]
        assert len(twice) <= 2 * CONCURRENCY, "what was answered is not asked again"
    rows = tmp_path / "runs" / "small" / "iteration-1" / "rollouts" / "trajectories.jsonl"
    trajectories = read_lines(rows)
    assert len({row["question"]["id"] for row in trajectories}) == len(trajectories) > 20
    assert {row["stop"] for row in trajectories} <= {"answered", "budget", "invalid", "length"}


DROPPING = """
import os, signal, sys, threading, time
import agentic_r.cli.measuring as verbs
from agentic_r.cli import main

how = signal.Signals(int(sys.argv[1]))
signal.signal(signal.SIGINT, signal.default_int_handler)

class Dropping:
    def __del__(self):
        signal.raise_signal(how)
"""
"""The head of a program with a thing in whose finaliser a signal comes in, where Python drops it.

In a process of its own, as a command is: nothing that other tests have left can hear the signal.
"""

WAITS = """
def work(*_):
    Dropping()
    time.sleep(60)

verbs.status = work
sys.exit(main(["status", "runs"]))
"""

ENDS_FIRST = """
kill, sending = os.kill, threading.Event()

def slowly(process, number):
    sending.set()
    time.sleep(0.2)
    kill(process, number)

def work(*_):
    Dropping()
    assert sending.wait(60)

def late(*_):
    raise AssertionError("a signal came in after the end")

os.kill, verbs.status = slowly, work
signal.signal(how, late)
assert main(["status", "runs"]) == 0
time.sleep(0.5)
"""


def ended(work: str, how: signal.Signals) -> tuple[int, str]:
    """Run a program that drops a signal; returns its exit code and what it wrote as errors."""
    done = subprocess.run(
        [sys.executable, "-c", DROPPING + work, str(int(how))],
        env=os.environ | {"PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_a_finaliser_drops_is_sent_anew(how: signal.Signals, code: int) -> None:
    told = "\nagentic-r: stopped; the same command goes on from here\n"
    assert ended(WAITS, how) == (code, told)


def test_what_was_sent_anew_does_not_come_in_after_the_end() -> None:
    """The work ends when the signal is on its way."""
    assert ended(ENDS_FIRST, signal.SIGTERM) == (0, "")


def test_other_errors_in_finalisers_are_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken")

    heard: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: heard.append(lost.exc_type))
    monkeypatch.setattr("agentic_r.cli.measuring.status", lambda options: Broken() and None)
    assert main(["status", "runs"]) == 0
    assert heard == [ValueError]
