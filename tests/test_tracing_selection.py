# SPDX-License-Identifier: GPL-3.0-or-later
"""Selection by order, running sums, diagonals, norms and writes by mask, against torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from protocol.execution import Inputs
from protocol.executor import CompiledExecutor
from protocol.reference import ReferenceExecutor
from protocol.tracing import trace
from tests.test_tracing_refusals import refused
from tests.tracing_support import SEED, Apply, follows_torch, labels, numbers, regression, sgd

DATA = (numbers(8, 5), numbers(8, 2, seed=3))
NAMED: dict[str, Callable[[Tensor], Tensor]] = {
    "argmax": lambda x: x * x.argmax(1, keepdim=True),
    "argmin": lambda x: x * x.argmin(0),
    "argmax of all": lambda x: x * x.argmax(),
    "max": lambda x: x * x.max(1, keepdim=True).values,
    "min": lambda x: x * x.min(0).values,
    "topk": lambda x: x.topk(2, 1).values.repeat(1, 3),
    "topk smallest": lambda x: x.topk(3, 1, largest=False).indices.repeat(1, 2) * x,
    "cumsum": lambda x: x.cumsum(1),
    "cumsum of integers": lambda x: x * (x > 0).cumsum(0),
    "cumprod": lambda x: x.cumprod(1),
    "diagonal": lambda x: x * (x @ x.T).diagonal()[:, None],
    "diagonal with offset": lambda x: x + (x.T @ x).diagonal(-1).sum() * x.diagonal(2).sum(),
    "unfold": lambda x: x.unfold(1, 3, 2).sum(-1).repeat(1, 3),
    "write by mask": lambda x: x.masked_fill(x > 1, 0.0).index_put((x < 0,), torch.tensor(0.5)),
    "scatter of several": lambda x: x.scatter(1, torch.tensor([[0, 3]] * 3), x[:, :2] * 2),
    "euclidean norm": lambda x: x / x.norm(dim=1, keepdim=True),
    "norm of magnitudes": lambda x: x / x.norm(p=1),
    "largest magnitude": lambda x: x / x.norm(p=float("inf"), dim=0),
    "round": lambda x: x + (x * 3).round().detach(),
    "softshrink": lambda x: nn.functional.softshrink(x, 0.2),
    "hardshrink": nn.functional.hardshrink,
    "circular padding": lambda x: nn.functional.pad(x[:, None], (1, 2), "circular")[:, 0, 2:8],
}


@pytest.mark.parametrize("name", NAMED)
def test_function_follows_torch(name: str) -> None:
    module = Apply(NAMED[name])
    follows_torch(module, regression, DATA, steps=2, batch=3, tolerance=1e-5)


def test_the_first_of_equal_elements_is_chosen_and_a_nan_is_the_largest() -> None:
    rows = torch.tensor(
        [
            [1.0, 3.0, 3.0, -0.0, 2.0],
            [0.0, -0.0, 0.0, -1.0, 0.0],
            [1.0, float("nan"), float("inf"), float("nan"), 0.0],
            [float("-inf")] * 5,
        ]
    )

    class Picks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            chosen = torch.stack([x.argmax(1), x.argmin(1), x.topk(2, 1).indices[:, 1]], 1)
            return chosen + self.weight

    module = Picks()
    loss = lambda output, target: (output * torch.tensor([1.0, 10.0, 100.0])).sum()  # noqa: E731
    wanted = torch.stack([rows.argmax(1), rows.argmin(1)], 1)
    second = [2, 1, 3, 1]  # torch leaves the order of equal elements open here
    for number, row in enumerate(rows):
        traced = trace(
            module, loss, sgd()(module.parameters()), dataset=(row[None], row[None]), batch_size=1
        )
        given = Inputs(traced.constants, traced.data, SEED)
        place = traced.program.names["loss"]
        for executor in (ReferenceExecutor, CompiledExecutor):
            got = executor(traced.program, given).trace(traced.state, 0)[place].view(np.float32)
            expected = wanted[number, 0] + 10 * wanted[number, 1] + 100 * second[number]
            assert float(got) == float(expected), (number, executor)


def test_what_takes_too_many_passes_is_refused_by_name() -> None:
    wide = nn.Sequential(nn.Linear(5, 40), Apply(lambda x: x.topk(33, 1).values[:, :6]))
    wide[1].before = nn.Linear(40, 40)  # type: ignore[union-attr]
    assert "topk of 33 elements" in refused(wide, (numbers(9, 5), labels(9, 2)))
    assert "order 3" in refused(Apply(lambda x: x / x.norm(p=3)), (numbers(9, 5), labels(9, 2)))
