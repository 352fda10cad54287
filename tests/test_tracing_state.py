# SPDX-License-Identifier: GPL-3.0-or-later
"""Tensors of the module wherever the step reads them: in the loss, and in checkpointed parts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from protocol.errors import TraceError
from protocol.execution import Inputs
from protocol.randomness import sample
from protocol.reference import ReferenceExecutor
from protocol.tracing import Traced, trace
from tests.tracing_support import CLASSES, SEED, TOLERANCE, distance, follows_torch, sgd, small_mlp

Loss = Callable[[Tensor, Tensor], Tensor]


def follows_torch_with_its_loss(
    module: nn.Module, loss_of: Callable[[nn.Module], Loss], *, accumulate: int = 1
) -> Traced:
    """As `follows_torch`, for a loss that reads the module; torch's is of the twin."""
    twin = copy.deepcopy(module)
    traced = trace(
        module, loss_of(module), sgd(momentum=0.9)(module.parameters()),
        dataset=CLASSES, batch_size=4, accumulate=accumulate,
    )  # fmt: skip
    executor = ReferenceExecutor(traced.program, Inputs(traced.constants, traced.data, SEED))
    optimizer, loss, state = sgd(momentum=0.9)(twin.parameters()), loss_of(twin), traced.state
    for step in range(3):
        outputs = executor.trace(state, step)
        state = [outputs[traced.program.output(s)] for s in range(traced.program.n_state)]
        optimizer.zero_grad()
        total = 0.0
        for part in range(accumulate):
            examples = range(4 * part, 4 * part + 4)
            chosen = torch.tensor([sample(SEED, 0, step, e, 20) for e in examples])
            expected = loss(twin(CLASSES[0][chosen]), CLASSES[1][chosen]) / accumulate
            expected.backward()
            total += float(expected.detach())
        optimizer.step()
        got = torch.from_numpy(outputs[traced.program.names["loss"]].view(np.float32).copy())
        assert distance(got, torch.tensor(total)) <= TOLERANCE
        for name, tensor in traced.state_dict(state).items():
            assert distance(tensor, twin.state_dict()[name]) <= TOLERANCE, (step, name)
    return traced


def decaying(module: nn.Module) -> Loss:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        squares = [p.square().sum() for p in module.parameters()]
        return F.cross_entropy(output, target) + 0.05 * torch.stack(squares).sum()

    return loss


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_may_read_the_parameters_of_the_module(accumulate: int) -> None:
    follows_torch_with_its_loss(small_mlp(), decaying, accumulate=accumulate)


