from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentic_r.errors import DataError
from agentic_r.utility.prompting import Prompt, close, load_prompt, one_line


@pytest.mark.parametrize("name", ["judge", "subanswers"])
def test_packaged_prompts_load(name: str) -> None:
    prompt = load_prompt(name)
    assert prompt.system
    assert "{count}" in prompt.user


def test_values_fill_their_places_once() -> None:
    prompt = Prompt("{a}", '{a} {b} {"json": 1} {unknown}')
    assert prompt.fill(a="{b}", b="\\1") == ("{b}", '{b} \\1 {"json": 1} {unknown}')


def test_a_bad_prompt_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    with pytest.raises(DataError, match=r"p\.txt: cannot read this prompt file"):
        load_prompt("judge", path)
    path.write_text("=== system ===\nonly\n", "utf-8")
    with pytest.raises(DataError, match="expected a line '=== user ==='"):
        load_prompt("judge", path)


def test_one_line_neutralises_tags_and_labels() -> None:
    assert one_line("a\n <b> [12] [x]") == "a \u2039b\u203a (12) [x]"


def test_closing_something_without_connections_is_nothing() -> None:
    asyncio.run(close(object()))
    assert not hasattr(object(), "aclose")
