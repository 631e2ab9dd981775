"""The log of answers: nothing asked twice, nothing lost, whatever moment a kill comes at."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.agent.answered import Answered
from agentic_r.errors import DataError
from agentic_r.protocols import Completion, Conversation, Message, Prompt, Sampling

GREEDY = Sampling(max_tokens=5)


def done(text: str) -> Completion:
    return Completion(text, "stop", (1, 2), (-0.1, -0.2), "p", (), 10, 4)


def test_an_answer_is_found_again_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "agent.jsonl"
    first = Answered(path, price=(1.0, 2.0))
    key = first.key("m", "prompt", GREEDY)
    assert first.find(key) is None
    first.add(key, done("text\n\u2028"))
    first.close()
    again = Answered(path, price=(1.0, 2.0))
    assert again.find(again.key("m", "prompt", GREEDY)) == done("text\n\u2028")
    usage = again.usage
    assert (usage.requests, usage.prompt_tokens, usage.new_tokens, usage.reused) == (1, 10, 4, 1)
    assert usage.cost == pytest.approx((10 * 1.0 + 4 * 2.0) / 1e6)


def test_what_differs_has_another_key() -> None:
    log = Answered()
    prompts: list[Prompt] = ["1", (1,), Conversation((Message("user", "1"),))]
    keys = {log.key("m", prompt, GREEDY) for prompt in prompts}
    keys |= {log.key("other", "1", GREEDY), log.key("m", "1", Sampling(max_tokens=6))}
    assert len(keys) == 5
    assert log.key("m", "1", GREEDY) == log.key("m", "1", GREEDY)


def test_draws_without_a_seed_are_samples_of_their_own(tmp_path: Path) -> None:
    free, seeded = Sampling(temperature=1.0), Sampling(temperature=1.0, seed=3)
    log = Answered(tmp_path / "log")
    keys = [log.key("m", "p", free) for _ in range(3)]
    assert len(set(keys)) == 3
    assert log.key("m", "p", seeded) == log.key("m", "p", seeded)
    again = Answered(tmp_path / "log")  # a resumed run draws the same samples in its order
    assert [again.key("m", "p", free) for _ in range(3)] == keys


@given(st.lists(st.text(max_size=20), min_size=1, max_size=6), st.data())
def test_a_kill_at_any_byte_loses_only_the_torn_line(texts: list[str], data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        log = Answered(path)
        for number, text in enumerate(texts):
            log.add(str(number), done(text))
        log.close()
        raw = path.read_bytes()
        cut = data.draw(st.integers(0, len(raw)))
        path.write_bytes(raw[:cut])
        again = Answered(path)
        whole = raw[:cut].count(b"\n")
        found = [again.find(str(number)) for number in range(len(texts))]
        assert found == [done(text) for text in texts[:whole]] + [None] * (len(texts) - whole)
        again.add("new", done("new"))
        again.close()
        assert Answered(path).find("new") == done("new")


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Answered(path)
    for number in range(3):
        log.add(str(number), done("x"))
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{nonsense}\n" + lines[2])
    with pytest.raises(DataError, match=r"log\.jsonl:2: got '\{nonsense\}'"):
        Answered(path)


def test_tokens_that_were_not_told_are_counted_as_untold() -> None:
    log = Answered(price=(1.0, 1.0))
    log.add("a", Completion("x", "eos"))
    assert msgspec.structs.astuple(log.usage) == (1, 0, 0, 1, 0, 0.0)
