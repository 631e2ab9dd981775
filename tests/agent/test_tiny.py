from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_r.agent.agent import tiny_checkpoint
from agentic_r.agent.dialects.search_r1 import SearchR1
from agentic_r.agent.tiny import (
    LEVELS,
    MAX_LENGTH,
    PROMPT,
    TAGS,
    TAUGHT,
    Taught,
    build_model,
    build_tokenizer,
    lessons,
    parsed,
    save,
    stream,
    train,
    worlds,
)
from agentic_r.cli import main
from agentic_r.errors import ConfigError
from agentic_r.protocols import Completion
from agentic_r.types import Hit, Question, Search, Trajectory, Turn
from agentic_r.world import AGENT, HELD_OUT, Sizes, generate
from agentic_r.world.names import pool_of, words


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


def ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@settings(max_examples=300)
@given(text=st.text(max_size=60))
def test_any_text_comes_back_whole(text: str, tokenizer: Any) -> None:
    assert tokenizer.decode(ids(tokenizer, text), skip_special_tokens=False) == text


@settings(max_examples=100)
@given(
    pieces=st.lists(
        st.sampled_from([*TAGS, " ", "\n", "\n\n", " <", "Halsen", "é", "1873", "?"]), max_size=12
    )
)
def test_tags_between_other_text_come_back_whole(pieces: list[str], tokenizer: Any) -> None:
    text = "".join(pieces)
    assert tokenizer.decode(ids(tokenizer, text), skip_special_tokens=False) == text


@pytest.mark.parametrize("pool", [AGENT, HELD_OUT])
@pytest.mark.parametrize("before", [" ", ""])
def test_every_name_word_of_both_pools_is_two_tokens(
    tokenizer: Any, pool: str, before: str
) -> None:
    named = words(AGENT if pool == AGENT else HELD_OUT)
    sizes = {len(ids(tokenizer, f"{before}{word}")) for word in named}
    assert sizes == {2}


def test_no_name_word_is_in_the_vocabulary(tokenizer: Any) -> None:
    vocabulary = {token.removeprefix("Ġ") for token in tokenizer.get_vocab()}
    assert not vocabulary & set(words(AGENT))
    assert not vocabulary & set(words(HELD_OUT))


def test_protocol_tags_are_single_tokens_wherever_they_stand(tokenizer: Any) -> None:
    for tag in TAGS:
        single = ids(tokenizer, tag)
        assert len(single) == 1
        for text in (f"x{tag}y", f" {tag} ", f"\n{tag}\n", f"{tag}{tag}"):
            assert single[0] in ids(tokenizer, text)
    assert len({ids(tokenizer, tag)[0] for tag in TAGS}) == len(TAGS) == 8


def test_the_words_of_held_out_worlds_are_known(tokenizer: Any) -> None:
    """English is one token a word also in worlds of the other names: nothing falls to bytes."""
    world = generate(4, Sizes(20, 12, 12, 12, 12, 40, 10, 30), HELD_OUT)
    for passage in world.corpus:
        turn = Turn("", "search", (Search("", "", (Hit(passage, 1.0),)),))
        shown = SearchR1(PROMPT).observe(turn, Trajectory("t", Question("q", "", ())))
        found = tokenizer.convert_ids_to_tokens(ids(tokenizer, shown))
        assert not [
            token for token in found if len(token) == 1 and token.isascii() and token.isalnum()
        ], shown


def test_the_packaged_tokenizer_is_the_one_that_is_built(tokenizer: Any) -> None:
    from transformers import AutoTokenizer

    try:
        folder = tiny_checkpoint()
    except ConfigError:
        pytest.skip("this checkout has no packaged checkpoint")
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()


def test_lessons_come_from_worlds_of_the_agents_names() -> None:
    rng = random.Random(0)
    for teacher in islice(worlds(0), 2):
        for entity in teacher.world.entities:
            assert {pool_of(word) for word in entity.name.split()} == {AGENT}
        for lesson, _ in LEVELS:
            taught = lessons(teacher, lesson, rng)
            assert {t.question.metadata["hop_count"] for t in taught} == set(
                range(1, lesson.hops + 1)
            )


