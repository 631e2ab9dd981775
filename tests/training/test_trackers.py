from __future__ import annotations

from pathlib import Path

import pytest

from agentic_r.errors import ConfigError
from agentic_r.training.trackers import check_tracker, open_tracker


def test_tensorboard_gets_every_value(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = open_tracker("tensorboard", "retriever", tmp_path, {})
    for step in (1, 2):
        tracker.log(step, {"loss": 1 / step})
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]


def test_trackio_gets_every_value_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = pytest.importorskip("trackio")
    for step in (1, 2):  # the second opening is what a resumed training does
        tracker = open_tracker("trackio", "retriever", None, {"batch": 16})
        tracker.log(step, {"loss": 1 / step})
        tracker.close()
    (run,) = trackio.Api().runs("agentic-r")
    assert run.name == "retriever"


@pytest.mark.parametrize("kind", ["tensorboard", "trackio", "wandb"])
def test_what_is_not_installed_is_refused_by_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, kind, None)
    with pytest.raises(ConfigError, match=f"{kind} is not installed; pip install {kind}"):
        open_tracker(kind, "retriever", tmp_path, {})


def test_no_tracker_is_none() -> None:
    tracker = open_tracker("none", "retriever", None, {})
    tracker.log(1, {"loss": 1.0})
    tracker.close()


def test_a_tracker_is_checked_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_tracker("none", "agent.train.tracker")
    with pytest.raises(ConfigError, match=r"agent.train.tracker: wandb is not installed; pip"):
        check_tracker("wandb", "agent.train.tracker")
