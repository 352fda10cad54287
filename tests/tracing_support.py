# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparing a traced program, step by step, with torch doing the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from protocol.execution import Inputs
from protocol.randomness import sample
from protocol.reference import ReferenceExecutor
from protocol.tracing import Traced, trace
from protocol.validate import validate

torch.set_num_threads(1)

SEED = bytes(range(32))
TOLERANCE = 2e-6
MakeOptimizer = Callable[[Any], torch.optim.Optimizer]


def sgd(**options: Any) -> MakeOptimizer:
    return lambda parameters: torch.optim.SGD(parameters, **{"lr": 0.1, **options})


def distance(got: Tensor, wanted: Tensor) -> float:
    scale = float(wanted.double().abs().max()) or 1.0
    return float((got.double() - wanted.double()).abs().max()) / scale


def follows_torch(
    module: nn.Module,
    loss: Callable[..., Tensor],
    dataset: tuple[Tensor, ...],
    make: MakeOptimizer | None = None,
    *,
    batch: int = 4,
    steps: int = 3,
    tolerance: float = TOLERANCE,
    clip_norm: float | None = None,
) -> Traced:
    """Trace, execute some steps with the reference, and compare with torch doing the same."""
    make = make or sgd(momentum=0.9)
    twin = copy.deepcopy(module)
    traced = trace(
        module,
        loss,
        make(module.parameters()),
        dataset=dataset,
        batch_size=batch,
        clip_norm=clip_norm,
    )
    program = traced.program
    validate(program)
    executor = ReferenceExecutor(program, Inputs(traced.constants, traced.data, SEED))
    optimizer, state = make(twin.parameters()), traced.state
    for step in range(steps):
        outputs = executor.trace(state, step)
        state = [outputs[program.output(s)] for s in range(program.n_state)]
        chosen = torch.tensor([sample(SEED, 0, step, e, len(dataset[0])) for e in range(batch)])
        optimizer.zero_grad()
        inputs = (tensor[chosen] for tensor in dataset[:-1])
        expected = loss(twin(*inputs), dataset[-1][chosen])
        expected.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(twin.parameters(), clip_norm, foreach=False)
        optimizer.step()
        got = torch.from_numpy(outputs[program.names["loss"]].view(np.float32).copy())
        assert distance(got, expected.detach()) <= tolerance, (step, got, expected)
        reference = twin.state_dict()
        for name, tensor in traced.state_dict(state).items():
            assert distance(tensor, reference[name]) <= tolerance, (step, name)
    return traced


def line_of(text: str, file: str) -> str:
    """Where in a file a line of code stands, as a refusal names it."""
    lines = Path(file).read_text().splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.strip() == text)
    return f"{file}:{number}"


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def labels(n: int, classes: int, *shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, classes, (n, *shape), generator=generator)


def small_mlp() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


CLASSES = (numbers(20, 5), labels(20, 3))


def regression(output: Tensor, target: Tensor) -> Tensor:
    return ((output - target) ** 2).mean()


class Apply(nn.Module):
    """Applies a function between two linear layers, so that it is differentiated."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.before = nn.Linear(5, 6)
        self.after = nn.Linear(width, 2)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.before(x)))


class Layers(nn.Module):
    """A function of a tensor and some layers, whose weights do not depend on the order of tests."""

    def __init__(self, run: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.run, self.layers = run, nn.ModuleList(layers)
        for number, parameter in enumerate(self.parameters()):
            parameter.data = numbers(*parameter.shape, seed=number) * 0.3

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, *self.layers)
