from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

import agentic_r.stage
from agentic_r.changes import NEUTRAL, lasting
from agentic_r.config import AgentConfig, Config, LoopConfig, RetrieverConfig, UtilityConfig
from agentic_r.errors import RunError
from agentic_r.manifest import read
from agentic_r.stage import Run, status

SOURCE = str(Path(agentic_r.stage.__file__).parents[1])


class Row(msgspec.Struct, frozen=True):
    n: int


def with_k(k: int) -> Config:
    return Config(retriever=RetrieverConfig(k=k))


def make(run: Run, name: str = "labels", settings: Any = None, upto: int = 4) -> None:
    """Do the whole of a small stage, carrying on where it stopped."""
    stage = run.stage(name, settings or {"k": 2}, {"rollouts": "abc"})
    if stage.done:
        return
    rows = stage.rows("rows.jsonl", Row)
    for n in range(len(rows.rows), upto):
        rows.extend([Row(n)])
    rows.close(order=lambda row: -row.n)
    stage.finish({"written": upto}, {"too few negatives": 1}, curve=[1.0, 0.5])


def spawn(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": SOURCE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_stage_runs_once(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", Config()) as run:
        make(run)
    with Run.open(tmp_path / "run", Config()) as run:
        stage = run.stage("labels", {"k": 2}, {"rollouts": "abc"})
        assert stage.done
        assert stage.rows("rows.jsonl", Row).rows == [Row(3), Row(2), Row(1), Row(0)]
        with pytest.raises(RunError, match="finished stage"):
            stage.rows("rows.jsonl", Row).extend([Row(9)])
        with pytest.raises(RunError, match="cannot finish again"):
            stage.finish({})
        manifest = stage.manifest
    assert manifest.counts == {"written": 4}
    assert manifest.reasons == {"too few negatives": 1}
    assert manifest.facts == {"curve": [1.0, 0.5]}
    assert list(manifest.outputs) == ["rows.jsonl"]
    assert stage.digest("rows.jsonl") == manifest.outputs["rows.jsonl"].sha256
    assert status(tmp_path / "run") == [("labels", "done", {"written": 4})]


