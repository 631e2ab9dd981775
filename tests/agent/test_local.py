"""LocalLLM against transformers' own generate, in batches, with stops, seeds and known prefixes."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest
import torch

from agentic_r.agent.local import LocalLLM
from agentic_r.errors import ConfigError, LLMError
from agentic_r.io import digest_model
from agentic_r.protocols import Completion, Sampling

WORDS = ["the", "of", "near", "bao", "cey", "dio", "fau", "goa", "kei", "lou", "mna"]


def texts(count: int, longest: int = 60, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, longest))) for _ in range(count)]


@pytest.fixture(scope="module")
def llm(model_folder: Path) -> LocalLLM:
    return LocalLLM(model_folder, batch=8, device="cpu")


def reference(llm: LocalLLM, prompt: str, count: int) -> list[int]:
    ids = torch.tensor([llm.tokenizer(prompt)["input_ids"]])
    out = llm.model.generate(ids, max_new_tokens=count, do_sample=False)
    return [int(token) for token in out[0, ids.shape[1] :]]


def test_greedy_tokens_equal_transformers_generate_row_by_row(llm: LocalLLM) -> None:
    prompts = texts(9)
    llm.forget()
    for prompt, done in zip(prompts, llm.generate(prompts, Sampling(max_tokens=12)), strict=True):
        assert list(done.tokens or ()) == reference(llm, prompt, 12)


def test_it_says_which_model_it_is(llm: LocalLLM, model_folder: Path) -> None:
    assert asyncio.run(llm.named()) == digest_model(str(model_folder)) != llm.name


def test_known_prefixes_change_no_token(llm: LocalLLM) -> None:
    stem = texts(1, seed=5)[0] * 4
    prompts = [stem + end for end in texts(12, 20, seed=6)] + [stem * 2, stem]
    llm.forget()
    first = llm.generate(prompts, Sampling(max_tokens=20))
    again = llm.generate(prompts, Sampling(max_tokens=20))
    longer = [a + b.text + " of the" for a, b in zip(prompts, first, strict=True)]
    with_store = llm.generate(longer, Sampling(max_tokens=20))
    llm.forget()
    without = llm.generate(longer, Sampling(max_tokens=20))
    assert [c.tokens for c in first] == [c.tokens for c in again]
    assert [c.tokens for c in with_store] == [c.tokens for c in without]
    assert list(first[0].tokens or ()) == reference(llm, prompts[0], 20)


def test_a_full_store_forgets_and_stays_right(model_folder: Path, llm: LocalLLM) -> None:
    small = LocalLLM(model_folder, batch=4, device="cpu", prefix_bytes=60_000)
    none = LocalLLM(model_folder, batch=4, device="cpu", prefix_bytes=0)
    prompts = [texts(1, seed=9)[0] * 3 + text for text in texts(10)]
    sampling = Sampling(max_tokens=8)
    expected = [c.tokens for c in llm.generate(prompts, sampling)]
    assert [c.tokens for c in small.generate(prompts * 2, sampling)] == expected * 2
    assert [c.tokens for c in none.generate(prompts, sampling)] == expected


def test_text_keeps_the_first_stop_string_and_nothing_after_it(llm: LocalLLM) -> None:
    prompts = texts(8)
    free = llm.generate(prompts, Sampling(max_tokens=30))
    for prompt, done in zip(prompts, free, strict=True):
        stop = done.text[7:9]
        [cut] = llm.generate([prompt], Sampling(max_tokens=30, stop=("never>", stop)))
        assert cut.finish == "stop"
        assert cut.text == done.text[: done.text.find(stop) + len(stop)]
        assert cut.tokens == (done.tokens or ())[: len(cut.tokens or ())]


def test_ends_are_named(llm: LocalLLM) -> None:
    [done] = llm.generate(["the of"], Sampling(max_tokens=5))
    assert done.finish == "length"
    assert len(done.tokens or ()) == 5
    before = llm._ends
    llm._ends = frozenset({(done.tokens or ())[2]})
    try:
        [ended] = llm.generate(["the of"], Sampling(max_tokens=5))
    finally:
        llm._ends = before
    first = (done.tokens or ()).index((done.tokens or ())[2])
    assert (ended.finish, len(ended.tokens or ())) == ("eos", first + 1)
    assert done.text.startswith(ended.text)


def test_logprobs_are_those_of_the_model(llm: LocalLLM) -> None:
    prompt = texts(1)[0]
    [done] = llm.generate([prompt], Sampling(max_tokens=6))
    ids = llm.tokenizer(prompt)["input_ids"]
    full = torch.tensor([ids + list(done.tokens or ())])
    with torch.no_grad():
        scores = llm.model(full).logits[0].log_softmax(-1)
    expected = [float(scores[len(ids) - 1 + n, token]) for n, token in enumerate(done.tokens or ())]
    assert done.logprobs == pytest.approx(expected, abs=1e-4)


def test_sampling_depends_on_the_seed_and_not_on_the_batch(llm: LocalLLM) -> None:
    prompts = texts(6)
    sampling = Sampling(max_tokens=12, temperature=1.0, top_p=0.9, seed=11)
    together = llm.generate(prompts, sampling)
    alone = [llm.generate([prompt], sampling)[0] for prompt in prompts]
    other = llm.generate(prompts, Sampling(max_tokens=12, temperature=1.0, top_p=0.9, seed=12))
    assert [c.tokens for c in together] == [c.tokens for c in alone]
    assert [c.tokens for c in together] != [c.tokens for c in other]


def test_sampling_draws_each_token_as_often_as_it_should(llm: LocalLLM) -> None:
    prompt = "the of near"
    sampling = Sampling(max_tokens=1, temperature=0.7)
    rows = [
        llm.generate([prompt], Sampling(max_tokens=1, temperature=0.7, seed=s))[0] for s in range(8)
    ]
    assert len({c.tokens for c in rows}) > 1
    many = llm.generate([prompt] * 600, sampling)
    with torch.no_grad():
        logits = llm.model(torch.tensor([llm.tokenizer(prompt)["input_ids"]])).logits[0, -1]
    probabilities = (logits / 0.7).softmax(-1)
    top = int(probabilities.argmax())
    share = sum((c.tokens or ())[0] == top for c in many) / len(many)
    assert share == pytest.approx(float(probabilities[top]), abs=0.08)


def test_requests_of_one_moment_are_one_batch(
    llm: LocalLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    work = llm._gather._work

    def counted(items: list[tuple[str, Sampling]]) -> object:
        sizes.append(len(items))
        return work(items)

    monkeypatch.setattr(llm._gather, "_work", counted)

    async def twice(prompt: str) -> Completion:
        first = await llm.complete(prompt, Sampling(max_tokens=2))
        return await llm.complete(prompt + first.text, Sampling(max_tokens=2))

    async def main() -> list[Completion]:
        return list(await asyncio.gather(*(twice(prompt) for prompt in texts(12))))

    assert len(asyncio.run(main())) == 12
    assert sizes == [8, 8, 8]
    assert len(asyncio.run(main())) == 12  # another event loop


def test_a_prompt_too_long_is_an_error_of_its_own_request(llm: LocalLLM) -> None:
    async def main() -> list[object]:
        prompts = ["the of", "the " * 3000]
        jobs = (llm.complete(prompt, Sampling(max_tokens=2)) for prompt in prompts)
        return list(await asyncio.gather(*jobs, return_exceptions=True))

    good, bad = asyncio.run(main())
    assert isinstance(good, Completion)
    assert isinstance(bad, LLMError)
    assert "tokens, expected 1 to 1023" in str(bad)


def test_what_cannot_be_loaded_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded as a causal language model"):
        LocalLLM(tmp_path / "nothing")


def test_bf16_halves_the_memory_and_keeps_to_its_seed(model_folder: Path, llm: LocalLLM) -> None:
    half = LocalLLM(model_folder, batch=8, device="cpu", precision="bf16")
    assert {weight.dtype for weight in half.model.parameters()} == {torch.bfloat16}
    prompts = texts(6)
    done = half.generate(prompts, Sampling(max_tokens=8))
    assert [c.tokens for c in half.generate(prompts, Sampling(max_tokens=8))] == [
        c.tokens for c in done
    ]
    wide = llm.generate(prompts, Sampling(max_tokens=1))
    for prompt, short, exact in zip(prompts, done, wide, strict=True):
        ids = torch.tensor([half.tokenizer(prompt)["input_ids"]])
        with torch.no_grad():
            scores = half.model(ids).logits[0, -1].float().log_softmax(-1)
        token, told = (short.tokens or ())[0], (short.logprobs or ())[0]
        assert float(scores[token]) >= float(scores.max()) - 0.1  # up to the batch's last bits
        assert told == pytest.approx(float(scores[token]), abs=0.1)
        if short.tokens and exact.tokens and short.tokens[0] == exact.tokens[0]:
            assert told == pytest.approx((exact.logprobs or ())[0], abs=0.2)
    drawn = Sampling(max_tokens=12, temperature=1.0, seed=3)
    assert half.generate(prompts, drawn)[0].tokens == half.generate(prompts, drawn)[0].tokens
    known = [prompt + c.text + " of the" for prompt, c in zip(prompts, done, strict=True)]
    assert all(len(c.tokens or ()) == 4 for c in half.generate(known, Sampling(max_tokens=4)))


@pytest.mark.parametrize("fault", ["missing", "another shape"])
def test_a_checkpoint_without_all_its_weights_is_refused(
    model_folder: Path, tmp_path: Path, fault: str
) -> None:
    from safetensors.torch import load_file, save_file

    torn = tmp_path / "torn"
    shutil.copytree(model_folder, torn)
    weights = load_file(torn / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    if fault == "missing":
        del weights[name]
    else:
        weights[name] = weights[name][:-1].clone()
    save_file(weights, torn / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"agent\.model: .*torn ") as refused:
        LocalLLM(torn, device="cpu")
    assert "\n" not in str(refused.value)
    assert name in str(refused.value)
