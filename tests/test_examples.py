"""The examples run as a user runs them, and print what they are about."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "inspect_labels": "hard negative",
    "own_retriever": "root entities",
    "ten_lines": "root entities",
}
SLOW = ("ten_lines",)


def test_every_example_is_here() -> None:
    assert sorted(SAYS) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in SAYS]
)
def test_an_example_runs(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert SAYS[name] in capsys.readouterr().out


def test_labels_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "inspect_labels.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "the agent's final answer was right" in said
    assert "if all candidates were tried" in said
