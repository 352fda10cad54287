# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast this machine is at a task: one step from the initial state, and one root."""

from __future__ import annotations

import time
from collections.abc import Callable

from protocol.bundle import Bundle
from protocol.commitments import state_root
from protocol.execution import Executor
from protocol.feasibility import Speed

QUICK = 1.0
"""Seconds. A step that is quicker is done once more: the first one also fills caches."""


def measure(bundle: Bundle, executor: Executor) -> Speed:
    """Return the speed of a task's program on this machine, measured once.

    Nothing of the bundle is changed. Raises whatever the executor does.
    """
    state = [tensor.copy() for tensor in bundle.state]
    step = _seconds(lambda: executor.update(state, 0))
    if step < QUICK:
        step = min(step, _seconds(lambda: executor.update(state, 0)))
    return Speed.measured(bundle.program, step, _seconds(lambda: state_root(state)))


def _seconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began
