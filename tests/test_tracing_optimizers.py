# SPDX-License-Identifier: GPL-3.0-or-later
"""Every optimizer and option, over enough steps for bias corrections and schedules to show.

Both sides round in another order, so figures are compared within 1e-4 of the largest element of
each tensor after 120 steps (2e-3 where an optimizer divides by a root that is nearly zero); nowhere
else does a tolerance decide.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from protocol.errors import TraceError
from protocol.execution import Inputs
from protocol.executor import CompiledExecutor
from protocol.program import Kind
from protocol.tracing import trace
from tests.tracing_support import CLASSES, SEED, regression, sgd, small_mlp
from tests.training_support import trains_like_torch

TOLERANCE = 1e-4
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "sgd-momentum-dampening": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "sgd-nesterov": (
        torch.optim.SGD,
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    ),
    "sgd-maximize": (torch.optim.SGD, {"lr": 1e-3, "momentum": 0.5, "maximize": True}),
    "adam": (torch.optim.Adam, {"lr": 0.02}),
    "adam-amsgrad-maximize": (
        torch.optim.Adam,
        {"lr": 1e-3, "amsgrad": True, "weight_decay": 0.1, "maximize": True},
    ),
    "adam-without-momentum": (torch.optim.Adam, {"lr": 0.02, "betas": (0.0, 0.99)}),
    "adam-decoupled": (
        torch.optim.Adam,
        {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "adamw": (torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.95)}),
    "adamw-amsgrad": (torch.optim.AdamW, {"lr": 0.02, "amsgrad": True}),
    "adamw-capturable": (torch.optim.AdamW, {"lr": torch.tensor(0.02), "capturable": True}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 5e-3}),
    "rmsprop-momentum-centered": (
        torch.optim.RMSprop,
        {"lr": 2e-3, "momentum": 0.9, "centered": True, "weight_decay": 0.01},
    ),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1}),
    "adagrad-lr-decay": (
        torch.optim.Adagrad,
        {"lr": 0.1, "lr_decay": 0.05, "initial_accumulator_value": 0.2, "weight_decay": 0.01},
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_follows_torch_for_many_steps(name: str) -> None:
    kind, options = OPTIMIZERS[name]
    module = small_mlp()
    loose = kind in (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)
    optimizer = kind(module.parameters(), **options)
    if options.get("capturable"):  # torch itself only runs that on accelerators
        optimizer.param_groups[0]["capturable"] = False
    trains_like_torch(
        module, F.cross_entropy, CLASSES, optimizer, tolerance=2e-3 if loose else TOLERANCE
    )


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_parameter_groups_keep_their_own_options(kind: type[torch.optim.Optimizer]) -> None:
    module = small_mlp()
    first, second, *rest = module.parameters()
    groups = [
        {"params": [first], "lr": 0.05, "weight_decay": 0.1},
        {"params": [second], "lr": 0.0},
        {"params": rest},
    ]
    optimizer = kind(groups, lr=0.01)
    trains_like_torch(module, F.cross_entropy, CLASSES, optimizer, tolerance=2e-3)
    assert torch.equal(second, small_mlp()[0].bias), "a rate of zero changes nothing"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}),
        (torch.optim.AdamW, {"amsgrad": True}),
        (torch.optim.Adagrad, {"lr_decay": 0.1}),
        (torch.optim.RMSprop, {"momentum": 0.9, "centered": True}),
    ],
)
def test_an_optimizer_goes_on_from_the_state_that_it_has(
    kind: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    module = small_mlp()
    optimizer = kind(module.parameters(), lr=0.01, **options)
    for _ in range(7):
        optimizer.zero_grad()
        F.cross_entropy(module(CLASSES[0]), CLASSES[1]).backward()
        optimizer.step()
    trains_like_torch(module, F.cross_entropy, CLASSES, optimizer, tolerance=2e-3, steps=20)


# Gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"clip_norm": 0.1}, {"clip_value": 0.02}], ids=str)
def test_clipped_gradients_follow_torch(limits: dict[str, float]) -> None:
    module = small_mlp()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.9)
    trains_like_torch(module, F.cross_entropy, CLASSES, optimizer, tolerance=TOLERANCE, **limits)


class Normalized(nn.Module):
    """A module whose buffers change with every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_gradients_follow_a_loop_of_backward_passes(accumulate: int) -> None:
    module = Normalized()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    traced = trains_like_torch(
        module, F.cross_entropy, CLASSES, optimizer, tolerance=2e-4, accumulate=accumulate,
        steps=40,
    )  # fmt: skip
    sample = traced.program.nodes[traced.program.names["sample"]]
    assert sample.shape == (4 * accumulate,)


