# SPDX-License-Identifier: GPL-3.0-or-later
"""Standing asks that just fit the tests' terms."""

from __future__ import annotations

from typing import Any

from tests.market_chain import Done
from tests.market_driver import SOLVER, SPEC, Task, World

PRICE = 5  # of a unit of work
ASKED = PRICE * SPEC.work
STAKE_UNITS = SPEC.solver_stake // 10**9


def ask(
    world: World,
    solver: bytes = SOLVER,
    *,
    price: int = PRICE,
    capacity: int = 1,
    memory: int = SPEC.memory_mib,
    stake: int = STAKE_UNITS,
) -> Done:
    """Sets a standing ask that SPEC just fits."""
    return world.send("setAsk", price, capacity, memory, stake, sender=solver)


def capacity(world: World, solver: bytes = SOLVER) -> int:
    return int(world.market.view("recordOf", solver)[3])


def won(world: World, **changes: Any) -> Task:
    """A task that the solver's ask has won, before its first commitment."""
    ask(world)
    task = world.post(**changes)
    task.call("enterAsk", SOLVER)
    world.wait_beyond(task.state.deadline + task.spec.bid_window)
    task.call("assign")
    return task
