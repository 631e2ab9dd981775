"""What verl is given of a row: exact ids, an exact mask, a reward from what was drawn alone."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from agentic_r.errors import ConfigError, LLMError
from agentic_r.settings import AgentConfig
from agentic_r.testing import TableRetriever
from agentic_r.verl.carried import Carried, Carrying, carried, question_of
from agentic_r.verl.reward import KEY, compute_score
from tests.verl.scripted import POISON, QUESTION, Engine, tokenizer

TOKENIZER = tokenizer()
SEARCH = "<think> Now the painter </think>\n<search> Halsen birthplace </search>"
RIGHT = "<think> found </think>\n<answer> Arden </answer>"
WRONG = "<think> found </think>\n<answer> Telmi </answer>"


def settings(**changes: Any) -> Carrying:
    found: dict[str, Any] = {
        "agent": AgentConfig(turns=3, max_tokens=40),
        "template": "Question: {question}\n",
        "k": 1,
        "form": "question+query",
        "retriever": "",
        "prompt_length": 64,
        "response_length": 300,
    }
    return Carrying(**(found | changes))


def carry(*script: str, **changes: Any) -> tuple[Carried, Engine]:
    engine = Engine(*script, tokenizer=TOKENIZER)
    retriever = TableRetriever({}, [POISON])
    sampling = {"temperature": 1.0, "top_p": 0.9}
    done = carried(QUESTION, settings(**changes), engine, TOKENIZER, retriever, sampling)
    return asyncio.run(done), engine


def test_ids_mask_and_logprobs_are_those_that_were_drawn() -> None:
    done, engine = carry(SEARCH, RIGHT)
    assert done.prompt == engine.asked[0][0]
    own = [token for token, mask in zip(done.response, done.mask, strict=True) if mask]
    assert own == [token for drawn in engine.drawn for token in drawn]
    assert [n for n, mask in zip(done.logprobs, done.mask, strict=True) if mask] == [
        -float(n + 1) for drawn in engine.drawn for n in range(len(drawn))
    ]
    assert [n for n, mask in zip(done.logprobs, done.mask, strict=True) if not mask] == [0.0] * (
        len(done.mask) - len(own)
    )
    # What stood before the second turn is prompt and response so far, to the token.
    second = engine.asked[1][0]
    assert (done.prompt + done.response)[: len(second)] == second
    shown = [token for token, mask in zip(done.response, done.mask, strict=True) if not mask]
    assert "<information>" in TOKENIZER.decode(shown)
    assert (done.reward, done.calls, done.figures["searches"]) == (1.0, 2, 1.0)


def test_verl_is_asked_to_stop_where_the_protocol_does() -> None:
    _, engine = carry(RIGHT)
    _, asked = engine.asked[0]
    assert asked["stop"] == ["</search>", "</answer>"]
    assert asked["include_stop_str_in_output"] is True
    assert (asked["temperature"], asked["top_p"], asked["max_tokens"]) == (1.0, 0.9, 40)


@pytest.mark.parametrize("last", [WRONG, SEARCH, "<think> no answer </think>"])
def test_an_answer_in_a_passage_earns_nothing(last: str) -> None:
    done, _ = carry(SEARCH, last)
    assert "<answer> Arden </answer>" not in TOKENIZER.decode(
        [token for token, mask in zip(done.response, done.mask, strict=True) if mask]
    )
    assert done.reward == 0.0


def test_a_response_never_outgrows_its_room() -> None:
    done, engine = carry(SEARCH, RIGHT, response_length=50)
    assert len(done.response) <= 50
    assert engine.asked[0][1]["max_tokens"] == 40
    assert done.reward == 0.0
    assert done.figures["failed"] == 1.0 or engine.asked[1][1]["max_tokens"] < 40


def test_where_nothing_is_drawn_one_token_counts_for_nothing() -> None:
    done, _ = carry("")
    assert (len(done.response), done.mask, done.logprobs) == (1, [0], [0.0])
    assert (done.reward, done.figures["failed"]) == (0.0, 1.0)


def test_a_prompt_that_is_too_long_is_refused() -> None:
    with pytest.raises(LLMError, match=r"tokens, expected at most 3; raise .*prompt_length"):
        carry(RIGHT, prompt_length=3)


def test_a_row_is_read_as_it_was_written() -> None:
    row = {
        "data_source": "nq",
        "reward_model": {"style": "rule", "ground_truth": {"target": ["Arden"]}},
        "extra_info": {
            "id": "q1",
            "question": QUESTION.text,
            "metadata": msgspec.json.encode(QUESTION.metadata).decode(),
        },
    }
    assert question_of(row) == QUESTION


def test_the_reward_that_verl_asks_for_is_the_loops_and_the_text_is_never_read() -> None:
    truth = {"target": ["Arden"]}
    text = "<information> <answer> Arden </answer> </information>"
    assert compute_score("nq", text, truth, {KEY: 0.0}) == 0.0
    assert compute_score("nq", "", truth, {KEY: 0.25}) == 0.25
    with pytest.raises(ConfigError, match="has no agentic_r_reward"):
        compute_score("nq", text, truth, {})
