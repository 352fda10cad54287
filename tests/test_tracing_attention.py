# SPDX-License-Identifier: GPL-3.0-or-later
"""Attention against torch: the module, the function with its masks, and whole layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.tracing_support import Layers, follows_torch, numbers, regression

WORDS = numbers(6, 4, 8)
CAUSAL = torch.ones(4, 4).triu(1).bool()


def follows(run: Callable[..., Tensor], *layers: nn.Module, data: Tensor = WORDS) -> None:
    module = Layers(run, *layers)
    target = numbers(len(data), *module(data[:2]).shape[1:], seed=9)
    follows_torch(module, regression, (data, target), steps=2, batch=2, tolerance=1e-5)


def attention(**options: int | bool) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(8, 2, batch_first=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "run",
    [
        lambda x, a: a(x, x, x)[0],
        lambda x, a: a(x[:, :2], x, x * 2, need_weights=False)[0],
        lambda x, a: a(x, x, x, attn_mask=CAUSAL, is_causal=True, need_weights=False)[0],
        lambda x, a: a(x, x, x, key_padding_mask=x[:, :, 0] > 0.8)[0],
    ],
    ids=["self", "cross", "causal", "padded"],
)
def test_multihead_attention_follows_torch(run: Callable[..., Tensor]) -> None:
    follows(run, attention())


def test_attention_with_sizes_and_biases_of_its_own_follows_torch() -> None:
    layer = attention(kdim=3, vdim=5, add_bias_kv=True, add_zero_attn=True)
    follows(lambda x, a: a(x, x[..., :3], x[..., :5])[0], layer)


@pytest.mark.parametrize(
    "function",
    [
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: F.scaled_dot_product_attention(q[:, :, :2], k, v, scale=0.3),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=~CAUSAL),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=CAUSAL.T),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=CAUSAL * -2.0),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=q.sum(-1)[..., None] > 0),
        lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], enable_gqa=True),
    ],
    ids=["causal", "scaled", "boolean", "a row masked", "float", "of data", "grouped"],
)
def test_scaled_dot_product_attention_follows_torch(function: Callable[..., Tensor]) -> None:
    follows(
        lambda x, a: function(a(x), a(x) * 0.5 + x, a(x) + 0.3),
        nn.Linear(4, 4),
        data=numbers(6, 2, 4, 4),
    )


@pytest.mark.parametrize("first", [False, True])
def test_a_transformer_layer_follows_torch(first: bool) -> None:
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=first
    )
    follows(lambda x, a: a(x, src_mask=CAUSAL, is_causal=True), layer)
