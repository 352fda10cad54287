# SPDX-License-Identifier: GPL-3.0-or-later
"""A small GPT over the characters of the English text that ships with CPython.

Sizes come from the environment: `CHAR_GPT_WIDTH`, `CHAR_GPT_LAYERS`, `CHAR_GPT_HEADS`,
`CHAR_GPT_TIME` and `CHAR_GPT_BATCH`.
"""

from __future__ import annotations

import os
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from bitcourt import Job

STEPS = 300
WARM_UP = 30


class Block(nn.Module):
    """A transformer block, layer norm first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, time, width) to the same shape."""
        parts = self.qkv(self.before(x)).chunk(3, -1)
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).flatten(2))
        hidden = F.gelu(self.up(self.between(x)), approximate="tanh")
        out: Tensor = x + self.down(hidden)
        return out


class CharGPT(nn.Module):
    """A GPT over characters, whose embedding is its last layer too."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, time: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(time, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for table in (self.token, self.place):
            nn.init.normal_(table.weight, std=0.02)
        self.head.weight = self.token.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, time) tokens to (batch, time, vocabulary) logits."""
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1]))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


def next_character(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy over batch and time."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _size(name: str, default: int) -> int:
    return int(os.environ.get(f"CHAR_GPT_{name}", default))


def job() -> Job:
    """Every position of the text begins an example; the text itself is published once."""
    text = "\n".join(topics[name] for name in sorted(topics))
    characters = sorted(set(text))
    codes = {character: code for code, character in enumerate(characters)}
    tokens = torch.tensor([codes[character] for character in text])
    time = _size("TIME", 64)
    windows = tokens.unfold(0, time + 1, 1)

    torch.manual_seed(0)
    module = CharGPT(
        len(characters), _size("WIDTH", 128), _size("LAYERS", 2), _size("HEADS", 4), time
    )
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.01)
    warm_up = LinearLR(optimizer, 0.1, total_iters=WARM_UP)
    cosine = CosineAnnealingLR(optimizer, STEPS - WARM_UP, eta_min=2e-4)
    return Job(
        module=module,
        loss=next_character,
        optimizer=optimizer,
        dataset=(windows[:, :-1], windows[:, 1:]),
        batch_size=_size("BATCH", 16),
        steps=STEPS,
        scheduler=SequentialLR(optimizer, [warm_up, cosine], [WARM_UP]),
        clip_norm=1.0,
    )
