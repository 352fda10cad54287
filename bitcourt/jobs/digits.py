# SPDX-License-Identifier: GPL-3.0-or-later
"""A multilayer perceptron on the 8x8 handwritten digits that ship with scikit-learn."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from bitcourt import Job


def job() -> Job:
    """Every fifth image is held out for the test accuracy; the other 1,437 are trained on."""
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16.0, dtype=torch.float32)
    targets = torch.tensor(labels)
    held_out = torch.arange(len(inputs)) % 5 == 0

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )

    def accuracy(trained: torch.nn.Module) -> float:
        with torch.no_grad():
            predicted = trained(inputs[held_out]).argmax(dim=1)
        return float((predicted == targets[held_out]).float().mean())

    return Job(
        module=module,
        loss=torch.nn.functional.cross_entropy,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4),
        dataset=(inputs[~held_out], targets[~held_out]),
        batch_size=64,
        steps=320,
        segment_steps=20,
        metric=accuracy,
    )
