from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.utility.replies import parse_scores


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("80 65 0", [80, 65, 0]),
        ("80, 65, 0", [80, 65, 0]),
        ("80\n65\n\n0\n", [80, 65, 0]),
        ("  80   65  0.", [80, 65, 0]),
        ("[80, 65, 0]", [80, 65, 0]),
        ("80.5 65.25 0", [80.5, 65.25, 0]),
        ("[1] 80 [2] 65 [3] 0", [80, 65, 0]),
        ("[3] 0\n[1] 80\n[2] 65", [80, 65, 0]),
        ("[1]: 80, [2]: 65, [3]: 0", [80, 65, 0]),
        ("[1] - 80\n[2] - 65\n[3] - 0", [80, 65, 0]),
        ("Passage [1]: 80\nPassage [2]: 65\nPassage [3]: 0", [80, 65, 0]),
        ("Passage 1: 80/100\nPassage 2: 65/100\nPassage 3: 0/100", [80, 65, 0]),
        ("Passage 1 - 80\nPassage 2 - 65\nPassage 3 - 0", [80, 65, 0]),
        ("1. 80\n2. 65\n3. 0", [80, 65, 0]),
        ("1) 80\n2) 65\n3) 0", [80, 65, 0]),
        ('{"1": 80, "2": 65, "3": 0}', [80, 65, 0]),
        ('{"scores": [80, 65, 0]}', [80, 65, 0]),
        ('{\n  "scores": [\n    80,\n    65,\n    0\n  ]\n}', [80, 65, 0]),
        ("**80** **65** **0**", [80, 65, 0]),
        ("```\n80 65 0\n```", [80, 65, 0]),
        ("Scores: 80 65 0", [80, 65, 0]),
        ("I compared all 10 passages.\n80 65 0", [80, 65, 0]),
        ("<think>1 2 3</think>\n80 65 0", [80, 65, 0]),
        ("80 65 0 50 40", [80, 65, 0]),
        ("180 65 -3", [100, 65, 0]),
        ("80 65", [80, 65, None]),
        ("80 n/a 0", [80, None, 0]),
        ("[1] 80 [3] 0", [80, None, 0]),
        ("[1] 80 [1] 10 [2] 65 [3] 0 [4] 9", [80, 65, 0]),
        ("I cannot grade these 3 passages.", [None, None, None]),
        ("", [None, None, None]),
    ],
)
def test_replies_that_judges_write(reply: str, expected: list[float | None]) -> None:
    assert parse_scores(reply, 3) == expected


@given(st.text(max_size=300), st.integers(0, 20))
def test_any_reply_is_read_without_an_error(reply: str, count: int) -> None:
    scores = parse_scores(reply, count)
    assert len(scores) == count
    assert all(score is None or 0.0 <= score <= 100.0 for score in scores)


@given(
    st.lists(st.text(alphabet="0123456789[]().:,- \npasge/", max_size=60), max_size=8),
    st.integers(1, 20),
)
def test_any_heap_of_numbers_is_read_without_an_error(parts: list[str], count: int) -> None:
    scores = parse_scores("".join(parts) + "9" * 5000, count)
    assert all(score is None or 0.0 <= score <= 100.0 for score in scores)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20), st.data())
def test_scores_come_back_from_every_form(values: list[int], data: st.DataObject) -> None:
    numbered = list(enumerate(values, start=1))
    form = data.draw(st.sampled_from(("plain", "comma", "lines", "label", "word", "json", "item")))
    reply = {
        "plain": " ".join(map(str, values)),
        "comma": ", ".join(map(str, values)),
        "lines": "\n".join(map(str, values)),
        "label": " ".join(f"[{n}] {value}" for n, value in numbered),
        "word": "\n".join(f"Passage {n}: {value}" for n, value in reversed(numbered)),
        "json": "{" + ", ".join(f'"{n}": {value}' for n, value in numbered) + "}",
        "item": "\n".join(f"{n}. {value}" for n, value in numbered),
    }[form]
    assert parse_scores(reply, len(values)) == values
