from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.agent.trainer import (
    Encoded,
    Trainer,
    batches,
    encode,
    pad,
    rendered,
    right_throughout,
    written_logits,
)
from agentic_r.types import Hit, Passage, Question, Search, Trajectory, Turn

DIALECT = SearchR1("Answer the question.\nQuestion: {question}\n")
# Letters of one to four bytes, spaces and brackets: what a tokenizer may merge or split.
TEXT = st.text(alphabet="abt e\nüЖ語🙂<>/.", max_size=12)


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder)


@pytest.fixture
def model(model_folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)


def searched(think: str, query: str, shown: Sequence[str]) -> Turn:
    hits = tuple(Hit(Passage(str(at), text, f"T{at}"), 1.0) for at, text in enumerate(shown))
    text = f"<think>{think}</think><search>{query}</search>"
    return Turn(text, "search", (Search(query, query, hits),))


def answered(answer: str) -> Turn:
    return Turn(f"<think></think><answer>{answer}</answer>", "answer", answer=answer)


def trajectory(question: str, searches: Sequence[Turn], answer: str) -> Trajectory:
    asked = Question("q", question, (answer,))
    return Trajectory("q", asked, (*searches, answered(answer)), "answered")


TRAJECTORIES = st.builds(
    trajectory,
    TEXT,
    st.lists(st.builds(searched, TEXT, TEXT, st.lists(TEXT, max_size=3)), max_size=3),
    TEXT,
)


def slow_marks(example: Trajectory) -> tuple[str, list[bool]]:
    """Render piece by piece and mark every character: did the agent write it?"""
    text = rendered(DIALECT.prompt(Trajectory("q", example.question)))
    marks = [False] * len(text)
    for turn in example.turns:
        text += turn.text.strip()
        marks += [True] * len(turn.text.strip())
        if turn is not example.turns[-1]:
            observation = DIALECT.observe(turn, example)
            text += observation
            marks += [False] * len(observation)
    return text, marks


def random_examples(count: int, seed: int = 0, longest: int = 40) -> list[Encoded]:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        size = rng.randint(3, longest)
        written = [False] + [rng.random() < 0.5 for _ in range(size - 1)]
        made.append(Encoded([rng.randrange(10, 200) for _ in range(size)], written))
    return made


@settings(max_examples=60)
@given(example=TRAJECTORIES)
def test_exactly_what_the_agent_wrote_is_trained_on(example: Trajectory, tokenizer: Any) -> None:
    encoded = encode([example], tokenizer, DIALECT, 10_000)[0]
    assert encoded is not None
    text, marks = slow_marks(example)
    batch = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    assert encoded.ids == batch["input_ids"]
    assert encoded.written == [marks[start] for start, _ in batch["offset_mapping"]]
    own = [id for id, written in zip(encoded.ids, encoded.written, strict=True) if written]
    # Every turn begins and ends with a tag, which is one token, so nothing is cut in two.
    assert tokenizer.decode(own) == "".join(turn.text.strip() for turn in example.turns)


def test_a_tokenizer_that_merges_across_the_border_is_marked_by_where_a_token_begins() -> None:
    def merging(texts: list[str], **_: Any) -> dict[str, Any]:
        spans = [[(at, min(at + 3, len(text))) for at in range(0, len(text), 3)] for text in texts]
        return {
            "input_ids": [list(range(len(span))) for span in spans],
            "offset_mapping": spans,
        }

    example = trajectory("who?", [searched("a", "b", ["c"])], "d")
    encoded = encode([example], merging, DIALECT, 10_000)[0]
    text, marks = slow_marks(example)
    assert encoded is not None
    assert encoded.written == [marks[at] for at in range(0, len(text), 3)]


def test_an_observation_that_was_kept_is_read_and_not_trained_on(tokenizer: Any) -> None:
    turn = searched("a", "b", ["shown first"])
    kept = Turn(turn.text, turn.status, turn.searches, observation="\n\nsomething else\n\n")
    encoded = encode([trajectory("who?", [kept], "d")], tokenizer, DIALECT, 10_000)[0]
    assert encoded is not None
    rows = zip(encoded.ids, encoded.written, strict=True)
    unwritten = tokenizer.decode([id for id, written in rows if not written])
    assert "something else" in unwritten
    assert "shown first" not in tokenizer.decode(encoded.ids)


def test_what_is_too_long_is_left_out_in_place(tokenizer: Any) -> None:
    short = trajectory("who?", [], "d")
    long = trajectory("who?", [searched("a " * 50, "b", ["c " * 50])], "d")
    size = len(tokenizer(slow_marks(short)[0])["input_ids"])
    found = encode([short, long, short], tokenizer, DIALECT, size)
    assert [example is None for example in found] == [False, True, False]
    assert encode([short], tokenizer, DIALECT, size - 1) == [None]


@given(st.integers(0, 100), st.integers(1, 400), st.integers(0, 60))
def test_batches_hold_every_example_once_within_the_budget(
    seed: int, budget: int, count: int
) -> None:
    examples = random_examples(count, seed)
    made = [b for b in batches(examples, budget, random.Random(seed)) if b]
    assert sorted(map(id, examples)) == sorted(id(e) for batch in made for e in batch)
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(len(e.ids) for e in batch) <= budget
    again = [b for b in batches(examples, budget, random.Random(seed)) if b]
    assert made == again


def test_only_written_tokens_are_predicted_and_padding_changes_nothing(model: Any) -> None:
    examples = random_examples(5)
    with torch.no_grad():
        logits, targets = written_logits(model.eval(), *pad(examples))
        at = 0
        for example in examples:
            whole = model(input_ids=torch.tensor([example.ids])).logits[0]
            for place in range(1, len(example.ids)):
                if not example.written[place]:
                    continue
                assert int(targets[at]) == example.ids[place]
                torch.testing.assert_close(logits[at], whole[place - 1], atol=1e-4, rtol=1e-4)
                at += 1
    assert at == len(targets)


def test_right_throughout_is_the_share_without_any_mistake(model: Any) -> None:
    examples = random_examples(30, longest=4)
    with torch.no_grad():
        for index, example in enumerate(examples):
            if index % 3 == 0:  # make a third right by asking for what the model says
                for place in range(1, len(example.ids)):
                    logits = model(input_ids=torch.tensor([example.ids[:place]])).logits[0, -1]
                    example.ids[place] = int(logits.argmax())
        wanted = []
        for example in examples:
            best = model(input_ids=torch.tensor([example.ids])).logits[0].argmax(-1).tolist()
            places = range(1, len(example.ids))
            wanted.append(all(best[p - 1] == example.ids[p] for p in places if example.written[p]))
    found = right_throughout(model, examples, batch_tokens=24)
    assert found == pytest.approx(sum(wanted) / len(wanted))
    assert 1 / 3 <= found < 1


def test_a_restored_trainer_goes_on_as_if_nothing_had_happened(
    model_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    def trainer() -> Trainer:
        loaded = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        return Trainer(loaded, learning_rate=1e-3, steps=8, warmup=2)

    steps = [random_examples(4, seed) for seed in range(8)]
    whole, first, second = trainer(), trainer(), trainer()
    curve = [whole.update(batch).loss for batch in steps]
    for batch in steps[:3]:
        first.update(batch)
    torch.save(first.state(), tmp_path / "state.pt")
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [second.update(batch).loss for batch in steps[3:]] == curve[3:]
    assert second.step == whole.step == 8
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])
