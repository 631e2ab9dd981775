"""Texts cut to a number of tokens, and the two protocols that cut."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agentic_r.agent.dialects import limits
from agentic_r.agent.dialects.limits import Estimate, first, last, outer, token_ruler
from agentic_r.agent.dialects.search_r1_rl import SearchR1RL
from agentic_r.agent.dialects.simple_deep_searcher import SimpleDeepSearcher
from agentic_r.types import Hit, Passage, Question, Search, Trajectory, Turn


class Words:
    limit = 2**31

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S+", text)]


RULER = Words()
NUMBERS = " ".join(str(n) for n in range(5000))


def found(text: str) -> Turn:
    return Turn("x", "search", (Search("q", "q", (Hit(Passage("p", text, "T"), 1.0),)),))


def test_ends_of_a_text() -> None:
    assert first("a b c d", 2, RULER) == "a b"
    assert last("a b c d", 2, RULER) == "c d"
    assert first("a b", 2, RULER) == last("a b", 2, RULER) == "a b"
    ends = [" ".join(NUMBERS.split()[:30]), " ".join(NUMBERS.split()[-30:])]
    assert outer(NUMBERS, 100, RULER) == "".join(ends)
    assert outer("a " * 99, 100, RULER) == "a " * 99


@given(st.text(max_size=80), st.integers(1, 20))
def test_an_estimate_cuts_to_its_own_count(text: str, tokens: int) -> None:
    for cut in (first, last):
        shown = cut(text, tokens, None)
        assert shown in text
        # What is shorter in bytes than the limit in tokens is not measured.
        assert len(Estimate().spans(shown)) <= tokens


def test_training_cuts_an_observation_at_its_end_and_a_prompt_at_its_beginning() -> None:
    spoken = SearchR1RL("Q {question}\n", ruler=RULER)
    start = Trajectory("t", Question("q", "Who", ("x",)))
    shown = spoken.observe(found(NUMBERS), start)
    assert len(shown.split()) == 800
    assert shown.startswith('\n\n<information>Doc 1(Title: "T") 0 1')
    assert "</information>" not in shown
    long = Trajectory("t", Question("q", NUMBERS, ("x",)))
    prompt = spoken.prompt(long)
    assert isinstance(prompt, str)
    assert prompt.split() == f"{NUMBERS}?".split()[-2048:]
    turns = tuple(Turn("x " * 500, "search", (), None, shown) for _ in range(5))
    whole = spoken.prompt(Trajectory("t", start.question, turns))
    assert isinstance(whole, str)
    assert len(whole.split()) == 4096
    assert whole.endswith(shown)


def test_simple_deep_searcher_leaves_the_middle_of_long_evidence_out() -> None:
    spoken = SimpleDeepSearcher(ruler=RULER)
    start = Trajectory("t", Question("q", "Who", ("x",)))
    shown = spoken.observe(found(NUMBERS), start)
    # Half of 3000 less 20 tokens at each end; the two that meet are one word.
    assert len(shown.split()) == 2 * 1480 - 1
    assert shown.endswith("\n\n<|end_search_result|>") or shown.endswith(
        "<|end_search_result|>\n\n"
    )
    assert "4999" in shown and " 2500 " not in shown
    assert limits.outer(shown, 3000, RULER) == shown


def test_a_model_in_this_process_tells_its_own_tokens_apart(model_folder: Path) -> None:
    from transformers import AutoTokenizer

    class Local:
        tokenizer = AutoTokenizer.from_pretrained(model_folder)

    ruler = token_ruler(Local())
    assert ruler is not None
    text = "the bo of diu<search>x\ud800"
    ids = Local.tokenizer(text[:-1], add_special_tokens=False)["input_ids"]
    assert len(ruler.spans(text[:-1])) == len(ids)
    assert "".join(text[a:b] for a, b in ruler.spans(text[:-1])) == text[:-1]
    assert ruler.spans(text)
    assert token_ruler(object()) is None
