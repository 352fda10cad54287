# SPDX-License-Identifier: GPL-3.0-or-later
"""Learning-rate schedules: torch's own scheduler, run ahead on the host.

A scheduler is stepped as often as training will, over a copy of the optimizer's options; the rates
that it sets become a table in double precision (`schedule.table_of`), one per parameter group, that
the program gathers from by STEP. So any scheduler works whose rates follow from the count of steps
alone.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, Final

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from protocol.errors import TraceError
from protocol.tracing.schedule import LONGEST_TABLE, OnStep, table_of

OWN_NOTES: Final = frozenset({"params", "lr", "initial_lr", "max_lr", "min_lr", "swa_lr"})
"""Entries of a parameter group that a scheduler may write: its rate, and notes that no optimizer
reads."""


def learning_rates(
    optimizer: torch.optim.Optimizer, scheduler: LRScheduler, steps: int | None
) -> list[OnStep]:
    """Return each parameter group's learning rate as a formula of the step.

    Entry t is the rate of step t if `scheduler.step()` is called after each `optimizer.step()`, as
    torch's documentation says; the rate of step `steps - 1` holds for all later ones. Neither the
    optimizer nor the scheduler is changed. Raises TraceError, naming the scheduler, for one that
    belongs to another optimizer, that changes anything else than learning rates, or that needs the
    loss.
    """
    name = type(scheduler).__name__
    if isinstance(scheduler, ReduceLROnPlateau):
        raise TraceError(f"{name} follows the loss, so its rates are not known beforehand")
    if not isinstance(scheduler, LRScheduler):
        raise TraceError(f"scheduler must be one of torch.optim.lr_scheduler, not {name}")
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise TraceError(f"the {name} belongs to another optimizer than the one to be traced")
    if steps is None:
        raise TraceError(f"a {name} needs `steps`, the number of steps to tabulate its rates for")
    if not 1 <= steps <= LONGEST_TABLE:
        raise TraceError(f"rates can be tabulated for 1 to {LONGEST_TABLE} steps, not {steps}")
    ahead = _copy(optimizer, scheduler)
    options = [_options(group) for group in ahead.optimizer.param_groups]
    rates: list[list[float]] = [[] for _ in options]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer has not been stepped
        for step in range(steps):
            if step:
                _advance(ahead, step)
            for group, before, found in zip(
                ahead.optimizer.param_groups, options, rates, strict=True
            ):
                found.append(float(group["lr"]))
                _check_unchanged(name, before, _options(group))
    return [table_of(found) for found in rates]


def _copy(optimizer: torch.optim.Optimizer, scheduler: LRScheduler) -> LRScheduler:
    """Return a scheduler over an optimizer of its own, which shares the parameters."""
    shared: dict[int, Any] = {
        id(parameter): parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    shared[id(optimizer.state)] = {}  # no scheduler reads it, and it may be large
    try:
        return copy.deepcopy(scheduler, shared)
    except Exception as error:  # whatever a user's own scheduler holds
        raise TraceError(f"the {type(scheduler).__name__} cannot be copied: {error}") from error


def _advance(ahead: LRScheduler, step: int) -> None:
    try:
        ahead.step()
    except Exception as error:  # it ends there, or a user's function fails
        name = type(ahead).__name__
        raise TraceError(f"the {name} gives no rate for step {step}: {error}") from error


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in OWN_NOTES}


def _check_unchanged(name: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in after.items():
        if before.get(key, value) != value:
            hint = "; pass cycle_momentum=False" if key in ("betas", "momentum") else ""
            raise TraceError(f"the {name} changes {key}, and only learning rates can change{hint}")
