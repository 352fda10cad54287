# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tracer cannot lower is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from protocol.errors import TraceError
from protocol.tracing import trace
from protocol.tracing.lowering import LOWERINGS
from tests.tracing_support import (
    CLASSES,
    Apply,
    labels,
    line_of,
    numbers,
    sgd,
    small_mlp,
)


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(5, 3), Apply(lambda x: x.sort(1).values))
        self.inner[1].before = nn.Linear(3, 6)
        self.inner[1].after = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def refused(module: nn.Module, dataset: tuple[Tensor, ...] = CLASSES, **options: Any) -> str:
    make = options.pop("make", sgd())
    loss = options.pop("loss", F.cross_entropy)
    with pytest.raises(TraceError) as caught:
        trace(module, loss, make(module.parameters()), dataset=dataset, batch_size=4)
    return str(caught.value)


def test_an_operation_without_lowering_is_named_with_its_module() -> None:
    message = refused(Sorted())
    assert "aten.sort" in message
    assert "inner.1 (Apply)" in message


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if y.sum() > 0:  # a branch that depends on data
            y = -y
        return y


class Sorting(Branching):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x) * 2
        y = y.sort(1).values
        return y + 1


def test_a_refusal_names_the_line_that_called_the_operation() -> None:
    message = refused(nn.Sequential(Sorting()))
    assert "aten.sort.default in 0 (Sorting)" in message
    assert line_of("y = y.sort(1).values", __file__) in message


def test_what_torch_cannot_trace_is_refused_with_its_line() -> None:
    message = refused(nn.Sequential(Branching()))
    assert "0 (Branching)" in message
    assert line_of("if y.sum() > 0:  # a branch that depends on data", __file__) in message
    assert "a number or a branch depends on data" in message


class Backwards(torch.autograd.Function):
    """Has a backward pass that cannot be lowered, unlike its forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sin()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].sort(1).values


class Twisting(Branching):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x).tanh()
        y = Backwards.apply(y)
        return y.exp()


class Folding(Branching):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.linear(x))
        y = y.abs()
        return y.exp()


def between(module: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 5), nn.Tanh(), module, nn.Sigmoid(), nn.Linear(3, 3))


def test_a_refusal_of_the_backward_pass_names_what_is_differentiated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = refused(between(Twisting()))
    assert "aten.sort.default in 2 (Twisting)" in message
    assert f"{line_of('return gradients[0].sort(1).values', __file__)} (backward)" in message
    monkeypatch.delitem(LOWERINGS, "sign.default")
    message = refused(between(Folding()))
    assert "aten.sign.default in 2 (Folding)" in message
    assert f"{line_of('y = y.abs()', __file__)} (backward)" in message


def test_a_lowering_that_fails_is_refused_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setitem(LOWERINGS, "tanh.default", failing)
    message = refused(nn.Sequential(Twisting()))
    assert "aten.tanh.default in 0 (Twisting)" in message
    assert line_of("y = self.linear(x).tanh()", __file__) in message
    assert "IndexError: list index out of range" in message


def test_a_refused_loss_is_named_with_its_line() -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.sort(1).values, target)

    message = refused(small_mlp(), loss=loss)
    assert line_of("return F.cross_entropy(output.sort(1).values, target)", __file__) in message


def test_a_loss_without_a_line_is_named_as_the_loss() -> None:
    message = refused(small_mlp(), loss=nn.MultiMarginLoss())
    assert "multi_margin_loss" in message
    assert "in the loss (backward)" in message
    message = refused(small_mlp(), loss=nn.MSELoss())
    assert "torch cannot trace the loss: " in message


def test_float64_is_refused_by_name() -> None:
    assert "0.weight has dtype torch.float64" in refused(small_mlp().double())
    data = (CLASSES[0].double(), CLASSES[1])
    assert "dataset[0] has dtype torch.float64" in refused(small_mlp(), data)


def test_half_precision_is_refused_by_name() -> None:
    assert "torch.float16" in refused(
        Apply(lambda x: x.half().float()), (numbers(9, 5), labels(9, 2))
    )


def test_an_unknown_optimizer_is_refused_by_name() -> None:
    assert "Adadelta" in refused(small_mlp(), make=torch.optim.Adadelta)


def test_a_loss_that_is_no_number_is_refused() -> None:
    loss = lambda output, target: F.cross_entropy(output, target, reduction="none")  # noqa: E731
    assert "one floating-point number" in refused(small_mlp(), loss=loss)


def test_shapes_that_depend_on_data_are_refused() -> None:
    message = refused(Apply(lambda x: x * int(x.sum().item())))
    assert "a number or a branch depends on data" in message
    assert "a shape depends on data" in refused(Apply(lambda x: x[x > 0].reshape(-1, 6)))


def test_a_general_power_is_refused() -> None:
    assert "exponent 1.7" in refused(
        Apply(lambda x: x.abs() ** 1.7, 6), (numbers(9, 5), labels(9, 2))
    )


def test_labels_beyond_32_bits_are_refused() -> None:
    assert "do not fit 32 bits" in refused(small_mlp(), (CLASSES[0], CLASSES[1] + (1 << 40)))
