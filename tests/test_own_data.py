"""Own corpus, own questions, agent URL, judge URL: the loop against real server processes.

The files hold nothing but passages, questions and answers, as a user's would.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentic_r.cli import main
from agentic_r.config import load_config
from agentic_r.testing.server import serving
from agentic_r.world import Sizes, generate
from tests.agent.conftest import make_model
from tests.checkpoint import checkpoint, needs_tiny

CONFIG = Path(__file__).parents[1] / "configs" / "own-data.toml"
SMALL = [
    *("--retriever.max_length", "48", "--retriever.train.epochs", "1"),
    *("--retriever.train.negatives", "2", "--retriever.k", "1"),
    *("--utility.candidates", "10", "--utility.negatives", "4"),
    *("--loop.iterations", "1", "--evaluation.ks", "[1]", "--evaluation.bootstrap", "200"),
    *("--agent.max_tokens", "96"),
]
NAMED = ["--agent.name", "reader", "--utility.judge_name", "grader"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small world as a user would have it: without a word about hops."""
    folder = tmp_path_factory.mktemp("own")
    world = generate(5, Sizes(12, 8, 8, 8, 8, 24, 4, 8))
    chosen = [q for split in ("train", "dev", "test") for q in world.questions[split]]
    gold = {hop["passage_id"] for q in chosen for hop in q.metadata["hops"]}
    passages = [
        {"id": p.id, "title": p.title, "text": p.text}
        for row, p in enumerate(world.corpus)
        if p.id in gold or row % 5 == 0
    ]
    questions = [
        {"id": q.id, "question": q.text, "golden_answers": list(q.answers)} for q in chosen
    ]
    write(folder / "corpus.jsonl", passages)
    write(folder / "questions.jsonl", questions)
    return folder


@pytest.fixture(scope="module")
def agent() -> Iterator[str]:
    """Serve the tiny agent in a process of its own."""
    folder = checkpoint()
    assert folder is not None
    with serving(folder) as url:
        yield url


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a judge: what its own model babbles does not matter, it grades by a rule."""
    with serving(make_model(tmp_path_factory.mktemp("judge"))) as url:
        yield url


@pytest.fixture(scope="module")
def finished(files: Path, agent: str, judge: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the whole loop once and return its folder of runs."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["loop", str(CONFIG), *settings(files, runs, agent, judge), *NAMED, *SMALL]) == 0
    return runs


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def settings(files: Path, runs: Path, agent: str, judge: str) -> list[str]:
    """Return what a user fills in, and what makes the run small."""
    given = {
        "data.corpus": files / "corpus.jsonl",
        "data.questions": files / "questions.jsonl",
        "agent.model": agent,
        "utility.judge": judge,
        "runs": runs,
    }
    prompt = (checkpoint() or files) / "prompt.txt"
    own = ["--agent.prompt_file", str(prompt)] if prompt.is_file() else []
    return [*(part for key, value in given.items() for part in (f"--{key}", str(value))), *own]


def trajectories(runs: Path) -> list[tuple[Any, ...]]:
    """Return what the agent did on each question: words, searches, answer, reason to stop."""
    path = runs / "own-data" / "iteration-1" / "rollouts" / "trajectories.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(
        (
            row["id"],
            [turn["text"] for turn in row["turns"]],
            [[s["sent"] for s in turn["searches"]] for turn in row["turns"]],
            row["turns"][-1]["answer"],
            row["stop"],
        )
        for row in rows
    )


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_the_config_needs_nothing_but_its_four_lines() -> None:
    config = load_config(CONFIG)
    assert config.data.source == "files"
    assert config.data.sub_answers == "judge"
    assert config.agent.model.startswith("http://")
    assert config.utility.judge.startswith("http://")


@needs_tiny
def test_the_loop_ends_with_a_report(
    files: Path, finished: Path, agent: str, judge: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads((finished / "own-data" / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == [
        "BM25 query, k=1",
        "untouched query, k=1",
        "untouched question+query, k=1",
        "iteration 1, k=1",
    ]
    assert all(row["hit_at_3"] is None and row["failed"] == 0 for row in report["rows"])
    assert report["gap_closed"] is None
    assert report["labelling"][0]["kept"] > 0
    page = (finished / "own-data" / "report.html").read_text()
    assert "Not measured in this run" in page
    assert "have no annotated hops" in page
    assert agent in page
    assert judge in page
    assert main(["report", str(finished / "own-data")]) == 0
    assert "hit@3 was not measured" in capsys.readouterr().out


@needs_tiny
def test_a_finished_run_needs_no_server(
    files: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The models have names, so their addresses may change.
    again = settings(files, finished, closed_port(), closed_port())
    assert main(["loop", str(CONFIG), *again, *NAMED, *SMALL]) == 0
    assert "No row for oracle retrieval" in capsys.readouterr().out
    assert main(["loop", str(CONFIG), *again, *SMALL]) == 1
    assert "was started with other settings: agent.model was" in capsys.readouterr().err


@needs_tiny
@pytest.mark.parametrize("flags", [("--trim-stop",), ("--fail-first", "2")])
def test_a_server_with_faults_gives_the_same_trajectories(
    files: Path, finished: Path, judge: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    for stage in ("data", "base"):
        shutil.copytree(finished / "own-data" / stage, tmp_path / "own-data" / stage)
    folder = checkpoint()
    assert folder is not None
    with serving(folder, *flags) as url:
        assert main(["rollout", str(CONFIG), *settings(files, tmp_path, url, judge), *SMALL]) == 0
    plain, other = trajectories(finished), trajectories(tmp_path)
    # Where a tag was closed by another, which a server that trims does not show, all bets are off.
    sound = [row for row in plain if row[-1] in ("answered", "budget")]
    assert len(sound) > len(plain) / 2
    assert [row for row in other if row[0] in {each[0] for each in sound}] == sound


def test_an_agent_that_is_down_is_one_clear_line(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    down = closed_port()
    arguments = settings(files, tmp_path, down, closed_port())
    assert main(["loop", str(CONFIG), *arguments, *SMALL]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"agentic-r: agent.model: {down}/models: got no connection")
    assert "check that the server runs" in line


def test_a_judge_that_is_down_is_one_clear_line(
    files: Path, judge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    down = closed_port()
    arguments = settings(files, tmp_path, judge, down)
    assert main(["loop", str(CONFIG), *arguments, *SMALL]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"agentic-r: utility.judge: {down}/models: got no connection")
    # No corpus was encoded for nothing.
    assert not (tmp_path / "own-data" / "base").exists()


def test_a_judge_without_its_key_is_refused(
    files: Path,
    judge: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("AR_JUDGE_KEY", raising=False)
    arguments = settings(files, tmp_path, judge, judge)
    arguments += ["--utility.judge_api_key_env", "AR_JUDGE_KEY"]
    assert main(["loop", str(CONFIG), *arguments, *SMALL]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("agentic-r: utility.judge_api_key_env: the environment variable AR_JU")
