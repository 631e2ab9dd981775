from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.metrics import answer_in, exact_match, f1, normalise_answer


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Eiffel-Tower!", "eiffeltower"),
        ("An apple a day", "apple day"),
        ("U.S.", "us"),
        ("Theatre", "theatre"),
        ("", ""),
    ],
)
def test_normalise_answer(text: str, normal: str) -> None:
    assert normalise_answer(text) == normal


def test_exact_match_takes_any_answer() -> None:
    assert exact_match("the Beatles.", ["Stones", "Beatles"]) == 1.0
    assert exact_match("Beatle", ["Beatles"]) == 0.0
    assert exact_match(None, ["Beatles"]) == 0.0
    assert exact_match("", ["A"]) == 0.0
    assert exact_match("x", []) == 0.0


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("Barack Obama", ["Obama"], 2 / 3),
        ("Barack Obama", ["Obama", "barack obama"], 1.0),
        ("cat cat dog", ["cat dog dog"], 2 / 3),
        ("yes it is", ["yes"], 0.0),
        ("yes", ["yes it is"], 0.0),
        ("Yes.", ["yes"], 1.0),
        ("fish", ["cat"], 0.0),
        (None, ["cat"], 0.0),
        ("cat", [], 0.0),
        ("the", ["a"], 0.0),
    ],
)
def test_f1(prediction: str | None, answers: list[str], expected: float) -> None:
    assert f1(prediction, answers) == pytest.approx(expected)


@given(st.text(max_size=20), st.text(max_size=20))
def test_f1_is_symmetric_bounded_and_one_on_a_match(left: str, right: str) -> None:
    assert 0.0 <= f1(left, [right]) <= 1.0
    assert f1(left, [right]) == pytest.approx(f1(right, [left]))
    if exact_match(left, [right]) and normalise_answer(left):
        assert f1(left, [right]) == 1.0


@pytest.mark.parametrize(
    ("text", "answer", "held"),
    [
        ("She was born in Paris, France.", "Paris", True),
        ("The Parisian cafe", "Paris", False),
        ("a Paris-based firm", "Paris", True),
        ("in the US since 1990", "U.S.", True),
        ("founded in 1990\u20131991", "1990", True),
        ("the Band played", "Band", True),
        ("he is in The The", "The The", True),
        ("anything", "", False),
        ("anything", "...", False),
        ("New  York\nCity", "the New York City", True),
    ],
)
def test_answer_in(text: str, answer: str, held: bool) -> None:
    assert answer_in(text, answer) is held
