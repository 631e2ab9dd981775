"""One reading of new tokens by a causal language model, over keys and values in a slab.

Two ways, one signature. The library's own reads every architecture. The lean one reads those that
are built like Llama with the same arithmetic and without the machinery around it, which takes a
third of a small model's time, and lets rows that begin alike share the keys and values of their
beginning (a stem): it is attended to once for all of them, as one matrix product, instead of
being copied into every row (Juravsky et al. 2024, Hydragen, arXiv 2402.05099).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F

from agentic_r.agent.slab import Slab

Span = tuple[slice, torch.Tensor | None]
"""Neighbouring rows and their stem [layers, 2, heads, tokens, dimension], or None for none."""

BUILT_LIKE_LLAMA = frozenset({"llama", "mistral", "qwen2", "qwen3", "granite"})


class Reading(NamedTuple):
    """New tokens: ids [rows, n] at positions [rows, n], written from `slab.length` on.

    `mask` [rows, 1, n, slab.length + n] is added to the scores; without one the rows read
    causally from an empty slab. `spans` cover all rows, where any has a stem; the slab and the
    mask are of what comes after it.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    slab: Slab
    mask: torch.Tensor | None
    spans: Sequence[Span] = ()


class Forward(Protocol):
    """Reads tokens into their slab and returns logits [rows, vocabulary] at the last of them."""

    stems: bool

    def __call__(self, reading: Reading) -> torch.Tensor:
        """Return the logits."""


