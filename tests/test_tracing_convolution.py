# SPDX-License-Identifier: GPL-3.0-or-later
"""Convolutions and pooling against torch: forward, every gradient, and the optimizer's updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from protocol.execution import Inputs
from protocol.executor import CompiledExecutor
from protocol.program import Fold, Kind, View
from protocol.reference import ReferenceExecutor
from protocol.tracing import Traced, trace
from tests.tracing_support import SEED, follows_torch, numbers, regression, sgd

IMAGES = numbers(8, 2, 6, 6)


def network(*layers: nn.Module) -> nn.Module:
    """The layers with fresh weights after a pointwise convolution, so that all are differentiated.

    Torch draws weights when a layer is made; drawn again here they do not depend on test order.
    """
    module = nn.Sequential(nn.Conv2d(2, 2, 1), *layers)
    for number, parameter in enumerate(module.parameters()):
        parameter.data = numbers(*parameter.shape, seed=number) / 2
    return module


def images_for(module: nn.Module) -> tuple[Tensor, Tensor]:
    return IMAGES, numbers(8, *module(IMAGES).shape[1:], seed=4)


def follows(*layers: nn.Module, **options: Any) -> Traced:
    module = network(*layers)
    return follows_torch(
        module, regression, images_for(module), steps=2, batch=3, tolerance=1e-5, **options
    )


# Convolution -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (1, 3), "stride": (2, 1), "padding": (0, 2), "bias": False},
        {"kernel_size": 2, "padding": 2, "dilation": (2, 3)},
        {"kernel_size": 3, "stride": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 6},
        {"kernel_size": 2, "padding": "valid", "stride": 2},
        {"kernel_size": 3, "padding": "same", "padding_mode": "reflect"},
    ],
    ids=str,
)
def test_convolution_follows_torch(options: dict[str, Any]) -> None:
    follows(nn.Conv2d(2, 3, **options))


@pytest.mark.parametrize(("channels", "groups"), [(4, 2), (2, 2), (6, 2)])
def test_grouped_convolution_follows_torch(channels: int, groups: int) -> None:
    layer = nn.Conv2d(2, channels, 3, stride=2, padding=1, groups=groups)
    follows(layer, nn.ReLU(), nn.Conv2d(channels, channels, 2, groups=channels))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
        {"kernel_size": 2, "groups": 2, "dilation": 2},
    ],
    ids=str,
)
def test_transposed_convolution_follows_torch(options: dict[str, Any]) -> None:
    follows(nn.ConvTranspose2d(2, 4, **options))


def test_convolution_of_sequences_and_volumes_follows_torch() -> None:
    module = nn.Sequential(nn.Conv1d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv1d(4, 2, 2, groups=2))
    data = (numbers(8, 2, 6), numbers(8, 2, 2))
    follows_torch(module, regression, data, steps=2, tolerance=1e-5)
    module = nn.Sequential(nn.Conv1d(2, 4, 3, padding="valid"), nn.Conv1d(4, 2, 3, padding="valid"))
    follows_torch(module, regression, data, steps=2, tolerance=1e-5)
    volume = nn.Sequential(nn.Conv3d(1, 2, 2, padding=1), nn.ReLU(), nn.Conv3d(2, 1, 3))
    follows_torch(
        volume,
        regression,
        (numbers(4, 1, 3, 3, 3), numbers(4, 1, 2, 2, 2)),
        steps=1,
        batch=2,
        tolerance=1e-5,
    )


def test_a_convolution_is_a_product_of_two_views_and_copies_nothing() -> None:
    traced = follows(nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False))
    products = [n for n in traced.program.nodes if n.kind is Kind.FOLD and n.fold is Fold.DOT]
    assert len(products) == 5  # two forward; the first layer needs no input gradient
    assert all(not node.body.instructions for node in products)
    views = [o for node in products for o in node.body.operands if isinstance(o, View)]
    assert any(dim.dilation == 2 for view in views for dim in view.dims), "stride backwards"
    largest = max(np.prod(node.shape) for node in traced.program.nodes)
    assert largest == 8 * 2 * 6 * 6, "no tensor is larger than the data set"


# Pooling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d((3, 2), (2, 3), 1, ceil_mode=True),
        nn.MaxPool2d(2, 1, 1, dilation=2),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d((3, 2), (2, 3), 1, ceil_mode=True),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveAvgPool2d((3, 1)),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d(6),
        nn.AdaptiveMaxPool2d((3, 2)),
    ],
    ids=str,
)
def test_pooling_follows_torch(layer: nn.Module) -> None:
    follows(layer)


def test_pooling_of_sequences_follows_torch() -> None:
    module = nn.Sequential(nn.Conv1d(2, 4, 1), nn.MaxPool1d(2), nn.AvgPool1d(3))
    data = (numbers(8, 2, 6), numbers(8, 4, 1))
    follows_torch(module, regression, data, steps=2, tolerance=1e-5)


class Rounded(nn.Module):
    """Halves, so that maxima are equal, differentiated as if nothing had been rounded."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (torch.floor(x * 2) / 2 - x).detach()


