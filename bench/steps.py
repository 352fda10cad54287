# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole training steps against torch eager, and what commitments cost beside them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bench.measure import Result, ratio, seconds
from bitcourt.jobs.digits import job
from protocol.commitments import state_root
from protocol.executor import CompiledExecutor


def steps() -> Iterator[Result]:
    """The digits classifier of the demo, one thread."""
    torch.set_num_threads(1)
    digits = job()
    bundle = digits.bundle()
    cold = seconds(lambda: CompiledExecutor(bundle.program, bundle.inputs(bytes(32))))
    yield Result("jit_cold_seconds", cold, "seconds", "digits MLP, self-check included", "<= 5")
    executor = CompiledExecutor(bundle.program, bundle.inputs(bytes(32)))
    inputs, targets = digits.dataset
    draw = torch.Generator().manual_seed(0)

    def eager() -> None:
        batch = torch.randint(len(inputs), (digits.batch_size,), generator=draw)
        digits.optimizer.zero_grad()
        digits.loss(digits.module(inputs[batch]), targets[batch]).backward()
        digits.optimizer.step()

    eager()
    value, ours, _ = ratio(lambda: executor.step(bundle.state, 7), eager, rounds=200)
    yield Result("step_ratio/mlp", value, "ratio", "torch eager, one thread", "<= 1.0")
    traced, _, _ = ratio(
        lambda: executor.trace(bundle.state, 7), lambda: executor.step(bundle.state, 7), rounds=200
    )
    yield Result("trace_ratio", traced, "ratio", "plain step (without hashing)", "<= 2.5")
    hashed = seconds(lambda: [state_root(bundle.state) for _ in range(20)]) / 20
    yield Result(
        "commit_overhead_percent",
        100 * hashed / (100 * ours),
        "percent",
        "training, a checkpoint every 100 steps",
        "<= 1",
    )
