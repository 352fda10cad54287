# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step reads beside its arguments: traced as torch does it, or refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from protocol.errors import TraceError
from protocol.execution import Inputs
from protocol.program import Kind
from protocol.reference import ReferenceExecutor
from protocol.tracing import Traced, trace
from tests.tracing_support import (
    CLASSES,
    SEED,
    distance,
    follows_torch,
    line_of,
    sgd,
    small_mlp,
)


def traced(module: nn.Module, loss: Callable[..., Tensor] = F.cross_entropy, **kw: Any) -> Traced:
    optimizer = kw.pop("optimizer", None) or torch.optim.SGD(module.parameters(), lr=0.1)
    return trace(module, loss, optimizer, dataset=CLASSES, batch_size=4, **kw)


def refused(module: nn.Module, loss: Callable[..., Tensor] = F.cross_entropy, **kw: Any) -> str:
    with pytest.raises(TraceError) as caught:
        traced(module, loss, **kw)
    return str(caught.value)


# Tensors of the module that are reached outside of its forward -----------------------------------


def test_a_loss_over_the_parameters_of_its_module_follows_torch() -> None:
    """The loss of each twin reads its own module's parameters."""
    twins: list[nn.Module] = []

    class Penalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_mlp()

        def forward(self, x: Tensor) -> Tensor:
            twins[:] = [self.inner]
            return self.inner(x)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        norms = sum(p.square().sum() for p in twins[0].parameters())
        return F.cross_entropy(output, target) + 0.05 * norms

    follows_torch(Penalized(), loss, CLASSES, steps=3)


class Checkpointed(nn.Module):
    """A part of the forward pass is computed again in the backward pass."""

    def __init__(self, kept: bool = True, again: bool = True) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.kept, self.again = kept, again
        self.first, self.norm, self.last = nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
        self.drop, self.later = nn.Dropout(0.5), nn.Dropout(0.2)

    def part(self, x: Tensor) -> Tensor:
        return self.drop(torch.tanh(self.norm(self.first(x)))) * x.sin()

    def forward(self, x: Tensor) -> Tensor:
        if self.again:
            y = checkpoint(self.part, x, use_reentrant=False, preserve_rng_state=self.kept)
        else:
            y = self.part(x)
        return self.last(self.later(y))


def test_a_checkpointed_part_follows_torch() -> None:
    module = Checkpointed()
    module.drop.p = module.later.p = 0.0
    follows_torch(module, F.cross_entropy, CLASSES, steps=3)


def streams(program: Traced) -> list[int]:
    return sorted(node.stream for node in program.program.nodes if node.kind is Kind.RAND)


def after(program: Traced, steps: int = 2) -> dict[str, Tensor]:
    inputs = Inputs(program.constants, program.data, SEED)
    executor, state = ReferenceExecutor(program.program, inputs), program.state
    for step in range(steps):
        state = executor.step(state, step)
    return program.state_dict(state)


def test_a_checkpoint_draws_again_what_it_has_drawn() -> None:
    module = Checkpointed(again=False)
    module.norm = nn.Identity()  # type: ignore[assignment]
    plain = traced(module)
    module.again = True
    again = traced(module)
    assert streams(plain) == streams(again) == [0, 1]
    wanted = after(plain)
    for name, tensor in after(again).items():
        assert distance(tensor, wanted[name]) <= 1e-6
    module.kept = False
    assert streams(traced(module)) == [0, 1, 2], "as in torch, it draws something else"
    module.kept = True
    assert streams(traced(module, accumulate=2)) == [0, 1, 2, 3]


def test_a_buffer_that_is_replaced_follows_torch() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(5, 3)
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            self.mean = self.mean * 0.9 + y.detach().mean(0) * 0.1
            return y - self.mean

    program = follows_torch(Mean(), F.cross_entropy, CLASSES, steps=3)
    assert "model.mean" in program.program.state_names


def test_a_parameter_that_is_reached_by_an_older_reference_is_refused() -> None:
    module = small_mlp()
    parameters = list(module.parameters())

    def penalized(output: Tensor, target: Tensor) -> Tensor:
        norm = parameters[2].square().sum()  # held since before the trace
        return F.cross_entropy(output, target) + norm

    message = refused(module, penalized)
    assert "2.weight" in message
    line = "norm = parameters[2].square().sum()  # held since before the trace"
    assert line_of(line, __file__) in message


def test_a_copy_of_a_parameter_is_a_constant() -> None:
    module = small_mlp()
    first = module[0].weight.detach().clone()  # type: ignore[operator, union-attr]
    loss = lambda output, target: F.cross_entropy(output, target) * first.square().sum()  # noqa: E731
    follows_torch(module, loss, CLASSES)