def test_the_first_of_equal_maxima_gets_the_gradient() -> None:
    module = nn.Sequential(nn.Linear(4, 4), Rounded(), nn.MaxPool2d(3, 1, 1))
    images = numbers(8, 1, 4, 4)
    rounded = module[:2](images)
    windows = F.unfold(F.pad(rounded, (1, 1, 1, 1), value=-9.0), 3)
    ties = (windows == windows.amax(1, keepdim=True)).sum(1)
    assert (ties > 1).any()
    data = (images, numbers(8, 1, 4, 4, seed=3))
    follows_torch(module, regression, data, steps=2, tolerance=1e-5)


def test_padding_is_never_the_maximum_of_a_window_of_minus_infinity() -> None:
    module = network(nn.MaxPool2d(3, 2, 1))
    module[0].weight.data.abs_()  # type: ignore[index, union-attr]
    images = torch.full((4, 2, 6, 6), float("-inf"))
    traced = trace(
        module,
        lambda output, target: (output.clamp(min=-1.0) * target).sum(),
        sgd()(module.parameters()),
        dataset=(images, numbers(4, 2, 3, 3)),
        batch_size=2,
    )
    executor = ReferenceExecutor(traced.program, Inputs(traced.constants, traced.data, SEED))
    positions = [n for n, node in enumerate(traced.program.nodes) if node.fold is Fold.IMAX]
    assert positions
    found = executor.trace(traced.state, 0)
    for number in positions:
        values = found[number].view(np.int32)
        assert ((values <= 0) & (values > -36)).all(), "minus a position of the plane"


@pytest.mark.parametrize(
    "layer",
    [
        nn.AdaptiveAvgPool2d(4),
        nn.AdaptiveAvgPool2d((4, 1)),
        nn.AdaptiveAvgPool2d((7, 13)),
        nn.AdaptiveMaxPool2d(4),
        nn.AdaptiveMaxPool2d((5, 3)),
    ],
    ids=str,
)
def test_unequal_adaptive_windows_follow_torch(layer: nn.Module) -> None:
    traced = follows(layer)
    given = Inputs(traced.constants, traced.data, SEED)
    ours = CompiledExecutor(traced.program, given).trace(traced.state, 0)
    theirs = ReferenceExecutor(traced.program, given).trace(traced.state, 0)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_unequal_adaptive_windows_of_sequences_follow_torch() -> None:
    for layer in (nn.AdaptiveAvgPool1d(4), nn.AdaptiveMaxPool1d(4)):
        module = nn.Sequential(nn.Conv1d(2, 3, 1), layer)
        data = (numbers(8, 2, 9), numbers(8, 3, 4))
        follows_torch(module, regression, data, steps=2, tolerance=1e-5)


# A small network on real digits ------------------------------------------------------------------


def digits(batch: int) -> tuple[nn.Module, Traced, Tensor, Tensor]:
    """A convolutional network for the 8 x 8 digits, traced on the first 1,500; images, classes."""
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    classes = torch.tensor(targets)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(64, 10),
    )
    traced = trace(
        module,
        F.cross_entropy,
        torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9),
        dataset=(images[:1500], classes[:1500]),
        batch_size=batch,
    )
    return module, traced, images, classes


def test_both_executors_agree_on_a_convolutional_network() -> None:
    _, traced, _, _ = digits(batch=4)
    given = Inputs(traced.constants, traced.data, SEED)
    ours = CompiledExecutor(traced.program, given).trace(traced.state, 0)
    theirs = ReferenceExecutor(traced.program, given).trace(traced.state, 0)
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert np.array_equal(a, b), (number, traced.program.nodes[number])


def test_a_convolutional_network_learns_the_digits() -> None:
    module, traced, images, classes = digits(batch=32)
    executor = CompiledExecutor(traced.program, Inputs(traced.constants, traced.data, SEED))
    state = traced.state
    for step in range(600):
        state = executor.step(state, step)
    module.load_state_dict(traced.state_dict(state), strict=False)
    with torch.no_grad():
        right = (module.eval()(images[1500:]).argmax(1) == classes[1500:]).double().mean()
    assert right > 0.92, right