def test_a_parameter_that_only_the_loss_reads_is_trained() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_mlp()
            self.scale = nn.Parameter(torch.tensor(1.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    def loss_of(module: nn.Module) -> Loss:
        return lambda output, target: F.cross_entropy(output * module.scale, target)

    traced = follows_torch_with_its_loss(Scaled(), loss_of)
    assert "model.scale" in traced.program.state_names


class Checkpointed(nn.Module):
    """A part that the backward pass runs again; `middle` is between two linear layers."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.part = nn.Sequential(nn.Linear(5, 6), middle, nn.Linear(6, 6), nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.part, x, use_reentrant=False))


@pytest.mark.parametrize("middle", [nn.Tanh(), nn.BatchNorm1d(6), nn.Dropout(0.0)], ids=str)
def test_a_checkpointed_part_is_differentiated(middle: nn.Module) -> None:
    """The statistics of a normalization are updated twice, as by torch."""
    follows_torch(Checkpointed(middle), F.cross_entropy, CLASSES, tolerance=1e-5)


def test_a_checkpointed_average_over_all_steps_follows_torch() -> None:
    module = Checkpointed(nn.BatchNorm1d(6, momentum=None))
    follows_torch(module, F.cross_entropy, CLASSES, tolerance=1e-5)


def test_a_checkpointed_part_costs_nothing() -> None:
    def nodes(module: nn.Module) -> int:
        optimizer = sgd()(module.parameters())
        traced = trace(module, F.cross_entropy, optimizer, dataset=CLASSES, batch_size=4)
        return len(traced.program.nodes)

    module = Checkpointed(nn.Tanh())
    assert nodes(module) == nodes(nn.Sequential(module.part, module.head))


def test_a_checkpointed_part_that_draws_numbers_is_refused() -> None:
    with pytest.raises(TraceError, match="would draw other numbers") as caught:
        follows_torch(Checkpointed(nn.Dropout(0.5)), F.cross_entropy, CLASSES)
    assert "aten.bernoulli" in str(caught.value)


def test_a_buffer_that_the_forward_pass_replaces_is_state() -> None:
    class Replacing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_mlp()
            self.register_buffer("scale", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            self.scale = self.scale * 1.5
            return self.inner(x) * self.scale

    traced = follows_torch(Replacing(), F.cross_entropy, CLASSES, tolerance=1e-5)
    assert "model.scale" in traced.program.state_names


def test_a_buffer_that_changes_its_shape_is_refused() -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_mlp()
            self.register_buffer("seen", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            self.seen = torch.cat([self.seen, self.seen])
            return self.inner(x)

    with pytest.raises(TraceError, match="changes the shape or dtype of seen"):
        follows_torch(Growing(), F.cross_entropy, CLASSES)


def line_of(text: str) -> str:
    lines = Path(__file__).read_text().splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.strip() == text)
    return f"{__file__}:{number}"


def test_a_parameter_that_is_held_past_the_module_is_refused() -> None:
    module = small_mlp()
    parameters = list(module.parameters())
    before = copy.deepcopy(module.state_dict())

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target) + parameters[2].square().sum()

    optimizer = sgd()(module.parameters())
    with pytest.raises(TraceError, match=r"the tensor 2\.weight") as caught:
        trace(module, loss, optimizer, dataset=CLASSES, batch_size=4)
    where = "return F.cross_entropy(output, target) + parameters[2].square().sum()"
    assert line_of(where) in str(caught.value)
    assert list(module.parameters()) == parameters
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())


def test_a_parameter_that_only_code_past_the_module_holds_is_refused() -> None:
    module = small_mlp()
    module.scale = nn.Parameter(torch.tensor(1.5))
    scale = module.scale.data

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output * scale, target)

    module.forward = lambda x: module[2](module[0](x))
    with pytest.raises(TraceError, match="the tensor scale"):
        trace(module, loss, sgd()(module.parameters()), dataset=CLASSES, batch_size=4)


def test_a_constant_buffer_may_be_held_past_the_module() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_mlp()
            self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]))
            self.kept = [self.scale]

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * self.kept[0]

    follows_torch(Keeping(), F.cross_entropy, CLASSES)


def test_a_changing_buffer_that_is_held_past_the_module_is_refused() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_mlp()
            self.register_buffer("scale", torch.ones(3))
            self.kept = [self.scale]

        def forward(self, x: Tensor) -> Tensor:
            self.scale.mul_(1.5)
            return self.inner(x) * self.kept[0]

    with pytest.raises(TraceError, match="the tensor scale in the module"):
        follows_torch(Keeping(), F.cross_entropy, CLASSES)


# Memory that several tensors share ---------------------------------------------------------------


class Twice(nn.Module):
    """Two layers of one shape."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(torch.tanh(self.a(x))))


@pytest.mark.parametrize("frozen", [False, True])
def test_parameters_that_share_memory_are_refused_if_one_is_trained(frozen: bool) -> None:
    module = Twice()
    module.b.weight.data = module.a.weight.data
    module.b.weight.requires_grad_(not frozen)
    with pytest.raises(TraceError, match=r"a\.weight and b\.weight share their memory"):
        follows_torch(module, F.cross_entropy, CLASSES)


def test_statistics_that_share_memory_are_refused() -> None:
    module = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    module[2].running_mean = module[1].running_mean[:]
    with pytest.raises(TraceError, match=r"1\.running_mean and 2\.running_mean share"):
        follows_torch(module, F.cross_entropy, CLASSES)


def test_constants_may_share_memory() -> None:
    module = Twice()
    module.b.weight.data = module.a.weight.data
    module.a.requires_grad_(False)
    module.b.requires_grad_(False)
    follows_torch(module, F.cross_entropy, CLASSES)


def test_parameters_may_lie_side_by_side_in_one_storage() -> None:
    module = Twice()
    flat = torch.cat([p.detach().flatten() for p in module.parameters()])
    start = 0
    for parameter in module.parameters():
        parameter.data = flat[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    follows_torch(module, F.cross_entropy, CLASSES)


# Hooks of modules --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "hook"),
    [
        ("register_forward_pre_hook", lambda _, inputs: (inputs[0] * 2,)),
        ("register_forward_hook", lambda _, inputs, output: output * 2),
        ("register_full_backward_pre_hook", lambda _, gradients: (gradients[0] * 2,)),
        ("register_full_backward_hook", lambda _, inputs, outputs: (inputs[0] * 2,)),
    ],
)
def test_hooks_of_modules_are_part_of_the_step(method: str, hook: Callable[..., object]) -> None:
    module = small_mlp()
    getattr(module[2], method)(hook)
    follows_torch(module, F.cross_entropy, CLASSES)
