"""What a person sees of a trajectory: marked, coloured only where asked, and harmless."""

from __future__ import annotations

import io

import pytest

from agentic_r.agent.shown import end_text, in_colour, turn_text
from agentic_r.types import Hit, Passage, Question, Search, Trajectory, Turn

HIT = Hit(Passage("p", "text"), 1.0)
SEARCHED = Turn(
    "<search> who </search>", "search", (Search("who", "who", (HIT,)),), observation="text\x1b[2J"
)
WHO = Question("q", "Who?", ())


def test_a_turn_in_colour_and_without() -> None:
    one = Trajectory("t", WHO, (SEARCHED,))
    assert turn_text(one) == "[turn 1] <search> who </search>\ntext?[2J\n"
    assert turn_text(one, colour=True) == (
        "[turn 1] <search> \x1b[1;33mwho\x1b[0m </search>\n\x1b[2mtext?[2J\x1b[0m\n"
    )


def test_ends() -> None:
    answered = Turn("<answer> Ada </answer>", "answer", answer="Ada")
    end = Trajectory("t", WHO, (SEARCHED, answered), "answered")
    assert end_text(end) == "Answer: Ada"
    assert "\x1b[1;32mAda" in turn_text(end, colour=True)
    failed = Trajectory("t", WHO, (), "context", "too\nlong\x07")
    assert end_text(failed) == "Answer: (none: context, too\nlong?)"


def test_colour_is_for_terminals_and_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert in_colour(Terminal())
    assert not in_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not in_colour(Terminal())