def test_an_unfinished_stage_carries_on(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", Config()) as run:
        stage = run.stage("it-0/labels", {"k": 2}, {"rollouts": "abc"})
        with stage.rows("rows.jsonl", Row) as rows:
            rows.extend([Row(0), Row(1)])
        with pytest.raises(RunError, match="has not finished"):
            _ = stage.manifest
    with (tmp_path / "run" / "it-0" / "labels" / "rows.jsonl").open("ab") as file:
        file.write(b'{"n":')
    assert status(tmp_path / "run") == [("it-0/labels", "unfinished", {"rows.jsonl": 2})]
    with Run.open(tmp_path / "run", Config()) as run:
        stage = run.stage("it-0/labels", {"k": 2}, {"rollouts": "abc"})
        assert not stage.done
        assert stage.rows("rows.jsonl", Row).rows == [Row(0), Row(1)]


def test_status_lists_stages_as_they_ran(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", Config()) as run:
        for name in ("z", "a", "m"):
            make(run, name)
    assert [name for name, _, _ in status(tmp_path / "run")] == ["z", "a", "m"]
    with pytest.raises(RunError, match="is no run"):
        status(tmp_path / "none")


def test_seconds_add_up_over_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(agentic_r.stage.time, "monotonic", lambda: clock[0])
    with Run.open(tmp_path / "run", Config()) as run:
        with run.stage("labels", {}).rows("rows.jsonl", Row) as rows:
            clock[0] += 7
            rows.extend([Row(0)])
        clock[0] += 1  # forgotten by the kill: less than a tick
    clock[0] += 1000
    with Run.open(tmp_path / "run", Config()) as run:
        stage = run.stage("labels", {})
        clock[0] += 3
        assert stage.finish({}).seconds == 10.0
    assert not (tmp_path / "run" / "labels" / "seconds.json").exists()


def test_settings_may_change_while_nothing_was_done_with_them(tmp_path: Path) -> None:
    for k in (2, 3):
        with Run.open(tmp_path / "run", with_k(k)) as run:
            assert read(run.folder / "config.json", dict[str, Any])["retriever"]["k"] == k


def test_changed_settings_are_refused_with_both_values(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", with_k(2)) as run:
        run.stage("data", {})
    changed = msgspec.structs.replace(with_k(3), loop=LoopConfig(iterations=5), seed=4)
    with pytest.raises(RunError) as raised:
        Run.open(tmp_path / "run", changed)
    message = str(raised.value)
    assert "retriever.k was 2, now 3 (rollouts and everything after them)" in message
    assert "loop.iterations was 2, now 5" in message
    assert "seed was 0, now 4 (all stages)" in message
    assert "--fork NAME" in message and "\n" not in message
    with Run.open(tmp_path / "run", with_k(2)):
        pass


def test_settings_that_change_no_result_may_change(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", Config(runs="here")):
        pass
    with Run.open(tmp_path / "run", Config(runs="there")) as run:
        assert '"there"' in (run.folder / "config.json").read_text()


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """A setting that it did not have counts only where it is not what was done then."""
    folder = tmp_path / "run"
    with Run.open(folder, Config()) as run:
        make(run, settings=lasting(Config()))
    values = msgspec.json.decode((folder / "config.json").read_bytes())
    for key in NEUTRAL:
        table, _, name = key.rpartition(".")
        del values[table][name]
    (folder / "config.json").write_bytes(msgspec.json.encode(values))
    with Run.open(folder, Config()) as run:
        assert run.stage("labels", lasting(Config()), {"rollouts": "abc"}).done
    (folder / "config.json").write_bytes(msgspec.json.encode(values))
    own = Config(utility=UtilityConfig(judge_prompt_file="mine.txt"))
    with pytest.raises(RunError, match=r"judge_prompt_file was .*, now \"mine.txt\" \(labels"):
        Run.open(folder, own)


def test_a_server_may_move_where_its_model_has_a_name(tmp_path: Path) -> None:
    def at(port: int, name: str, judge: str = "judge") -> Config:
        return Config(
            agent=AgentConfig(model=f"http://node:{port}", name=name),
            utility=UtilityConfig(judge=f"http://node:{port}/v1", judge_name=judge),
        )

    def started(config: Config, folder: Path) -> None:
        with Run.open(folder, config) as run:
            make(run)

    started(at(1, "reader"), tmp_path / "named")
    started(at(2, "reader"), tmp_path / "named")
    with pytest.raises(RunError, match=r'agent\.name was "reader", now "other"'):
        started(at(2, "other"), tmp_path / "named")
    assert lasting(at(1, "reader")) == lasting(at(2, "reader"))

    started(at(1, "", "judge"), tmp_path / "unnamed")
    with pytest.raises(RunError, match=r'agent\.model was "http://node:1", now "http://node:2"'):
        started(at(2, "", "judge"), tmp_path / "unnamed")


@pytest.mark.parametrize("finished", [True, False])
def test_a_stage_with_other_settings_or_inputs_is_refused(tmp_path: Path, finished: bool) -> None:
    with Run.open(tmp_path / "run", Config()) as run:
        stage = run.stage("labels", {"k": 2, "train": {"rate": 0.1}}, {"rollouts": "abc"})
        if finished:
            stage.finish({})
        with pytest.raises(RunError) as raised:
            run.stage("labels", {"k": 2, "train": {"rate": 0.2}}, {"rollouts": "xyz"})
    assert "settings.train.rate was 0.1, now 0.2" in str(raised.value)
    assert 'inputs.rollouts was "abc", now "xyz"' in str(raised.value)
    assert "settings.k" not in str(raised.value)


def test_rows_of_an_unknown_start_are_not_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "labels"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text('{"n":5}\n')
    with Run.open(tmp_path / "run", Config()) as run:
        assert run.stage("labels", {}).rows("rows.jsonl", Row).rows == []


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    holding = spawn(
        "import sys\n"
        "from agentic_r.config import Config\n"
        "from agentic_r.stage import Run\n"
        "with Run.open(sys.argv[1], Config()):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n",
        str(tmp_path / "run"),
    )
    try:
        assert holding.stdout is not None and holding.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"in use by process {holding.pid};"):
            Run.open(tmp_path / "run", Config())
    finally:
        holding.kill()
        holding.communicate()
    with Run.open(tmp_path / "run", Config()), pytest.raises(RunError, match=str(os.getpid())):
        Run.open(tmp_path / "run", Config())


@pytest.mark.parametrize("damage", ["missing", "shorter", "other bytes"])
def test_a_damaged_output_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    with Run.open(tmp_path / "run", Config()) as run:
        make(run)
    path = tmp_path / "run" / "labels" / "rows.jsonl"
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if damage == "shorter" else whole.replace(b"3", b"4"))
    expected = {"shorter": f"has {len(whole) - 1} bytes, expected {len(whole)}"}.get(damage, damage)
    with (
        Run.open(tmp_path / "run", Config()) as run,
        pytest.raises(RunError, match=rf"rows\.jsonl is damaged: it .*{expected}"),
    ):
        run.stage("labels", {"k": 2}, {"rollouts": "abc"})
    assert status(tmp_path / "run") == [("labels", "damaged", {"written": 4})]


def test_a_damaged_manifest_is_refused_by_name(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", Config()) as run:
        make(run)
    (tmp_path / "run" / "labels" / "manifest.json").write_text("{")
    with (
        Run.open(tmp_path / "run", Config()) as run,
        pytest.raises(RunError, match=r"labels/manifest\.json is damaged"),
    ):
        run.stage("labels", {"k": 2}, {"rollouts": "abc"})


def test_a_fork_reuses_what_fits_and_redoes_the_rest(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with Run.open(old, with_k(2)) as run:
        make(run, "iteration-0/index")
        index = run.folder / "iteration-0" / "index"
        make(run, "iteration-0/labels")
        with run.stage("iteration-0/retriever", {}).rows("r.jsonl", Row) as rows:
            rows.extend([Row(1)])
    (index / "sub").mkdir()
    for _ in range(2):  # the same command again carries on
        with Run.fork(old, new, with_k(3)) as run:
            assert not (new / "iteration-0" / "retriever").exists()
            assert run.stage("iteration-0/index", {"k": 2}, {"rollouts": "abc"}).done
            labels = run.stage("iteration-0/labels", {"k": 3}, {"rollouts": "abc"})
            if not labels.done:
                assert labels.rows("rows.jsonl", Row).rows == []
                with labels.rows("rows.jsonl", Row) as rows:
                    rows.extend([Row(7)])
                labels.finish({"written": 1})
            assert labels.rows("rows.jsonl", Row).rows == [Row(7)]
    assert status(old)[1] == ("iteration-0/labels", "done", {"written": 4})
    with pytest.raises(RunError, match=r"retriever\.k was 3, now 4"):
        Run.fork(old, new, with_k(4))


def test_a_fork_carries_the_answers_along_as_a_copy(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with Run.open(old, Config()):
        (old / "answers").mkdir()
        (old / "answers" / "agent.jsonl").write_bytes(b"one\n")
    with Run.fork(old, new, Config()):
        pass
    with (new / "answers" / "agent.jsonl").open("ab") as log:
        log.write(b"two\n")
    assert (old / "answers" / "agent.jsonl").read_bytes() == b"one\n"
    with Run.fork(old, new, Config()):  # carried on: what it was answered since is kept
        pass
    assert (new / "answers" / "agent.jsonl").read_bytes() == b"one\ntwo\n"


def test_a_fork_refuses_what_is_no_run_or_another_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run"):
        Run.fork(tmp_path / "old", tmp_path / "new", Config())
    for name in ("old", "new"):
        Run.open(tmp_path / name, Config()).close()
    with pytest.raises(RunError, match="no fork of"):
        Run.fork(tmp_path / "old", tmp_path / "new", Config())


WORKER = """
import sys, time
from pathlib import Path
from agentic_r.config import Config
from agentic_r.stage import Run
with Run.open(sys.argv[1], Config()) as run:
    for name in ("rollouts", "labels"):
        stage = run.stage(name, {"n": 100}, {})
        if stage.done:
            continue
        rows = stage.rows("rows.jsonl", dict)
        for n in range(len(rows.rows), 100):
            time.sleep(0.002)
            rows.extend([{"n": n, "text": "x" * 500}])
        rows.close(order=lambda row: -row["n"])
        stage.finish({"written": len(rows.rows)})
"""


def test_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    began = time.monotonic()
    with spawn(WORKER, str(undisturbed)) as worker:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    whole = time.monotonic() - began
    random_ = random.Random(0)
    kills = 0
    for attempt in range(40):
        with spawn(WORKER, str(killed)) as worker:
            try:
                # The last attempts are left alone, so that the test ends on a slow machine too.
                wait = random_.uniform(0.2, 0.7) * whole if attempt < 8 else 60
                _, said = worker.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                worker.send_signal(signal.SIGKILL)
                worker.communicate()
                kills += 1
                continue
        assert worker.returncode == 0, said
        break
    assert kills > 0
    for name in ("rollouts", "labels"):
        assert (killed / name / "rows.jsonl").read_bytes() == (
            undisturbed / name / "rows.jsonl"
        ).read_bytes()
        assert not list((killed / name).glob(".*"))
