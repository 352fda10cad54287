# SPDX-License-Identifier: GPL-3.0-or-later
"""Training for many steps with the compiled executor, beside torch on the same batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from protocol.execution import Inputs
from protocol.executor import CompiledExecutor
from protocol.randomness import sample_array
from protocol.tracing import Traced, trace
from tests.tracing_support import SEED, distance

MakeScheduler = Callable[[torch.optim.Optimizer], LRScheduler]


def trains_like_torch(
    module: nn.Module,
    loss: Callable[..., Tensor],
    dataset: tuple[Tensor, ...],
    optimizer: torch.optim.Optimizer,
    *,
    tolerance: float,
    steps: int = 120,
    batch: int = 4,
    make_scheduler: MakeScheduler | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    without_gradient: Mapping[str, slice] | None = None,
) -> Traced:
    """Compare losses and final parameters, relative to the largest of each; return the trace.

    `optimizer` steps the module's parameters; torch goes on with these very objects. The loss does
    not depend on the parts of parameters in `without_gradient`: their gradients are rounding
    errors, which Adam scales up to whole steps, so that no two machines agree about them.
    """
    scheduler = make_scheduler(optimizer) if make_scheduler else None
    traced = trace(
        module, loss, optimizer, dataset=dataset, batch_size=batch, scheduler=scheduler,
        steps=steps, accumulate=accumulate, clip_norm=clip_norm, clip_value=clip_value,
    )  # fmt: skip
    inputs = Inputs(traced.constants, traced.data, SEED)
    executor = CompiledExecutor(traced.program, inputs, watch=("loss",))
    state, losses, wanted = traced.state, [], []
    for step in range(steps):
        state = executor.step(state, step)
        losses.append(float(executor.watched("loss").view(np.float32)))
        count = batch * accumulate
        drawn = torch.from_numpy(
            sample_array(SEED, 0, step, count, len(dataset[0])).astype(np.int64)
        )
        optimizer.zero_grad()
        total = 0.0
        for part in drawn.split(batch):
            value = loss(module(*(t[part] for t in dataset[:-1])), dataset[-1][part]) / accumulate
            value.backward()
            total += float(value.detach())
        wanted.append(total)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
        if clip_value is not None:
            nn.utils.clip_grad_value_(module.parameters(), clip_value)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    assert distance(torch.tensor(losses), torch.tensor(wanted)) <= tolerance
    reference = module.state_dict()
    for name, tensor in traced.state_dict(state).items():
        ours, theirs = tensor.clone(), reference[name].clone()
        if without_gradient and name in without_gradient:
            ours[without_gradient[name]] = theirs[without_gradient[name]] = 0
        assert distance(ours, theirs) <= tolerance, name
    return traced
