"""Prompt files: sections, places, and what is refused about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_r.agent.dialects import DIALECTS, dialect
from agentic_r.agent.dialects.template import Template
from agentic_r.errors import ConfigError
from agentic_r.protocols import Completion, Conversation
from agentic_r.types import Question, Trajectory

START = Trajectory("t", Question("q", "Who is {question}?", ("x",)))


def test_a_file_without_sections_is_kept_to_the_character() -> None:
    template = Template(' a {question} {"json": 1} {other}\n\n', "file")
    shown = template.fill("user", question="{other}", other="B")
    assert shown == ' a {other} {"json": 1} B\n\n'
    assert template.fill("system") == ""


def test_sections_are_told_apart() -> None:
    template = Template("=== system ===\nBe {x}.\n\n=== user ===\n{question}\n", "file")
    assert (template.fill("system", x="on"), template.fill("user", question="q")) == ("Be on.", "q")


def test_a_system_message_stands_before_a_plain_text_too() -> None:
    prompt = "=== system ===\nBe right.\n=== user ===\nQ: {question}"
    spoken = DIALECTS["search-r1"](prompt)
    assert spoken.prompt(START) == "Be right.\n\nQ: Who is {question}?"
    chat = DIALECTS["search-r1"](prompt, chat=True).prompt(START)
    assert isinstance(chat, Conversation)
    assert [message.role for message in chat.messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("search-r1", "Answer.", r"no \{question\} in it \(it begins 'Answer\.'\)"),
        ("rag", "{question}", r"no \{passages\} in it"),
        ("o2-searcher", "{question}", "got the sections user, expected one .* === system ==="),
        ("corag", "=== query ===\n{question}{chain}", "expected one .* === answer ==="),
        ("react", "before\n=== user ===\n{question}", "text before the first"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        dialect(name, file)


def test_what_an_invalid_turn_is_told_is_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "invalid.txt"
    file.write_text("\nAgain.\n", encoding="utf-8")
    for name, kind in DIALECTS.items():
        if not kind.told:
            with pytest.raises(ConfigError, match=f"{name} ends at a turn that cannot be read"):
                dialect(name, invalid_file=file)
            continue
        own = dialect(name, invalid_file=file).read(Completion("hm", "eos"), START)
        packaged = dialect(name).read(Completion("hm", "eos"), START)
        assert own.status == packaged.status == "invalid"
        assert "Again." in (own.observation or "")
        assert len(packaged.observation or "") > 40
    with pytest.raises(ConfigError, match=r"agent\.invalid_file: cannot read"):
        dialect("react", invalid_file=tmp_path / "missing")


def test_a_checkpoints_prompt_is_for_protocols_of_one_text() -> None:
    assert dialect("r1-searcher", prompt="C {question}").prompt(START) == "C Who is {question}?"
    assert isinstance(dialect("corag", prompt="C {question}").prompt(START), Conversation)


def test_the_settings_name_every_dialect() -> None:
    from typing import get_args

    from agentic_r.settings import DialectName

    assert get_args(DialectName) == tuple(DIALECTS)
