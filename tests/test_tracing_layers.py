# SPDX-License-Identifier: GPL-3.0-or-later
"""Dropout, normalization with running statistics, and further optimizers against torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from protocol.errors import TraceError
from protocol.execution import Bits, Inputs
from protocol.program import Kind
from protocol.randomness import philox, sample
from protocol.reference import ReferenceExecutor
from protocol.tracing import Traced, trace
from tests.tracing_support import (
    CLASSES,
    SEED,
    MakeOptimizer,
    distance,
    follows_torch,
    numbers,
    regression,
    sgd,
    small_mlp,
)

NUMBERS = (numbers(16, 5), numbers(16, 2, seed=3))


# Dropout -----------------------------------------------------------------------------------------


def dropping() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Linear(5, 6), nn.Dropout(0.3), nn.ReLU(), nn.Linear(6, 6), nn.Dropout(0.5),
        nn.Linear(6, 2),
    )  # fmt: skip


def traced_dropping(batch: int = 4) -> Traced:
    module = dropping()
    make = sgd(momentum=0.9)(module.parameters())
    return trace(module, regression, make, dataset=NUMBERS, batch_size=batch)


def survivors(stream: int, step: int, shape: tuple[int, ...], keep: float) -> Tensor:
    """What the specification says survives: random words below `keep * 2^32`."""
    words = [philox(SEED, stream, step, e) for e in range(int(np.prod(shape)))]
    return torch.tensor([w < round(keep * 2**32) for w in words]).reshape(shape).float()


@contextmanager
def given_masks(masks: list[Tensor]) -> Iterator[None]:
    """Let torch's dropout use these masks, one a call."""
    left = iter(masks)

    def dropout(x: Tensor, p: float, training: bool, inplace: bool = False) -> Tensor:
        assert training
        return x * next(left) / (1 - p)

    with mock.patch("torch.nn.functional.dropout", dropout):
        yield


def test_dropout_follows_torch_with_the_masks_of_the_seed() -> None:
    """Forward, gradients and updates are those of torch under the same masks, so each mask is one
    in forward and backward; streams are numbered in the order of the calls, steps differ.
    """
    twin, traced = dropping(), traced_dropping()
    executor = ReferenceExecutor(traced.program, Inputs(traced.constants, traced.data, SEED))
    optimizer, state = sgd(momentum=0.9)(twin.parameters()), traced.state
    seen: list[Tensor] = []
    for step in range(3):
        outputs = executor.trace(state, step)
        state = [outputs[traced.program.output(s)] for s in range(traced.program.n_state)]
        masks = [survivors(0, step, (4, 6), 0.7), survivors(1, step, (4, 6), 0.5)]
        chosen = [sample(SEED, 0, step, e, len(NUMBERS[0])) for e in range(4)]
        optimizer.zero_grad()
        with given_masks(masks):
            expected = regression(twin(NUMBERS[0][chosen]), NUMBERS[1][chosen])
        expected.backward()
        optimizer.step()
        loss = torch.from_numpy(outputs[traced.program.names["loss"]].view(np.float32).copy())
        assert distance(loss, expected.detach()) < 2e-6
        for name, tensor in traced.state_dict(state).items():
            assert distance(tensor, twin.state_dict()[name]) < 1e-5, (step, name)
        seen += masks
    assert all(not torch.equal(a, b) for n, a in enumerate(seen) for b in seen[:n])


def test_each_call_has_its_stream_and_one_mask() -> None:
    random = [n for n in traced_dropping().program.nodes if n.kind is Kind.RAND]
    assert [(n.stream, n.shape) for n in random] == [(0, (4, 6)), (1, (4, 6))]


def words(traced: Traced, seed: bytes, step: int) -> list[Bits]:
    executor = ReferenceExecutor(traced.program, Inputs(traced.constants, traced.data, seed))
    found = executor.trace(traced.state, step)
    return [found[n] for n, node in enumerate(traced.program.nodes) if node.kind is Kind.RAND]