def test_parameters_in_the_same_memory_are_refused() -> None:
    module = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3))
    module[1].weight.data = module[0].weight.data
    message = refused(module)
    assert "0.weight and 1.weight" in message
    module[0].requires_grad_(requires_grad=False)
    assert "1.weight and 0.weight" in refused(module)
    module[1].requires_grad_(requires_grad=False)
    traced(module)


# Hooks -------------------------------------------------------------------------------------------


def test_statistics_in_the_same_memory_are_refused() -> None:
    module = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    module[2].running_mean = module[1].running_mean[:]
    found = refused(module)
    assert "1.running_mean and 2.running_mean are two tensors in the same memory" in found


def test_a_buffer_that_changes_its_shape_is_refused() -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_mlp()
            self.register_buffer("seen", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            self.seen = torch.cat([self.seen, self.seen])
            return self.inner(x)

    assert "changes the shape or dtype of seen" in refused(Growing())


def test_hooks_on_gradients_follow_torch() -> None:
    module = small_mlp()
    module[0].weight.register_hook(lambda gradient: gradient * 3)  # type: ignore[operator, union-attr]
    plain = after(traced(small_mlp()), 1)
    hooked = after(traced(module), 1)
    start = small_mlp().state_dict()
    for name, tensor in hooked.items():
        times = 3 if name == "0.weight" else 1
        wanted = start[name] + times * (plain[name] - start[name])
        assert distance(tensor, wanted) <= 1e-6


def test_hooks_that_are_not_traced_are_refused() -> None:
    module = small_mlp()
    optimizer = sgd()(module.parameters())
    handle = optimizer.register_step_pre_hook(lambda *_: None)
    assert "register_step_pre_hook" in refused(module, optimizer=optimizer)
    handle.remove()
    handle = optimizer.register_step_post_hook(lambda *_: None)
    assert "register_step_post_hook" in refused(module, optimizer=optimizer)
    handle.remove()
    traced(module, optimizer=optimizer)
    module[0].weight.register_post_accumulate_grad_hook(lambda _: None)  # type: ignore[operator, union-attr]
    message = refused(module, optimizer=optimizer)
    assert "0.weight" in message
    assert "register_post_accumulate_grad_hook" in message


# Python's own state ------------------------------------------------------------------------------


class Counting(nn.Module):
    """Keeps what a test tells it to from call to call."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.drop = nn.Linear(5, 3), nn.Dropout(0.1)
        self.n = 0
        self.factor = torch.full((3,), 2.0)
        self.kept: list[Tensor] = []
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return self.run(self, self.linear(x))


def scheduled(module: Counting, y: Tensor) -> Tensor:
    module.drop.p = 0.1 * module.n
    return module.drop(y)


def branching(module: Counting, y: Tensor) -> Tensor:
    return y if module.n == 1 else y.sin()


@pytest.mark.parametrize(
    "run",
    [
        lambda module, y: y * module.n,
        lambda _, y: y * random.random(),
        scheduled,
        branching,
    ],
    ids=["counter", "random", "dropout", "branch"],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_depends_on_python_state_is_refused(
    run: Callable[[Any, Tensor], Tensor], accumulate: int
) -> None:
    module = Counting(run)
    message = refused(module, accumulate=accumulate)
    assert "a second call does something else" in message
    assert __file__ in message
    assert module.n == 0


def remembering(module: Counting, y: Tensor) -> Tensor:
    module.factor = module.factor * 1.5
    return y * module.factor


def writing(module: Counting, y: Tensor) -> Tensor:
    module.factor.mul_(1.5)
    return y * module.factor


@pytest.mark.parametrize(
    ("run", "reason"),
    [(remembering, "an earlier call has left"), (writing, "writes into a tensor")],
)
def test_a_tensor_that_is_no_buffer_cannot_change(
    run: Callable[[Any, Tensor], Tensor], reason: str
) -> None:
    module = Counting(run)
    message = refused(module)
    assert reason in message
    assert __file__ in message
    assert torch.equal(module.factor, torch.full((3,), 2.0))
    assert type(module.factor) is Tensor


def test_what_a_module_keeps_for_others_is_put_back() -> None:
    def keeping(module: Counting, y: Tensor) -> Tensor:
        module.last = y
        module.kept.append(y)
        return y

    module = Counting(keeping)
    traced(module)
    assert module.kept == []
    assert not hasattr(module, "last")
    assert module.n == 0
