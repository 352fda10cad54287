# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs so small that a scenario takes seconds."""

from __future__ import annotations

import torch

from bitcourt.job import Job

RATE = 0.1
"""Learning rate of both jobs."""


def small_job() -> Job:
    """Two layers on 40 points in 6 dimensions, 20 steps in 4 segments."""
    torch.manual_seed(0)
    return _job(
        torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.ReLU(), torch.nn.Linear(20, 2))
    )


def wide_job() -> Job:
    """The same with 300 hidden units and a softmax over them: long sums, and sums in lanes."""
    torch.manual_seed(0)
    return _job(
        torch.nn.Sequential(torch.nn.Linear(6, 300), torch.nn.Softmax(1), torch.nn.Linear(300, 2))
    )


def _job(module: torch.nn.Module) -> Job:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(40, 6, generator=generator)
    targets = (inputs.sum(dim=1) > 0).long()
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9, weight_decay=1e-3)
    return Job(
        module=module,
        loss=torch.nn.functional.cross_entropy,
        optimizer=optimizer,
        dataset=(inputs, targets),
        batch_size=8,
        steps=20,
        segment_steps=5,
    )