def test_masks_depend_on_seed_and_step_and_call() -> None:
    traced = traced_dropping()
    masks = [
        *words(traced, SEED, 0),
        *words(traced, SEED, 1),
        *words(traced, bytes(32), 0),
    ]
    assert len({mask.tobytes() for mask in masks}) == 6
    again = words(traced, SEED, 0)
    assert all(np.array_equal(a, b) for a, b in zip(again, masks, strict=False))


def test_survivors_are_as_frequent_as_asked_and_scaled() -> None:
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Dropout(0.2))
    module[0].weight.data.fill_(1.0)  # type: ignore[union-attr]
    ones = torch.ones(4, 500, 1)
    loss = lambda output, target: (output * target).sum()  # noqa: E731
    traced = trace(
        module, loss, sgd()(module.parameters()), dataset=(ones, ones), batch_size=4
    )  # fmt: skip
    executor = ReferenceExecutor(traced.program, Inputs(traced.constants, traced.data, SEED))
    outputs = executor.trace(traced.state, 0)
    total = float(outputs[traced.program.names["loss"]].view(np.float32))
    # 2,000 elements, each 1.25 with probability 0.8: the deviation of the mean is 0.011.
    assert abs(total / 2000 - 1) < 0.05
    assert abs(total / 1.25 - round(total / 1.25)) < 1e-3
    weight = float(outputs[traced.program.output(0)].view(np.float32).reshape(()))
    assert weight == pytest.approx(1 - 0.1 * total, rel=1e-5), "the gradient has the same mask"


def test_dropout_is_the_identity_in_evaluation_and_at_its_extremes() -> None:
    traced = follows_torch(dropping().eval(), regression, NUMBERS, steps=2)
    assert not [n for n in traced.program.nodes if n.kind is Kind.RAND]
    for p in (0.0, 1.0):
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(5, 2), nn.Dropout(p), nn.Linear(2, 2))
        follows_torch(module, regression, NUMBERS, steps=2)


class AttentionDropout(nn.Module):
    """Torch's own attention function, which drops probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        heads = x.reshape(4, 2, 3, 1)
        found = F.scaled_dot_product_attention(
            heads, heads, heads, dropout_p=0.5 if self.training else 0.0
        )
        return found.reshape(4, 6)


@pytest.mark.parametrize(
    "layer", [nn.Dropout1d(0.5), nn.AlphaDropout(0.3), AttentionDropout()], ids=str
)
def test_other_kinds_of_dropout_draw_anew_at_each_step(layer: nn.Module) -> None:
    """All examples are the same one, so that losses of one state differ by their masks only."""
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(5, 6), layer, nn.Linear(6, 2))
    same = tuple(tensor[:1].expand(4, -1).contiguous() for tensor in NUMBERS)
    for training in (True, False):
        make = sgd()(module.train(training).parameters())
        traced = trace(module, regression, make, dataset=same, batch_size=4)
        executor = ReferenceExecutor(traced.program, Inputs(traced.constants, traced.data, SEED))
        number = traced.program.names["loss"]
        losses = {int(executor.trace(traced.state, step)[number]) for step in range(3)}
        assert (len(losses) > 1) == training


# Normalization -----------------------------------------------------------------------------------


def normalizing(layer: nn.Module) -> nn.Module:
    torch.manual_seed(6)
    return nn.Sequential(nn.Linear(5, 6), layer, nn.Linear(6, 2))


@pytest.mark.parametrize("momentum", [0.1, 0.4, None])
def test_running_statistics_are_state_and_follow_torch(momentum: float | None) -> None:
    module = normalizing(nn.BatchNorm1d(6, momentum=momentum))
    traced = follows_torch(module, regression, NUMBERS, steps=3, tolerance=1e-5)
    names = traced.program.state_names
    for buffer in ("running_mean", "running_var", "num_batches_tracked"):
        assert f"model.1.{buffer}" in names, "else the comparison would not have looked at it"
    executor = ReferenceExecutor(traced.program, Inputs(traced.constants, traced.data, SEED))
    after = executor.step(traced.state, 0)
    for name, before, now in zip(names, traced.state, after, strict=True):
        if "running" in name or "num_batches" in name:
            assert not np.array_equal(before, now), name


class Twice(nn.Module):
    """One normalization used twice: its statistics move twice in a step, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.inner, self.norm, self.out = nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.inner(self.norm(x))))


