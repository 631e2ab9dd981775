from __future__ import annotations

import argparse

import pytest

from agentic_r.cli import main
from agentic_r.converting import CONVERSIONS, conversion


@pytest.mark.parametrize("name", CONVERSIONS)
def test_every_conversion_describes_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = conversion(name)
    parser = argparse.ArgumentParser()
    found.options(parser)
    assert found.ABOUT.endswith(".")
    with pytest.raises(SystemExit) as end:
        main(["convert", name, "--help"])
    assert end.value.code == 0
    assert found.ABOUT.split()[0] in capsys.readouterr().out


def test_conversions_are_named_once() -> None:
    assert len(set(CONVERSIONS)) == len(CONVERSIONS)


@pytest.mark.parametrize("words", [["convert"], ["convert", "nothing"], ["convert", "chunk", "a"]])
def test_wrong_usage_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