class Adapted(nn.Module):
    """A frozen linear layer with a trained low-rank update, as in LoRA (Hu et al. 2021)."""

    def __init__(self, rank: int = 2) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.base = nn.Linear(5, 3)
        self.base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, 5) / 5**0.5)
        self.up = nn.Parameter(torch.zeros(3, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.t() @ self.up.t() * 2.0


def test_low_rank_adapters_train_while_the_base_stays_a_constant() -> None:
    module = Adapted()
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    traced = trains_like_torch(module, F.cross_entropy, CLASSES, optimizer, tolerance=2e-3)
    names = {n for n in traced.program.state_names if n.startswith("model.")}
    assert names == {"model.down", "model.up"}
    shapes = [n.shape for n in traced.program.nodes if n.kind is Kind.CONST]
    assert (3, 5) in shapes


def test_unused_options_do_not_turn_numbers_into_formulas() -> None:
    """A decay of zero and a beta of zero give the numbers 0 and 1, which occur everywhere."""
    module = small_mlp()
    optimizer = torch.optim.Adagrad(module.parameters(), lr=0.1)
    traced = trace(module, F.cross_entropy, optimizer, dataset=CLASSES, batch_size=4)
    assert not [n for n in traced.program.nodes if n.kind in (Kind.STEP, Kind.CONST)]


def test_a_step_with_a_rate_of_zero_leaves_parameters_without_gradient_alone() -> None:
    """Adam must not divide by the rate: 0 / 0 would make unused embeddings NaN."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 3))
    data = (torch.arange(6), torch.arange(6) % 3)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.0)
    traced = trace(module, F.cross_entropy, optimizer, dataset=data, batch_size=4)
    executor = CompiledExecutor(traced.program, Inputs(traced.constants, traced.data, SEED))
    after = traced.state_dict(executor.step(traced.state, 0))
    for name, tensor in module.state_dict().items():
        assert torch.equal(after[name], tensor)


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip_norm": 0.0}, "clip_norm must be a positive number, not 0.0"),
        ({"clip_value": float("inf")}, "clip_value must be a positive number"),
        ({"clip_norm": 1.0, "clip_value": 1.0}, "give one"),
        ({"accumulate": 0}, "at least one micro-batch"),
    ],
)
def test_options_of_no_meaning_are_refused(options: dict[str, Any], words: str) -> None:
    module = small_mlp()
    optimizer = sgd()(module.parameters())
    with pytest.raises(TraceError, match=words):
        trace(module, F.cross_entropy, optimizer, dataset=CLASSES, batch_size=4, **options)


@pytest.mark.parametrize("name", ["Adadelta", "Adamax", "LBFGS", "NAdam", "Rprop"])
def test_other_optimizers_are_refused_by_name(name: str) -> None:
    module = small_mlp()
    optimizer = getattr(torch.optim, name)(module.parameters())
    with pytest.raises(TraceError, match=f"the optimizer {name} cannot be traced"):
        trace(module, F.cross_entropy, optimizer, dataset=CLASSES, batch_size=4)


def test_a_parameter_of_another_module_is_refused() -> None:
    module, other = small_mlp(), small_mlp()
    optimizer = sgd()([*module.parameters(), *other.parameters()])
    with pytest.raises(TraceError, match="that the module does not have"):
        trace(module, regression, optimizer, dataset=CLASSES, batch_size=4)
