from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.utility.replies import parse_scores

FORMS = ("plain", "comma", "lines", "label", "word", "json", "item", "table", "objects")
ROWS = [{"passage": n, "score": score} for n, score in enumerate((80, 65, 0), start=1)]


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
        ("1 80\n2 65\n3 0", [80, 65, 0]),
        ("1\t80\n2\t65\n3\t0", [80, 65, 0]),
        ("1, 80\n2, 65\n3, 0", [80, 65, 0]),
        ("(1, 80), (2, 65), (3, 0)", [80, 65, 0]),
        ("1 - 80\n2 - 65\n3 - 0", [80, 65, 0]),
        ("[0] 80\n[1] 65\n[2] 0", [80, 65, 0]),
        ("| Passage | Score |\n|--|--|\n| 1 | 80 |\n| 2 | 65 |\n| 3 | 0 |", [80, 65, 0]),
        ("| Passage | Score |\n|---|---|\n| Passage 1 | 80 |\n| Passage 3 | 0 |", [80, None, 0]),
        (json.dumps(ROWS), [80, 65, 0]),
        (json.dumps(ROWS, indent=2), [80, 65, 0]),
        (json.dumps({"grades": ROWS}, indent=1), [80, 65, 0]),
        (json.dumps(ROWS, indent=2)[:-30], [80, 65, None]),
        ("\n".join(map(json.dumps, ROWS)), [80, 65, 0]),
        ("```json\n" + json.dumps(ROWS[::-1]) + "\n```\nAll 3 were graded.", [80, 65, 0]),
        ('{"scores": {"Passage [1]": 80, "Passage [2]": 65, "Passage [3]": 0}}', [80, 65, 0]),
        ('{"1": {"score": "80"}, "2": {"score": "65/100"}, "3": {"score": null}}', [80, 65, None]),
        ('{"reason": "2 of 3 fit", "scores": [80, 65, 0]}', [80, 65, 0]),
        ("[[1, 80], [2, 65], [3, 0]]", [80, 65, 0]),
        ("{'scores': [80, 65, 0]}", [80, 65, 0]),
        ('{"scores": [80, 65', [80, 65, None]),
        ('{"scores": [80, NaN, true]}', [80, None, None]),
        ('{"error": "overloaded"}', [None, None, None]),
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


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["1", "scores", "score", "id", "x"]), inner, max_size=4)
    ),
)


def test_json_without_an_end_is_read_without_an_error() -> None:
    assert parse_scores('{"scores": ' * 1500, 1) == [None]


@given(JSON, st.integers(0, 9))
def test_any_json_is_read_without_an_error(value: object, count: int) -> None:
    scores = parse_scores(json.dumps(value), count)
    assert len(scores) == count
    assert all(score is None or 0.0 <= score <= 100.0 for score in scores)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20), st.data())
def test_scores_come_back_from_every_form(values: list[int], data: st.DataObject) -> None:
    numbered = list(enumerate(values, start=1))
    form = data.draw(st.sampled_from(FORMS))
    reply = {
        "plain": " ".join(map(str, values)),
        "comma": ", ".join(map(str, values)),
        "lines": "\n".join(map(str, values)),
        "label": " ".join(f"[{n}] {value}" for n, value in numbered),
        "word": "\n".join(f"Passage {n}: {value}" for n, value in reversed(numbered)),
        "json": "{" + ", ".join(f'"{n}": {value}' for n, value in numbered) + "}",
        "item": "\n".join(f"{n}. {value}" for n, value in numbered),
        "table": "\n".join(f"| {n} | {value} |" for n, value in numbered),
        "objects": json.dumps([{"id": n, "relevance": value} for n, value in numbered]),
    }[form]
    assert parse_scores(reply, len(values)) == values
