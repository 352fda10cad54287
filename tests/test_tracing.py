# SPDX-License-Identifier: GPL-3.0-or-later
"""Traced programs against torch eager: losses, updates over several steps, refusals.

A traced program rounds in another order than torch, so figures are compared within a relative
tolerance here (of the largest element of each tensor); nowhere else does a tolerance decide.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from protocol.encoding import encode_node
from protocol.execution import Inputs
from protocol.program import DType, Flat, Fold, Kind, Program
from protocol.randomness import sample
from protocol.reference import ReferenceExecutor
from protocol.tracing import Traced, trace
from tests.tracing_support import (
    CLASSES,
    SEED,
    TOLERANCE,
    Apply,
    MakeOptimizer,
    distance,
    follows_torch,
    labels,
    numbers,
    regression,
    sgd,
    small_mlp,
)

# Optimizers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
        {"momentum": 0.8, "dampening": 0.5, "weight_decay": 0.05, "maximize": True},
    ],
    ids=str,
)
def test_sgd_with_all_its_options_follows_torch(options: dict[str, Any]) -> None:
    follows_torch(small_mlp(), F.cross_entropy, CLASSES, sgd(**options), steps=5)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("options", [{}, {"amsgrad": True, "weight_decay": 0.1}], ids=str)
def test_adam_follows_torch(kind: type[torch.optim.Optimizer], options: dict[str, Any]) -> None:
    make: MakeOptimizer = lambda p: kind(p, lr=0.02, **options)  # noqa: E731
    follows_torch(small_mlp(), F.cross_entropy, CLASSES, make, steps=4, tolerance=2e-5)


def test_parameter_groups_keep_their_own_options() -> None:
    def make(parameters: Any) -> torch.optim.Optimizer:
        first, *rest = parameters
        return torch.optim.SGD([{"params": [first], "lr": 0.5}, {"params": rest}], lr=0.01)

    follows_torch(small_mlp(), F.cross_entropy, CLASSES, make)


@pytest.mark.parametrize("make", [sgd(momentum=0.9, dampening=0.5), lambda p: torch.optim.Adam(p)])
def test_an_optimizer_that_has_already_stepped_goes_on_from_its_state(make: MakeOptimizer) -> None:
    module = small_mlp()
    optimizer = make(module.parameters())
    F.cross_entropy(module(CLASSES[0]), CLASSES[1]).backward()
    optimizer.step()
    traced = trace(module, F.cross_entropy, optimizer, dataset=CLASSES, batch_size=20)
    executor = ReferenceExecutor(traced.program, Inputs(traced.constants, traced.data, SEED))
    after = traced.state_dict(executor.step(traced.state, 0))
    chosen = torch.tensor([sample(SEED, 0, 0, e, 20) for e in range(20)])
    optimizer.zero_grad()
    F.cross_entropy(module(CLASSES[0][chosen]), CLASSES[1][chosen]).backward()
    optimizer.step()
    for name, tensor in module.state_dict().items():
        assert distance(after[name], tensor) <= 1e-5


def test_state_is_named_and_starts_as_the_module_is() -> None:
    module = small_mlp()
    traced = trace(
        module, F.cross_entropy, sgd(momentum=0.9)(module.parameters()),
        dataset=CLASSES, batch_size=4,
    )  # fmt: skip
    names = [name for name, _ in module.named_parameters()]
    wanted = (*(f"model.{n}" for n in names), *(f"momentum.{n}" for n in names))
    assert traced.program.state_names == wanted
    for name, tensor in traced.state_dict(traced.state).items():
        assert torch.equal(tensor, module.state_dict()[name])
    assert all(not bits.any() for bits in traced.state[len(names) :])


def test_parameters_that_are_not_trained_become_constants_and_stay() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Linear(5, 6)
            self.frozen.requires_grad_(False)
            self.head = nn.Linear(6, 3)
            self.unused = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.frozen(x)))

    traced = follows_torch(Partly(), F.cross_entropy, CLASSES, sgd(weight_decay=0.5))
    assert traced.program.state_names == ("model.head.weight", "model.head.bias")
    assert traced.program.n_const == 2


def test_tied_weights_are_one_state_tensor() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Embedding(7, 4)
            self.out = nn.Linear(4, 7, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.embed(x))

    traced = follows_torch(Tied(), F.cross_entropy, (labels(20, 7), labels(20, 7, seed=2)))
    assert traced.program.state_names == ("model.embed.weight", "momentum.embed.weight")


# Operations --------------------------------------------------------------------------------------


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.3, 0.4),
    "cumulative_mask": lambda x: torch.where(torch.arange(6) > 2, x, x * 0.5),
    "division": lambda x: x / (1 + x * x),
    "elu": F.elu,
    "erf": torch.erf,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "log": lambda x: torch.log(x * x + 0.1),
    "log1p": lambda x: torch.log1p(x * x),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "masked_fill": lambda x: x.masked_fill(x > 0.2, 0.5),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "pow_2": lambda x: x**2,
    "pow_3": lambda x: x**3,
    "pow_minus_half": lambda x: (x * x + 1) ** -0.5,
    "rsqrt": lambda x: torch.rsqrt(x * x + 1),
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softmax": lambda x: F.softmax(x, 1),
    "softplus": F.softplus,
    "sqrt": lambda x: torch.sqrt(x * x + 1),
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementwise_functions_and_their_gradients_follow_torch(name: str) -> None:
    follows_torch(
        Apply(FUNCTIONS[name]), regression, (numbers(12, 5), numbers(12, 2, seed=4)), steps=2,
        tolerance=1e-5,
    )  # fmt: skip


MOVEMENTS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "cat": (lambda x: torch.cat([x[:, :2], x * 2, x[:, 4:5]], 1), 9),
    "chunk": (lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1], 3),
    "expand": (lambda x: (x[:, None, :].expand(4, 3, 6) * 2).sum(1), 6),
    "flip": (lambda x: x.flip(1) * x, 6),
    "index": (lambda x: x[:, torch.tensor([0, -1, 3, 3])], 4),
    "pad": (lambda x: F.pad(x, (1, 2)) * 3, 9),
    "permute_and_merge": (lambda x: x.view(4, 2, 3).permute(0, 2, 1).reshape(4, 6), 6),
    "roll": (lambda x: x.roll(2, 1), 6),
    "select": (lambda x: x.view(4, 2, 3)[:, 1], 3),
    "slice_with_step": (lambda x: x[:, ::2] * x[:, 1::2], 3),
    "stack": (lambda x: torch.stack([x, -x], 1).reshape(4, 12), 12),
    "transposed_view": (lambda x: x.t().reshape(4, 6), 6),
    "unsqueeze": (lambda x: x.unsqueeze(1).squeeze(1), 6),
}


@pytest.mark.parametrize("name", MOVEMENTS)
def test_movements_and_their_gradients_follow_torch(name: str) -> None:
    function, width = MOVEMENTS[name]
    data = (numbers(12, 5), numbers(12, 2, seed=4))
    follows_torch(Apply(function, width), regression, data, steps=2)


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "amax": lambda x: x - x.amax(1, keepdim=True),
    "amin": lambda x: x - x.amin(1, keepdim=True),
    "layer_norm": lambda x: F.layer_norm(x, (6,)),
    "mean": lambda x: x - x.mean(),
    "mean_of_dim": lambda x: x - x.mean(0, keepdim=True),
    "sum_of_dims": lambda x: x * x.view(4, 2, 3).sum((0, 2)).sum(),
    "var": lambda x: x / x.var(1, keepdim=True),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_and_their_gradients_follow_torch(name: str) -> None:
    data = (numbers(12, 5), numbers(12, 2, seed=4))
    follows_torch(Apply(REDUCTIONS[name]), regression, data, steps=2, tolerance=2e-5)


@pytest.mark.parametrize("lanes_length", [15, 16, 40, 300])
def test_long_contiguous_sums_have_lanes_and_follow_torch(lanes_length: int) -> None:
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(numbers(lanes_length, seed=6))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.scale).sum(1)

    data = (numbers(5, lanes_length), numbers(5))
    traced = follows_torch(Summed(), regression, data, sgd(lr=0.001))
    sums = [n for n in traced.program.nodes if n.kind is Kind.FOLD and n.reduce == (lanes_length,)]
    assert [n.lanes for n in sums] == [16 if lanes_length >= 16 else 1]


class Words(nn.Module):
    """Embedding with a padding index, normalization, and several activations."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed = nn.Embedding(9, 6, padding_idx=2)
        self.norm = nn.LayerNorm(6)
        self.hidden = nn.Linear(6, 6)
        self.out = nn.Linear(6, 9)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(F.silu(self.hidden(F.gelu(self.norm(self.embed(tokens)))))).transpose(1, 2)


