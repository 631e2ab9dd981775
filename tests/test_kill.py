"""kill -9 and Ctrl-C at random moments: the run carried on is the run that nobody disturbed."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import agentic_r
from agentic_r.cli import main
from agentic_r.manifest import Manifest
from agentic_r.stage import status

from .checkpoint import checkpoint, needs_tiny
from .retriever.conftest import NAMES, make_checkpoint
from .runs import differences, read_json, read_lines, results, without_seconds, write_config

SOURCE = str(Path(agentic_r.__file__).parents[1])
LIMIT = 900.0
"""Seconds after which a process counts as hanging."""


def write_files(folder: Path) -> str:
    """Write a corpus that a random encoder can tell apart, and questions of two hops."""
    make_checkpoint(folder / "encoder")
    people = [f"{a} {b}" for a, b in itertools.product(NAMES, NAMES)]
    passages = [
        {"id": f"p{n}", "title": name, "text": f"{name} was born in the city of {n}"}
        for n, name in enumerate(people)
    ]
    questions = []
    for n, name in enumerate(people):
        chain = [n, (7 * n + 3) % len(people)]
        asked = [f"where was {people[at]} born" for at in chain]
        hops = [
            {"question": query, "answer": str(at), "passage_id": f"p{at}"}
            for query, at in zip(asked, chain, strict=True)
        ]
        questions.append(
            {
                "id": f"q{n}",
                "question": f"{asked[0]} which was {name} and {asked[1]}",
                "golden_answers": [str(chain[1])],
                "metadata": {"hops": hops, "hop_count": 2},
            }
        )
    for name, lines in (("corpus", passages), ("questions", questions)):
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return f"""
[data]
source = "files"
corpus = "{folder / "corpus.jsonl"}"
questions = "{folder / "questions.jsonl"}"

[retriever]
base = "{folder / "encoder"}"
max_length = 48
"""


IN_FRONT = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('agentic_r.cli', run_name='__main__')"
)
"""The program as a terminal starts it: what a shell puts behind itself ignores Ctrl-C."""


def start(config: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start the loop in `folder`, where its run goes too; what it says is kept in a file."""
    import torch

    threads = str(torch.get_num_threads())  # with other threads sums have another last bit
    with (folder / "said.txt").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-c", IN_FRONT, "loop", str(config)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": threads},
            stdout=said,
            stderr=said,
        )


def kill_when(
    config: Path, folder: Path, path: Path, delay: float, how: signal.Signals = signal.SIGKILL
) -> None:
    """Start the loop and kill it `delay` seconds after a file has appeared."""
    worker = start(config, folder)
    until = time.monotonic() + LIMIT
    said = folder / "said.txt"  # empty until the program has read its config and data
    while not path.exists() or (how == signal.SIGINT and not said.stat().st_size):
        assert worker.poll() is None, said.read_text()
        assert time.monotonic() < until, "the loop hangs"
        time.sleep(0.005)
    time.sleep(delay)
    worker.send_signal(how)
    ended = worker.wait(LIMIT)
    if how == signal.SIGINT:  # as Ctrl-C in a terminal
        text = said.read_text()
        assert ended == 130, text
        assert text.endswith("\nagentic-r: stopped; the same command goes on from here\n")
        assert "Traceback" not in text