class LibraryForward:
    """The forward pass that the model brings along, whatever it is; knows no stems."""

    stems = False

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, reading: Reading) -> torch.Tensor:
        """Return the logits, as `Forward` says."""
        output = self.model(
            input_ids=reading.ids,
            attention_mask=reading.mask,
            position_ids=reading.positions,
            past_key_values=reading.slab.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


class LeanForward:
    """The forward pass of a model that is built like Llama, read from its live modules.

    The architecture: Touvron et al. 2023 (arXiv 2302.13971), grouped queries of Ainslie et al.
    2023, normed queries and keys of Qwen3, multipliers of Granite. `forward_of` checks that it
    computes what the library computes.
    """

    stems = True

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        self.model = model
        self.embedding = float(getattr(config, "embedding_multiplier", 1.0))
        self.residual = float(getattr(config, "residual_multiplier", 1.0))
        self.logits = 1.0 / float(getattr(config, "logits_scaling", 1.0))

    def __call__(self, reading: Reading) -> torch.Tensor:
        """Return the logits, as `Forward` says."""
        base = self.model.model
        hidden = _times(base.embed_tokens(reading.ids), self.embedding)
        turn = _turn(*base.rotary_emb(hidden, reading.positions))
        for index, layer in enumerate(base.layers):
            seen = _seen(layer, index, hidden, turn, reading)
            hidden = hidden + _times(seen, self.residual)
            made = layer.mlp(_normed(layer.post_attention_layernorm, hidden))
            hidden = hidden + _times(made, self.residual)
        logits: torch.Tensor = self.model.lm_head(_normed(base.norm, hidden[:, -1]))
        return _times(logits, self.logits)


def forward_of(model: Any) -> Forward:
    """Return the lean way where it computes what the library does, else the library's.

    A sliding window makes no difference: what is longer than the window is never read at all.
    """
    library = LibraryForward(model)
    config = model.config.get_text_config()
    if config.model_type not in BUILT_LIKE_LLAMA:
        return library
    lean = LeanForward(model)
    return lean if _alike(library, lean, model) else library


def whole(model: Any) -> bool:
    """Say whether layers may be read past their own call: no shards, no offloading hooks them."""
    layers = getattr(getattr(model, "model", None), "layers", ())
    return not any(layer._forward_pre_hooks or hasattr(layer, "_hf_hook") for layer in layers)


def _seen(
    layer: Any,
    index: int,
    hidden: torch.Tensor,
    turn: tuple[torch.Tensor, torch.Tensor],
    reading: Reading,
) -> torch.Tensor:
    """Return what layer `index` attends to, and write its keys and values into the slab."""
    attention = layer.self_attn
    rows, count = hidden.shape[:2]
    shape = (rows, count, -1, attention.head_dim)
    normed = _normed(layer.input_layernorm, hidden)
    queries = attention.q_proj(normed).view(shape)
    keys = attention.k_proj(normed).view(shape)
    if "q_norm" in attention._modules:
        queries, keys = _normed(attention.q_norm, queries), _normed(attention.k_norm, keys)
    heads = queries.shape[2]
    turned = _rotated(torch.cat((queries, keys), dim=2), *turn).transpose(1, 2)
    start, end = reading.slab.length, reading.slab.length + count
    data = reading.slab.data[index]
    data[0, :, :, start:end] = turned[:, heads:]
    data[1, :, :, start:end] = attention.v_proj(normed).view(shape).transpose(1, 2)
    parts = []
    for at, stem in reading.spans or [(slice(None), None)]:
        seen = None if reading.mask is None else reading.mask[at]
        own = (turned[at, :heads], data[0, at, :, :end], data[1, at, :, :end], seen)
        if stem is None:
            parts.append(_attended(*own, attention.scaling))
        else:
            parts.append(_attended_after(stem[index], *own, attention.scaling))
    together = parts[0] if len(parts) == 1 else torch.cat(parts)
    added: torch.Tensor = attention.o_proj(together.transpose(1, 2).reshape(rows, count, -1))
    return added


def _attended(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Return softmax(scale q k + mask) v, [rows, heads, n, dimension]."""
    return F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        is_causal=mask is None and queries.shape[2] > 1,
        scale=scale,
        enable_gqa=queries.shape[1] != keys.shape[1],
    )


def _attended_after(
    stem: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Return the same where `stem` [2, key heads, tokens, dimension] comes before every row's keys.

    The queries of all rows meet the stem in one matrix product, and their own keys row by row;
    one softmax is taken over both.
    """
    rows, heads, count, dimension = queries.shape
    groups, before = keys.shape[1], stem.shape[2]
    queries = (queries * scale).reshape(rows, groups, -1, dimension)
    flat = queries.transpose(0, 1).reshape(groups, -1, dimension)
    if mask is None and count > 1:
        mask = queries.new_full((count, count), float("-inf")).triu(1)[None, None]
    own = queries @ keys.transpose(2, 3)
    if mask is not None:
        own = (own.view(rows, heads, count, -1) + mask).view(own.shape)
    shared = (flat @ stem[0].transpose(1, 2)).view(groups, rows, -1, before).transpose(0, 1)
    weights = torch.cat((shared, own), dim=-1).softmax(-1, dtype=torch.float32).to(queries.dtype)
    flat = weights[..., :before].transpose(0, 1).reshape(groups, -1, before)
    seen = (flat @ stem[1]).view(groups, rows, -1, dimension).transpose(0, 1)
    return (seen + weights[..., before:] @ values).reshape(rows, heads, count, dimension)


def _turn(cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay out [rows, n, dimension] for `_rotated`: for all heads, the first half's sine negated."""
    first, second = sin.chunk(2, dim=-1)
    return cos[:, :, None], torch.cat((-first, second), dim=-1)[:, :, None]


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn [rows, n, heads, dimension] by its position (Su et al. 2021, halves side by side)."""
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


def _normed(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)


def _times(hidden: torch.Tensor, factor: float) -> torch.Tensor:
    return hidden if factor == 1.0 else hidden * factor


@torch.inference_mode()
def _alike(library: Forward, lean: Forward, model: Any) -> bool:
    """Compare both on two short rows, one of them padded, and on a token after that."""
    like = next(model.parameters())
    config = model.config.get_text_config()
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    ids = torch.arange(12, device=like.device).view(2, 6) * 7 % config.vocab_size
    positions = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 2, 3]], device=like.device)
    real = torch.ones(2, 6, dtype=torch.bool)
    real[1, :2] = False
    mask = additive(real[:, None, None] & torch.ones(6, 6, dtype=torch.bool).tril(), like)
    found = []
    for forward in (library, lean):
        shape = (config.num_hidden_layers, 2, 2, groups, 6, size)
        slab = Slab(like.new_zeros(shape))
        first = forward(Reading(ids[:, :5], positions[:, :5], slab, mask[:, :, :5, :5]))
        slab.length = 5
        found.append((first, forward(Reading(ids[:, 5:], positions[:, 5:], slab, mask[:, :, 5:]))))
    exact = torch.finfo(like.dtype).eps
    return all(
        bool((a - b).abs().max() <= 16 * exact * a.abs().max()) for a, b in zip(*found, strict=True)
    )


def additive(allowed: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a mask to add to scores: 0 where `allowed`, the least number of the type elsewhere."""
    mask = torch.zeros(allowed.shape, dtype=like.dtype)
    return mask.masked_fill_(~allowed, torch.finfo(like.dtype).min).to(like.device)