def test_a_normalization_used_twice_follows_torch() -> None:
    follows_torch(Twice(), regression, NUMBERS, steps=2, tolerance=1e-5)


def test_batch_normalization_in_evaluation_reads_constants() -> None:
    module = normalizing(nn.BatchNorm1d(6))
    module[1].running_mean.normal_()  # type: ignore[index, union-attr, operator]
    traced = follows_torch(module.eval(), regression, NUMBERS, steps=2, tolerance=1e-5)
    assert not any("running" in name for name in traced.program.state_names)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(6, affine=False),
        nn.BatchNorm1d(6, track_running_stats=False),
        nn.GroupNorm(2, 6),
        nn.GroupNorm(3, 6, affine=False),
        nn.RMSNorm(6),
        nn.LayerNorm(6),
    ],
    ids=str,
)
def test_normalization_follows_torch(layer: nn.Module) -> None:
    follows_torch(normalizing(layer), regression, NUMBERS, steps=2, tolerance=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    ],
    ids=str,
)
def test_normalization_of_images_follows_torch(layer: nn.Module) -> None:
    torch.manual_seed(9)
    module = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), layer, nn.ReLU(), nn.AvgPool2d(2))
    data = (numbers(6, 2, 4, 4), numbers(6, 4, 1, 1))
    follows_torch(module, regression, data, steps=2, batch=3, tolerance=1e-5)


# Optimizers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.RMSprop(p, lr=0.01),
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.8, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, eps=1e-3, maximize=True),
        lambda p: torch.optim.Adagrad(p, lr=0.05),
        lambda p: torch.optim.Adagrad(
            p, lr=0.05, weight_decay=0.1, initial_accumulator_value=0.2, eps=1e-3
        ),
    ],
)
def test_further_optimizers_follow_torch(make: MakeOptimizer) -> None:
    follows_torch(small_mlp(), F.cross_entropy, CLASSES, make, steps=4, tolerance=1e-5)


def test_optimizer_state_goes_on_where_it_was() -> None:
    """An optimizer that has stepped before is traced with the state that it has."""
    module = small_mlp()
    optimizer = torch.optim.Adagrad(module.parameters(), lr=0.05)
    F.cross_entropy(module(CLASSES[0]), CLASSES[1]).backward()
    optimizer.step()
    traced = trace(module, F.cross_entropy, optimizer, dataset=CLASSES, batch_size=4)
    kept = traced.program.state_names.index("sum.0.weight")
    held = optimizer.state[module[0].weight]["sum"]  # type: ignore[index]
    assert np.array_equal(traced.state[kept], held.numpy().view(np.uint32))
    assert held.any()


@pytest.mark.parametrize("limit", [0.05, 100.0])
def test_gradients_clipped_by_their_norm_follow_torch(limit: float) -> None:
    """100 is never reached."""
    make = sgd(lr=0.5, momentum=0.9)
    follows_torch(
        small_mlp(), F.cross_entropy, CLASSES, make, steps=3, tolerance=1e-5, clip_norm=limit
    )


def test_a_limit_of_the_norm_that_is_not_positive_is_refused() -> None:
    module = small_mlp()
    with pytest.raises(TraceError, match="clip_norm"):
        trace(
            module, F.cross_entropy, sgd()(module.parameters()),
            dataset=CLASSES, batch_size=4, clip_norm=0.0,
        )  # fmt: skip
