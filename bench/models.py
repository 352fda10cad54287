# SPDX-License-Identifier: GPL-3.0-or-later
"""The models whose training steps are measured, as a PyTorch user would write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from bitcourt.jobs.char_gpt import CharGPT, next_character
from bitcourt.jobs.digits import job as digits_job
from protocol.bundle import Bundle
from protocol.tracing import trace

Loss = Callable[[Tensor, Tensor], Tensor]
EXAMPLES: Final = 512
"""Size of the made-up data sets."""
VOCABULARY: Final = 96
"""Characters of printable ASCII and the newline."""


@dataclass
class Model:
    """A module with its loss, optimizer and data: `(inputs, targets)` with a common first axis."""

    name: str
    module: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    dataset: tuple[Tensor, Tensor]
    batch_size: int

    @property
    def parameters(self) -> int:
        """Number of trained numbers."""
        return sum(p.numel() for p in self.module.parameters())

    def bundle(self) -> Bundle:
        """Trace one training step; the bundle has the program and all tensors it starts from."""
        traced = trace(
            self.module,
            self.loss,
            self.optimizer,
            dataset=self.dataset,
            batch_size=self.batch_size,
        )
        return Bundle(traced.program, traced.state, traced.constants, traced.data)

    def eager(self) -> Callable[[], None]:
        """Return one step in stock PyTorch, on a batch drawn at random from the same data."""
        return self._step(self.module)

    def compiled(self) -> Callable[[], None]:
        """Return the same with the module compiled by `torch.compile`."""
        return self._step(torch.compile(self.module))  # type: ignore[arg-type]

    def _step(self, module: nn.Module) -> Callable[[], None]:
        inputs, targets = self.dataset
        draw = torch.Generator().manual_seed(0)

        def step() -> None:
            batch = torch.randint(len(inputs), (self.batch_size,), generator=draw)
            self.optimizer.zero_grad()
            self.loss(module(inputs[batch]), targets[batch]).backward()
            self.optimizer.step()

        return step


class CharLSTM(nn.Module):
    """An LSTM over characters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, time) tokens to (batch, time, vocabulary) logits."""
        return self.head(self.lstm(self.token(tokens))[0])


def _characters(name: str, module: nn.Module, time: int, batch: int) -> Model:
    tokens = torch.randint(VOCABULARY, (EXAMPLES, time + 1))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    data = (tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    return Model(name, module, next_character, optimizer, data, batch)


def _chargpt(size: str) -> Model:
    width, layers, heads, time, batch = {
        "0.8M": (128, 4, 4, 64, 16),
        "5M": (256, 6, 8, 128, 8),
        "25M": (512, 8, 8, 128, 4),
    }[size]
    return _characters(
        f"chargpt-{size}", CharGPT(VOCABULARY, width, layers, heads, time), time, batch
    )


def _mlp() -> Model:
    job = digits_job()
    return Model("mlp", job.module, job.loss, job.optimizer, job.dataset, job.batch_size)


def _images(name: str, module: nn.Module, channels: int, size: int, batch: int) -> Model:
    images = torch.randn(EXAMPLES, channels, size, size)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    data = (images, torch.randint(10, (EXAMPLES,)))
    return Model(name, module, F.cross_entropy, optimizer, data, batch)


def _cnn_digits() -> Model:
    layers = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    return _images("cnn-digits", layers, 1, 8, 64)


def _cnn_cifar() -> Model:
    def stage(before: int, after: int) -> list[nn.Module]:
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(after), nn.ReLU()]

    layers = nn.Sequential(
        *stage(3, 32), *stage(32, 32), nn.MaxPool2d(2),
        *stage(32, 64), *stage(64, 64), nn.MaxPool2d(2),
        *stage(64, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    return _images("cnn-cifar", layers, 3, 32, 32)


def _lstm() -> Model:
    return _characters("lstm", CharLSTM(128), 32, 16)


class Logits(nn.Module):
    """A transformers model that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, time) tokens to (batch, time, vocabulary) logits."""
        logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return logits


def _llama() -> Model:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=64,
        attn_implementation="sdpa",
    )
    return _characters("llama", Logits(LlamaForCausalLM(config)), 64, 16)


_MAKERS: Final[dict[str, Callable[[], Model]]] = {
    "mlp": _mlp,
    "cnn-digits": _cnn_digits,
    "cnn-cifar": _cnn_cifar,
    "lstm": _lstm,
    "llama": _llama,
    "chargpt-0.8M": lambda: _chargpt("0.8M"),
    "chargpt-5M": lambda: _chargpt("5M"),
    "chargpt-25M": lambda: _chargpt("25M"),
}
NAMES: Final = tuple(_MAKERS)
"""Names of all models, cheapest step first."""


def missing(name: str) -> str:
    """Return why a model cannot be built here, or nothing."""
    if name == "llama" and find_spec("transformers") is None:
        return "transformers is not installed"
    return ""


def model(name: str) -> Model:
    """Build a model by name, always with the same numbers in it."""
    torch.manual_seed(0)
    return _MAKERS[name]()
