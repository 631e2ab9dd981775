from __future__ import annotations

import asyncio
import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from agentic_r.errors import ConfigError, JudgeError
from agentic_r.protocols import JudgeRequest
from agentic_r.utility.by_model import CrossEncoderJudge, LikelihoodJudge, likelihood_score

TEXT = "[PAD] [CLS] [SEP] [UNK] who runs alta ida brun is the mayor of oslo Question : Answer ?"
WORDS = TEXT.split()


def request(*passages: str, subanswer: str | None = "ida brun") -> JudgeRequest:
    return JudgeRequest("who runs alta", ("oslo", "ida"), "mayor of alta", subanswer, "", passages)


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")


def classifier(folder: Path, labels: int) -> str:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
        num_labels=labels,
    )
    model = BertForSequenceClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("labels", [1, 2])
def test_a_cross_encoder_scores_each_pair_alone(tmp_path: Path, labels: int) -> None:
    judge = CrossEncoderJudge(classifier(tmp_path / "model", labels), batch=2)
    texts = ("ida brun is the mayor", "oslo", "mayor of alta " * 40)
    scores = asyncio.run(judge.relevance(request(*texts)))
    assert all(score is not None and 0.0 < score < 100.0 for score in scores)
    assert len({round(score or 0.0, 4) for score in scores}) == 3
    backwards = asyncio.run(judge.relevance(request(*texts[::-1])))
    assert backwards[::-1] == pytest.approx(scores, abs=1e-3)
    first = asyncio.run(judge.asked(request("a")))
    classifier(tmp_path / "model", 3 - labels)
    assert asyncio.run(CrossEncoderJudge(str(tmp_path / "model")).asked(request("a"))) != first


def language_model(folder: Path) -> str:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(WORDS), n_positions=128, n_embd=16, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def literal(folder: str, passage: str, asked: str, answer: str) -> float:
    """The mean log-probability of the answer's tokens, one forward pass for each token."""
    model, words = GPT2LMHeadModel.from_pretrained(folder).eval(), tokenizer()
    ids = [*words(passage, add_special_tokens=False)["input_ids"]] if passage else []
    ids += words(f"Question: {asked}\nAnswer:", add_special_tokens=False)["input_ids"]
    total = 0.0
    wanted = words(answer, add_special_tokens=False)["input_ids"]
    for token in wanted:
        with torch.no_grad():
            said = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        total += float(said[token])
        ids.append(token)
    return total / len(wanted)


def test_likelihood_is_the_textbook_gain_per_token(tmp_path: Path) -> None:
    folder = language_model(tmp_path / "model")
    judge = LikelihoodJudge(folder, batch=2)
    texts = ("ida brun is the mayor of alta", "oslo", "the mayor of oslo is ida brun ?")
    scores = asyncio.run(judge.relevance(request(*texts)))
    alone = literal(folder, "", "mayor of alta", "ida brun")
    for text, score in zip(texts, scores, strict=True):
        gain = literal(folder, text, "mayor of alta", "ida brun") - alone
        assert score == pytest.approx(100 / (1 + math.exp(-gain)), abs=1e-2)
    unsure = asyncio.run(judge.relevance(request(*texts, subanswer="Not Sure")))
    for text, score in zip(texts, unsure, strict=True):
        gains = [
            literal(folder, text, "who runs alta", answer)
            - literal(folder, "", "who runs alta", answer)
            for answer in ("oslo", "ida")
        ]
        assert score == pytest.approx(100 / (1 + math.exp(-max(gains))), abs=1e-2)
    with pytest.raises(JudgeError, match="needs a sub-answer or an answer"):
        asyncio.run(judge.relevance(JudgeRequest("q", (), "q", None, "", ("a",))))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2))
def test_the_map_is_monotone_and_stays_on_the_scale(gains: list[float]) -> None:
    scores = [likelihood_score(gain) for gain in sorted(gains)]
    assert all(0.0 <= score <= 100.0 for score in scores)
    assert all(a <= b for a, b in itertools.pairwise(scores))
    assert likelihood_score(0.0) == 50.0
    assert likelihood_score(math.log(1.5)) == pytest.approx(60.0)


def test_a_folder_without_such_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"utility\.judge_name: cannot load .* give the folder"):
        CrossEncoderJudge(str(tmp_path))
    with pytest.raises(ConfigError, match=r"utility\.judge_name: cannot load"):
        LikelihoodJudge(str(tmp_path / "none"))


def test_an_encoder_without_a_head_is_refused(tmp_path: Path) -> None:
    """Its scores would be drawn anew in every process."""
    classifier(tmp_path, 1)
    BertModel.from_pretrained(tmp_path).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"has no classifier.* give a model that was trained to"):
        CrossEncoderJudge(str(tmp_path))
