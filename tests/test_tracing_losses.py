# SPDX-License-Identifier: GPL-3.0-or-later
"""Losses and their gradients against torch: two steps each, within 1e-5 of the largest element."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tests.tracing_support import CLASSES, follows_torch, labels, numbers, sgd, small_mlp

Loss = Callable[[Tensor, Tensor], Tensor]
INPUTS, TARGETS = CLASSES
WEIGHTS = torch.tensor([0.5, 2.0, 1.0])
REAL = numbers(20, 3, seed=4)
SHARES = REAL.softmax(1)
BINARY = labels(20, 2, 3).float()
IGNORED = torch.where(torch.arange(20) % 2 == 0, -100, TARGETS)

LOSSES: dict[str, tuple[Loss, Tensor]] = {
    "cross_entropy, sum": (lambda o, t: F.cross_entropy(o, t, reduction="sum"), TARGETS),
    "cross_entropy, ignore_index": (lambda o, t: F.cross_entropy(o, t, ignore_index=1), TARGETS),
    "cross_entropy, weights, smoothing, ignored labels": (
        lambda o, t: F.cross_entropy(o, t, WEIGHTS, label_smoothing=0.1),
        IGNORED,
    ),
    "cross_entropy, soft targets": (F.cross_entropy, SHARES),
    "cross_entropy, soft targets, weights, smoothing": (
        lambda o, t: F.cross_entropy(o, t, WEIGHTS, label_smoothing=0.2),
        SHARES,
    ),
    "cross_entropy, none": (lambda o, t: F.cross_entropy(o, t, reduction="none").mean(), TARGETS),
    "nll_loss, weights": (lambda o, t: F.nll_loss(F.log_softmax(o, 1), t, WEIGHTS), TARGETS),
    "mse_loss, sum": (lambda o, t: F.mse_loss(o, t, reduction="sum"), REAL),
    "l1_loss": (F.l1_loss, REAL),
    "smooth_l1_loss": (lambda o, t: F.smooth_l1_loss(o, t, beta=0.3), REAL),
    "huber_loss": (lambda o, t: F.huber_loss(o, t, delta=0.4), REAL),
    "binary_cross_entropy": (
        lambda o, t: F.binary_cross_entropy(torch.sigmoid(o), t, weight=WEIGHTS),
        BINARY,
    ),
    "binary_cross_entropy_with_logits, pos_weight": (
        lambda o, t: F.binary_cross_entropy_with_logits(o, t, WEIGHTS, pos_weight=2 * WEIGHTS),
        BINARY,
    ),
    "kl_div": (lambda o, t: F.kl_div(F.log_softmax(o, 1), t, reduction="batchmean"), SHARES),
    "kl_div, targets of zero": (
        lambda o, t: F.kl_div(F.log_softmax(o, 1), t, reduction="sum"),
        F.one_hot(TARGETS, 3).float(),
    ),
    "kl_div, log_target": (
        lambda o, t: F.kl_div(F.log_softmax(o, 1), t, reduction="batchmean", log_target=True),
        SHARES.log(),
    ),
    "soft_margin_loss": (F.soft_margin_loss, 2 * BINARY - 1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients_follow_torch(name: str) -> None:
    loss, targets = LOSSES[name]
    follows_torch(small_mlp(), loss, (INPUTS, targets), sgd(lr=0.05), steps=2, tolerance=1e-5)


def test_a_loss_module_follows_torch() -> None:
    loss = torch.nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.1)
    follows_torch(small_mlp(), loss, CLASSES, sgd(), steps=2, tolerance=1e-5)
