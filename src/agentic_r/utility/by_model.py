"""Judges that are a local model of another kind: a cross-encoder, or a language model's likelihood.

Both score one (query, passage) pair at a time, so that neither windows nor orders matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentic_r.errors import ConfigError, JudgeError, MissingExtraError
from agentic_r.io import digest_model
from agentic_r.protocols import JudgeRequest
from agentic_r.utility.subanswers import sure

if TYPE_CHECKING:
    import torch


class CrossEncoderJudge:
    """Any sequence classifier over (query, passage) pairs, as re-rankers are.

    `model` is a folder or hub name, as sentence-transformers or transformers saved it. With one
    output the score is 100 x sigmoid of it; with several, 100 x the probability of the last
    class. Inputs are cut at `max_length` tokens.
    """

    def __init__(self, model: str, *, max_length: int = 512, batch: int = 32) -> None:
        self._name = digest_model(model)
        self._model, self._tokenizer = _load(model, "AutoModelForSequenceClassification")
        limit = int(getattr(self._model.config, "max_position_embeddings", max_length) or 0)
        self._length = min(max_length, limit) if limit > 0 else max_length
        self._batch = batch

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Score each passage of the request against its query."""
        import torch

        scores: list[float | None] = []
        for start in range(0, len(request.passages), self._batch):
            texts = list(request.passages[start : start + self._batch])
            inputs = self._tokenizer(
                [request.query] * len(texts),
                texts,
                truncation="only_second",
                max_length=self._length,
                padding=True,
                return_tensors="pt",
            ).to(self._model.device)
            with torch.inference_mode():
                logits = self._model(**inputs).logits.float()
            one = logits.shape[1] == 1
            shares = logits.sigmoid()[:, 0] if one else logits.softmax(1)[:, -1]
            scores += [100.0 * float(share) for share in shares]
        return scores

    async def asked(self, request: JudgeRequest) -> Any:
        """Return all that the scores depend on besides the passages."""
        return ["cross-encoder", self._name, self._length, request.query]


class LikelihoodJudge:
    """How much more likely the answer becomes for a causal language model shown the passage.

    With L the mean log-probability per token of the answer after the query, the gain is L with
    the passage before the query less L without it, in nats per token, and the score is
    100 / (1 + exp(-gain)): 50 where the passage changes nothing, 60 where each token becomes
    half as likely again, rising with the gain. The answer is the sub-answer where it is known,
    to the search's query; else the answer of the question that gains most, to the question.
    The passage is cut at `max_length` tokens.
    """

    def __init__(self, model: str, *, max_length: int = 256, batch: int = 16) -> None:
        self._name = digest_model(model)
        self._model, self._tokenizer = _load(model, "AutoModelForCausalLM")
        self._length = max_length
        self._batch = batch

    async def relevance(self, request: JudgeRequest) -> list[float | None]:
        """Score each passage of the request. Raises JudgeError where no answer is known."""
        pairs = _wanted(request)
        if not pairs:
            raise JudgeError("the likelihood judge needs a sub-answer or an answer, got neither")
        best = [-math.inf] * len(request.passages)
        for asked, answer in pairs:
            alone = self._mean_logprobs([self._prompt("", asked)], answer)[0]
            prompts = [self._prompt(passage, asked) for passage in request.passages]
            shown = self._mean_logprobs(prompts, answer)
            best = [max(b, value - alone) for b, value in zip(best, shown, strict=True)]
        return [likelihood_score(gain) for gain in best]

    async def asked(self, request: JudgeRequest) -> Any:
        """Return all that the scores depend on besides the passages."""
        return ["likelihood", self._name, self._length, _wanted(request)]

    def _prompt(self, passage: str, asked: str) -> list[int]:
        ids = self._encode(f"{passage.strip()}\n\n" if passage else "")[: self._length]
        return [*ids, *self._encode(f"Question: {asked}\nAnswer:")]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _mean_logprobs(self, prompts: Sequence[list[int]], answer: str) -> list[float]:
        """The mean log-probability per token of `answer` after each prompt."""
        wanted = self._encode(f" {answer}")
        values: list[float] = []
        for start in range(0, len(prompts), self._batch):
            rows = [[*prompt, *wanted] for prompt in prompts[start : start + self._batch]]
            values += self._forward(rows, len(wanted))
        return values

    def _forward(self, rows: list[list[int]], count: int) -> list[float]:
        import torch

        longest = max(len(row) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        with torch.inference_mode():
            device = self._model.device
            logits: torch.Tensor = self._model(
                input_ids=ids.to(device), attention_mask=mask.to(device)
            ).logits
        values = []
        for number, row in enumerate(rows):
            end = len(row)
            said = logits[number, end - count - 1 : end - 1].float().cpu().log_softmax(-1)
            chosen = said.gather(1, ids[number, end - count : end].unsqueeze(1))
            values.append(float(chosen.mean()))
        return values


def likelihood_score(gain: float) -> float:
    """Map a gain in nats per token to 0-100: strictly rising until it meets an end."""
    return 100.0 / (1.0 + math.exp(-max(-700.0, min(700.0, gain))))


def _wanted(request: JudgeRequest) -> list[tuple[str, str]]:
    """What is asked and the answers to it that count."""
    subanswer = sure(request.subanswer)
    if subanswer is not None:
        return [(request.query, subanswer)]
    return [(request.question, answer) for answer in request.answers if answer.strip()]


def _load(model: str, kind: str) -> tuple[Any, Any]:
    """Load a model and its tokenizer. Raises ConfigError where there is none of this kind."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "local") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        loaded, told = getattr(transformers, kind).from_pretrained(model, output_loading_info=True)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"utility.judge_name: cannot load {model!r} as {kind}: {first}; "
            "give the folder of such a model"
        ) from error
    if told["missing_keys"]:
        raise ConfigError(
            f"utility.judge_name: {model!r} has no {sorted(told['missing_keys'])[0]}, so it is no "
            f"whole {kind} and its scores would be drawn at random; give a model that was trained "
            "to score, such as a re-ranker"
        )
    return loaded.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer
