"""A random tiny Qwen2 with a byte-level tokenizer, made once for the tests of this folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentic_r.agent.vllm import VllmLLM

TAGS = ("<think>", "</think>", "<search>", "</search>", "<answer>", "</answer>")

CHAT = """{%- for tool in tools or [] %}tool {{ tool.function.name }}
{% endfor %}{%- for message in messages %}<|pad|>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls or [] %}
{{ call.function.arguments | tojson }}{% endfor %}<|end|>
{% endfor %}{%- if add_generation_prompt %}<|pad|>assistant
{% endif %}"""


def make_model(
    folder: Path, *, vocabulary: int = 300, width: int = 32, layers: int = 2, tied: bool = True
) -> Path:
    """Write a random Qwen2 whose protocol tags are single tokens."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TAGS),
        special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = [f"the {a}{b} of {b}{a} was near {a}o{b}" for a in "bcdfgklmnprst" for b in "aeiouy"]
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>"
    )
    fast.chat_template = CHAT
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    # Louder embeddings make the tags likelier, so that the babble holds whole searches.
    with torch.no_grad():
        for tag, factor in (("<search>", 3.0), ("</search>", 2.0)):
            model.get_input_embeddings().weight[fast.convert_tokens_to_ids(tag)] *= factor
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def engine(folder: Path) -> VllmLLM:
    """Open a model with vLLM in this process, small enough for a shared machine without a GPU."""
    from agentic_r.agent.vllm import VllmLLM

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    return VllmLLM(folder, precision="fp32", enforce_eager=True, max_model_len=512)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))
