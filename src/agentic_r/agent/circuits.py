"""A start for tiny language models: attention that copies, set by hand before training.

A model of a million parameters needs millions of tokens before it discovers that text can be
copied from its context. Query and key biases make the discovery unnecessary: under
rotary embeddings a constant query and a constant key score highest at a fixed distance, so two
heads of the first layer look one and two tokens back, and heads of the second layer find the
places whose previous token equals the current one (induction heads, Olsson et al. 2022).
Everything stays trainable.
"""

from __future__ import annotations

import math
from typing import Any

import torch

_LOOK_BACK = 90.0  # score at the right distance; its neighbours get a few points less
_MATCH = 3.5
_COPY = 4.0
_QUIET = 0.1  # scale of what every other part writes at first, so that the circuits are heard


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    matrix = torch.randn(columns, rows, generator=generator)
    basis: torch.Tensor = torch.linalg.qr(matrix).Q
    return basis.T.contiguous()


def _look_back_bias(distance: int, dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (query, key) vectors whose rotary score peaks `distance` tokens back."""
    half = dim // 2
    angle = distance * theta ** (-torch.arange(half) / half)
    size = math.sqrt(_LOOK_BACK * math.sqrt(dim) / half)
    key = torch.cat([torch.ones(half), torch.zeros(half)]) * size
    # The key lies `distance` behind, so the query is turned back by as much.
    query = torch.cat([torch.cos(angle), -torch.sin(angle)]) * size
    return query, key


@torch.no_grad()
def induce(model: Any, seed: int = 0) -> None:
    """Set look-back heads in layer 0 and induction heads in layer 1 of a model, in place.

    Needs an architecture of the Llama family with two layers, as many key-value heads as heads,
    and biases on queries and keys (Granite, Qwen2). Raises ValueError otherwise.
    """
    config = model.config
    attention = model.model.layers[0].self_attn
    if config.num_attention_heads != config.num_key_value_heads or attention.q_proj.bias is None:
        raise ValueError(
            f"got a {config.model_type} model with grouped heads or without attention biases, "
            "expected biases and as many key-value heads as heads"
        )
    generator = torch.Generator().manual_seed(seed)
    hidden, heads = config.hidden_size, config.num_attention_heads
    dim = hidden // heads
    theta = float(config.rope_parameters["rope_theta"])
    first, second = (model.model.layers[i].self_attn for i in (0, 1))
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight *= _QUIET
        layer.mlp.down_proj.weight *= _QUIET
    reads = [_orthonormal(dim, hidden, generator) for _ in range(2)]
    writes = [_orthonormal(dim, hidden, generator) for _ in range(2)]
    for head in range(2):
        rows = slice(head * dim, (head + 1) * dim)
        query, key = _look_back_bias(head + 1, dim, theta)
        first.q_proj.weight[rows] *= 0.1
        first.k_proj.weight[rows] *= 0.1
        first.q_proj.bias[rows], first.k_proj.bias[rows] = query, key
        first.v_proj.weight[rows] = reads[head]
        first.o_proj.weight[:, rows] = writes[head].T / math.sqrt(hidden)
    # Rotary embeddings turn the first pairs fast: the match uses the slow half of them only.
    slow = torch.zeros(dim, 1)
    slow[dim // 4 : dim // 2], slow[3 * dim // 4 :] = _MATCH, _MATCH
    for head in range(2):
        rows = slice(head * dim, (head + 1) * dim)
        content = _orthonormal(dim, hidden, generator)
        second.q_proj.weight[rows] = slow * reads[0]
        second.k_proj.weight[rows] = slow * writes[0]
        second.v_proj.weight[rows] = content
        second.o_proj.weight[:, rows] = content.T * (_COPY / math.sqrt(hidden))
