# SPDX-License-Identifier: GPL-3.0-or-later
"""A job so small that a scenario takes seconds."""

from __future__ import annotations

import torch

from bitcourt.job import Job


def small_job() -> Job:
    """Two layers on 40 points in 6 dimensions, 20 steps in 4 segments."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(40, 6, generator=generator)
    targets = (inputs.sum(dim=1) > 0).long()
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.ReLU(), torch.nn.Linear(20, 2))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    return Job(
        module=module,
        loss=torch.nn.functional.cross_entropy,
        optimizer=optimizer,
        dataset=(inputs, targets),
        batch_size=8,
        steps=20,
        segment_steps=5,
    )