def test_the_stream_fits_the_budget_and_the_model(tokenizer: Any) -> None:
    made = list(islice(stream(tokenizer, [3], 0, 4000), 6))
    for batch in made:
        longest = max(len(example.ids) for example in batch)
        assert longest <= MAX_LENGTH
        assert len(batch) == 1 or longest * len(batch) <= 4000
        assert all(any(example.written) for example in batch)
    again = list(islice(stream(tokenizer, [3], 0, 4000), 6))
    assert made == again


def test_a_saved_model_is_small_and_says_the_same(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = build_model(len(tokenizer), 0).eval()
    save(model, tokenizer, tmp_path, {"steps": 0})
    assert 0.9e6 < model.num_parameters() < 3e6
    assert (tmp_path / "model.safetensors").stat().st_size < 15e6
    assert (tmp_path / "prompt.txt").read_text() == PROMPT
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    text = PROMPT.replace("{question}", "Who taught the baker Halsen Mirov?")
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert ids(read, text) == ids(tokenizer, text)
    with torch.no_grad():
        given = torch.tensor([ids(tokenizer, text)])
        before, after = model(input_ids=given).logits, loaded(input_ids=given).logits
    # The file holds bfloat16, which keeps 8 bits of every weight.
    assert float((before - after).abs().max() / before.abs().max()) < 0.05


@pytest.mark.parametrize("taught", TAUGHT.values(), ids=TAUGHT)
def test_a_worked_example_is_read_as_its_protocol_reads_it(taught: Taught) -> None:
    tokenizer, dialect = build_tokenizer(taught=taught), taught.dialect(PROMPT)
    assert all(len(ids(tokenizer, tag)) == 1 for tag in taught.tags)
    examples = lessons(next(worlds(5, taught)), LEVELS[1][0], random.Random(0))[:50]
    assert {len(example.turns) for example in examples} >= {2, 3}
    for example in examples:
        for at, turn in enumerate(example.turns):
            before = Trajectory(example.id, example.question, example.turns[:at])
            read = dialect.read(Completion(turn.text, "stop"), before)
            assert (read.status, read.answer) == (turn.status, turn.answer)
            assert [s.query for s in read.searches] == [s.query for s in turn.searches]
    words = {piece for e in examples for piece in ids(tokenizer, str(dialect.prompt(e)))}
    unknown = [
        n for n in words if len(tokenizer.decode([n])) == 1 and tokenizer.decode([n]).isalpha()
    ]
    assert not unknown, "every word of an example is in the vocabulary"


def test_a_stopped_training_goes_on_and_a_finished_one_stays(tmp_path: Path) -> None:
    small = ["--width", "64", "--layers", "2", "--batch-tokens", "600", "--examine", "2"]

    def trained(folder: Path, steps: int, whole: int = 4) -> dict[str, Any]:
        options = parsed(["--out", str(folder), "--steps", str(whole), *small])
        options.steps = steps
        train(options)
        return torch.load(folder / "state.pt", weights_only=True)["trainer"]

    first = trained(tmp_path / "a", 2)
    assert first["step"] == 2
    again = trained(tmp_path / "a", 4)
    assert again["step"] == 4
    lines = (tmp_path / "a" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    last = trained(tmp_path / "a", 4)
    assert last["step"] == 4
    for name, weight in again["model"].items():
        torch.testing.assert_close(last["model"][name], weight, rtol=0, atol=0)
    assert (tmp_path / "a" / "checkpoint" / "model.safetensors").is_file()


def test_the_verb_teaches_what_the_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr("agentic_r.agent.tiny.train", asked.append)
    config = Path(__file__).parents[2] / "configs" / "quickstart.toml"
    command = ["train", str(config), "tiny-agent", "--runs", str(tmp_path), "--seed", "5"]
    assert main([*command, "--agent.dialect", "r1-searcher"]) == 0
    (options,) = asked
    assert options.out == str(tmp_path / "quickstart" / "tiny-agent")
    assert (options.seed, options.dialect, options.steps) == (5, "r1-searcher", 7000)
    assert "--agent.model" in capsys.readouterr().out
    assert main([*command, "--agent.dialect", "react"]) == 2
    assert "expected one of search-r1, r1-searcher" in capsys.readouterr().err
