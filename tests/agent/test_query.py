"""The string that the retriever is sent, and that a long context never pushes the query out."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.agent.query import FORMS, Part, check, cut, fitted, sent, thought
from agentic_r.errors import ConfigError
from agentic_r.protocols import SEPARATOR
from agentic_r.types import Question, Search, Trajectory, Turn

ASKED = Question("q", "Who is it?", ("x",))
EARLIER = Turn("<search> a </search>", "search", (Search("a", "a"), Search("b", "b")))
NOW = Turn("<think> I need\n the man. </think>\n<search> the man </search>", "search")


class Words:
    """A ruler whose tokens are words and single marks."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("query", "the man"),
        ("question+query", "Who is it? [SEP] the man"),
        ("question+reasoning+query", "Who is it? [SEP] I need the man. [SEP] the man"),
        ("question+history+query", "Who is it? [SEP] a [SEP] b [SEP] the man"),
    ],
)
def test_every_form(form: str, expected: str) -> None:
    after = Trajectory("t", ASKED, (EARLIER,))
    assert sent(after, NOW, "the man", form) == expected
    assert sent(after, NOW, "the man", form, Words(60)) == expected


def test_what_is_not_there_is_left_out() -> None:
    first = Trajectory("t", ASKED)
    assert sent(first, NOW, "the man", "question+history+query") == "Who is it? [SEP] the man"
    bare = Turn("<search> x </search>", "search")
    assert sent(first, bare, "x", "question+reasoning+query") == "Who is it? [SEP] x"
    spoken = sent(first, NOW, "x", "question+reasoning+query", reasoning="hm")
    assert spoken == "Who is it? [SEP] hm [SEP] x"
    assert thought(Turn("I look this up.", "search"), "other words") == "I look this up."


def test_another_form_is_refused() -> None:
    with pytest.raises(ConfigError, match="'history', expected one of"):
        sent(Trajectory("t", ASKED), NOW, "b", "history")
    for form in FORMS:
        check(form)


def test_a_long_question_is_cut_and_the_query_is_whole() -> None:
    question = " ".join(f"w{n}" for n in range(50))
    text = fitted([Part(question, "start")], "who wrote it", Words(16))
    assert text == "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 [SEP] who wrote it"
    history = fitted([Part("q", "start"), Part(question, "end")], "who", Words(14))
    assert history == "q [SEP] w44 w45 w46 w47 w48 w49 [SEP] who"


def test_a_query_alone_is_cut_at_its_end_and_words_stay_whole() -> None:
    assert fitted([], "a b c d", Words(3)) == "a b c"
    assert fitted([Part("q r", "start")], "a b c d e f", Words(2)) == "a b"

    class Letters:
        limit = 9

        def spans(self, text: str) -> list[tuple[int, int]]:
            return [(at, at + 1) for at in range(len(text))]

    assert cut(Part("one three", "start"), 6, Letters()) == "one"
    assert cut(Part("one three", "end"), 6, Letters()) == "three"
    assert cut(Part("threefour", "start"), 4, Letters()) == "thre"
    assert fitted([], "one two three", Letters()) == "one two"


texts = st.text(alphabet="ab .", max_size=60)


@given(st.lists(texts, max_size=3), texts, st.integers(min_value=1, max_value=30))
def test_the_limit_is_kept_and_what_fits_is_unchanged(
    context: list[str], query: str, limit: int
) -> None:
    ruler = Words(limit)
    parts = [Part(text, "end" if at else "start") for at, text in enumerate(context)]
    whole = SEPARATOR.join([*context, query])
    found = fitted(parts, query, ruler)
    assert len(ruler.spans(found)) <= limit
    if len(ruler.spans(whole)) <= limit:
        assert found == whole
    words = query.split()
    needed = len(ruler.spans(query))
    room = limit - len(context) * len(ruler.spans(SEPARATOR))
    if needed <= 0.75 * room - len(context):
        assert found.split()[len(found.split()) - len(words) :] == words