def finish_here(config: Path, folder: Path) -> None:
    """Run the loop in this process."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main(["loop", str(config)]) == 0


def finish(config: Path, folder: Path) -> None:
    """Run the loop in a process of its own."""
    worker = start(config, folder)
    assert worker.wait(LIMIT) == 0, (folder / "said.txt").read_text()


def rows(run: Path) -> dict[str, list[bytes]]:
    """The whole lines of every file of rows, finished or not.

    Those of a curve come without their seconds: a step done again after a kill takes another time.
    """
    found = {}
    for path in run.rglob("*.jsonl"):
        lines = [line for line in path.read_bytes().splitlines(True) if line.endswith(b"\n")]
        if path.name == "curve.jsonl":
            lines = [json.dumps(without_seconds(json.loads(line))).encode() for line in lines]
        found[str(path.relative_to(run))] = lines
    return found


def survive(
    config: Path,
    folder: Path,
    kills: list[tuple[str, float]],
    here: bool,
    how: signal.Signals = signal.SIGKILL,
) -> None:
    """Run the loop undisturbed and with kills (stage, delay) and compare all that they leave."""
    carry_on = finish_here if here else finish
    whole, killed = folder / "whole", folder / "killed"
    for made in (whole, killed):
        made.mkdir()
    carry_on(config, whole)
    run = killed / "runs" / "small"
    done: dict[Path, bytes] = {}
    kept: dict[str, list[bytes]] = {}
    for stage, delay in kills:
        kill_when(config, killed, run / stage / "start.json", delay, how)
        done |= {path: path.read_bytes() for path in run.rglob("manifest.json")}
        kept |= rows(run)
    states = [state for _, state, _ in status(run)]
    assert "unfinished" in states or not (run / "report.json").exists()
    carry_on(config, killed)
    assert differences(results(whole / "runs" / "small"), results(run)) == []
    assert {state for _, state, _ in status(run)} == {"done"}
    assert not list(run.rglob(".*"))
    # Nothing is done twice, and no row that was finished is lost.
    assert [path for path, raw in done.items() if path.read_bytes() != raw] == []
    after = rows(run)
    for name, lines in kept.items():
        assert set(lines) <= set(after[name]), name


def test_two_kills_change_nothing(tmp_path: Path) -> None:
    rng = random.Random(1)
    config = write_config(tmp_path, write_files(tmp_path))
    kills = [
        ("iteration-1/labels", rng.uniform(0, 0.2)),
        ("iteration-2/rollouts", rng.uniform(0, 0.1)),
    ]
    survive(config, tmp_path, kills, here=True)
    whole = tmp_path / "whole" / "runs" / "small"
    for number in (1, 2):  # the comparison was about something
        assert len(read_lines(whole / f"iteration-{number}" / "labels" / "examples.jsonl")) > 3
        trajectories = read_lines(whole / f"iteration-{number}" / "rollouts" / "trajectories.jsonl")
        assert len(trajectories) == 39
    model = whole / "iteration-1" / "retriever" / "model"
    assert "input.json" in read_json(model / "agentic_r_files.json")
    labels = read_json(whole / "iteration-1" / "labels" / "manifest.json")
    assert set(labels["outputs"]) == {"labels.jsonl", "utilities.jsonl", "examples.jsonl"}
    assert set(labels) == set(Manifest.__struct_fields__)


def test_ctrl_c_says_how_to_go_on_and_changes_nothing(tmp_path: Path) -> None:
    config = write_config(tmp_path, write_files(tmp_path))
    kills = [
        ("base/index", 0.0),
        ("iteration-1/rollouts", 0.05),
        ("iteration-1/labels", 0.1),
        ("iteration-1/retriever", 0.2),
    ]
    survive(config, tmp_path, kills, here=True, how=signal.SIGINT)


STAGES = [
    "base/index",
    "iteration-1/rollouts",
    "iteration-1/labels",
    "iteration-1/retriever",
    "iteration-1/index",
    "iteration-2/rollouts",
    "iteration-2/labels",
    "iteration-2/retriever",
    "iteration-2/index",
    "evaluation/untouched-query-k-2/rollouts",
    "evaluation/untouched-question-query-k-1/scores",
    "evaluation/iteration-2-k-2/rollouts",
]


def random_kills(seed: int, count: int) -> list[tuple[str, float]]:
    """Draw stages, in the order of the loop, and how long each may run before the kill."""
    rng = random.Random(seed)
    chosen = sorted(rng.sample(range(len(STAGES)), count))
    return [(STAGES[at], rng.uniform(0.0, 2.0)) for at in chosen]


@pytest.mark.slow
def test_six_kills_with_a_real_encoder_change_nothing(tmp_path: Path) -> None:
    survive(write_config(tmp_path), tmp_path, random_kills(0, 6), here=False)


@needs_tiny
@pytest.mark.slow
def test_six_kills_with_a_real_encoder_and_a_real_agent_change_nothing(tmp_path: Path) -> None:
    config = write_config(tmp_path, agent=checkpoint() or "tiny")
    survive(config, tmp_path, random_kills(1, 6), here=False)