def test_embedding_layer_norm_and_ignored_labels_follow_torch() -> None:
    tokens, targets = labels(12, 9, 4), labels(12, 9, 4, seed=5)
    targets[::2, 1] = -100
    make: MakeOptimizer = lambda p: torch.optim.AdamW(p, lr=0.01)  # noqa: E731
    traced = follows_torch(
        Words(), F.cross_entropy, (tokens, targets), make, steps=3, tolerance=2e-5
    )
    before = traced.state_dict(traced.state)["embed.weight"]
    executor = ReferenceExecutor(traced.program, Inputs(traced.constants, traced.data, SEED))
    outputs = executor.trace(traced.state, 0)
    index = traced.program.state_names.index("exp_avg.embed.weight")
    assert not outputs[traced.program.output(index)][2].any(), "the padding row has no gradient"
    assert before[2].eq(0).all()


class Attention(nn.Module):
    """Causal self-attention written out, and the same through torch's own function."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.project = nn.Linear(6, 18)
        self.out = nn.Linear(6, 2)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.view(*x.shape[:2], 2, 3).transpose(1, 2) for t in self.project(x).split(6, 2))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(2, 3) / math.sqrt(3)
            mask = torch.tril(torch.ones(x.shape[1], x.shape[1])) == 0
            y = scores.masked_fill(mask, float("-inf")).softmax(3) @ v
        return self.out(y.transpose(1, 2).reshape(x.shape))


@pytest.mark.parametrize("fused", [False, True])
def test_causal_attention_follows_torch(fused: bool) -> None:
    data = (numbers(8, 5, 6), numbers(8, 5, 2, seed=9))
    traced = follows_torch(Attention(fused), regression, data, steps=2, batch=2, tolerance=1e-5)
    masks = [n for n in traced.program.nodes if n.kind is Kind.CONST and n.shape[-2:] == (5, 5)]
    assert not masks, "the causal mask is a formula of its indices"


# What the program looks like ---------------------------------------------------------------------


def digits() -> tuple[Traced, Program]:
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    traced = trace(
        module,
        F.cross_entropy,
        torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9),
        dataset=(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(targets)),
        batch_size=64,
    )
    return traced, traced.program


def test_digits_mlp_has_few_nodes_and_its_products_are_plain_matrices() -> None:
    traced, program = digits()
    assert len(program.nodes) <= 52
    assert [bits.shape for bits in traced.data] == [(1797, 64), (1797,)]
    products = [n for n in program.nodes if n.kind is Kind.FOLD and n.fold is Fold.DOT]
    assert len(products) == 5  # two forward, two weight gradients, one input gradient
    for node in products:
        assert not node.body.instructions
        for operand in node.body.operands:
            assert not isinstance(operand, Flat)
            assert len(operand.dims) == 2  # type: ignore[union-attr]
            assert all(len(dim.terms) == 1 for dim in operand.dims)  # type: ignore[union-attr]


def test_tracing_twice_gives_the_same_bytes() -> None:
    (first, a), (second, b) = digits(), digits()
    assert [encode_node(n) for n in a.nodes] == [encode_node(n) for n in b.nodes]
    assert all(np.array_equal(x, y) for x, y in zip(first.state, second.state, strict=True))


def test_overlapping_windows_are_published_once() -> None:
    tokens = labels(30, 9)
    windows = tokens.unfold(0, 5, 1)
    traced = follows_torch(Words(), F.cross_entropy, (windows[:, :-1], windows[:, 1:]), steps=2)
    assert [bits.shape for bits in traced.data] == [(30,)]


def test_bias_correction_tables_are_short_and_end_at_their_limit() -> None:
    module = small_mlp()
    make = torch.optim.Adam(module.parameters(), betas=(0.9, 0.99))
    traced = trace(module, F.cross_entropy, make, dataset=CLASSES, batch_size=4)
    tables = [n for n in traced.program.nodes if n.kind is Kind.CONST]
    assert tables
    assert all(n.shape[0] < 3000 for n in tables)
    state = [name for name in traced.program.state_names if "step" in name]
    assert not state, "the step counter is no state tensor"


def test_module_and_optimizer_are_not_changed_by_tracing() -> None:
    module = small_mlp()
    before = copy.deepcopy(module.state_dict())
    optimizer = sgd(momentum=0.9)(module.parameters())
    mkldnn = torch.backends.mkldnn.enabled
    trace(module, F.cross_entropy, optimizer, dataset=CLASSES, batch_size=4)
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert not optimizer.state
    assert all(p.grad is None for p in module.parameters())
    assert torch.backends.mkldnn.enabled == mkldnn
    assert not module[0]._forward_hooks  # type: ignore[index]


def test_loss_survives_without_being_needed_by_the_state() -> None:
    _, program = digits()
    loss = program.nodes[program.names["loss"]]
    assert (loss.shape, loss.dtype) == ((), DType.F32)
    assert program.nodes[program.names["sample"]].bound == 1797


def test_changing_an_immediate_of_the_optimizer_changes_the_result() -> None:
    """Guards the comparisons above: a wrong learning rate would be seen."""
    module = small_mlp()
    traced = trace(
        module, F.cross_entropy, sgd(lr=0.1)(module.parameters()), dataset=CLASSES, batch_size=4
    )
    nodes = list(traced.program.nodes)
    number = nodes[traced.program.output(0)].index
    wrong = replace(nodes[number].body, immediates=(int(np.float32(-0.1001).view(np.uint32)),))
    nodes[number] = replace(nodes[number], expression=wrong)
    inputs = Inputs(traced.constants, traced.data, SEED)
    right = ReferenceExecutor(traced.program, inputs).step(traced.state, 0)
    other = ReferenceExecutor(replace(traced.program, nodes=tuple(nodes)), inputs)
    changed = other.step(traced.state, 0)
    got, wanted = (torch.from_numpy(s[0].view(np.float32)) for s in (changed, right))
    assert distance(got, wanted) > TOLERANCE
