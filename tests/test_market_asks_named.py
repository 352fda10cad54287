# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks whose terms name their solver, which takes them without an auction."""

from __future__ import annotations

import pytest

from protocol.task import Status
from tests.market_driver import (
    BUDGET,
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    SUBMITTER,
    World,
    fresh_world,
    raw,
)
from tests.market_world import MIN_WINDOW

NAMED = "0x" + SOLVER.hex()


@pytest.fixture
def world() -> World:
    return fresh_world()


def test_a_named_solver_takes_the_task_for_the_whole_budget(world: World) -> None:
    task = world.post(solver=NAMED)
    world.wait_until(task.state.deadline)
    with world.refuses("NotSolver", task.id, RIVAL):
        task.call("accept", sender=RIVAL)
    event = task.call("accept", sender=SOLVER).event("Assigned")
    assert (raw(event["solver"]), event["price"]) == (SOLVER, BUDGET)
    assert task.state.deadline == world.evm.timestamp + SPEC.train_window
    assert world.free(SOLVER) == FUNDS - SPEC.solver_stake
    with world.refuses("WrongStatus", task.id, Status.TRAINING):
        task.call("accept", sender=SOLVER)
    task.reach(Status.WINDOW)
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert world.free(SOLVER) == FUNDS + BUDGET
    world.assert_solvent()


def test_a_task_for_a_named_solver_has_no_auction(world: World) -> None:
    task = world.post(solver=NAMED)
    world.send("setAsk", 1, 1, SPEC.memory_mib, 2**48 - 1, sender=RIVAL)
    for function, arguments in (("bid", [b"\1" * 32]), ("enterAsk", [RIVAL])):
        with world.refuses("NotAuctioned", task.id, SOLVER):
            task.call(function, *arguments, sender=RIVAL)
    with world.refuses("NotSolver", task.id, SOLVER):
        task.append(1)  # it has not accepted


def test_a_named_solver_accepts_in_time_with_its_stake_and_not_when_slashed(world: World) -> None:
    task = world.post(solver=NAMED)
    deadline = task.state.deadline
    mark = world.evm.mark()
    world.wait_beyond(deadline)
    with world.refuses("TooLate", task.id, deadline):
        task.call("accept", sender=SOLVER)
    world.evm.back(mark)
    world.send("withdraw", sender=SOLVER)
    with world.refuses("InsufficientBalance", SOLVER, SPEC.solver_stake, 0):
        task.call("accept", sender=SOLVER)
    world.evm.back(mark)
    late = world.post(bid_window=MIN_WINDOW, train_window=MIN_WINDOW).auction((SOLVER, 3))
    world.wait_beyond(late.state.deadline)
    late.call("defaulted")
    task = world.post(solver=NAMED)
    with world.refuses("RecentlySlashed", SOLVER, world.evm.timestamp + 30 * 86_400):
        task.call("accept", sender=SOLVER)


def test_a_named_solver_that_does_not_accept_leaves_the_submitter_its_money(world: World) -> None:
    task = world.post(solver=NAMED)
    world.wait_beyond(task.state.deadline + SPEC.bid_window)
    task.call("assign")
    assert task.state.status == Status.EXPIRED
    assert world.free(SUBMITTER) == FUNDS + SPEC.escrow
    world.assert_solvent()


def test_an_auctioned_task_cannot_be_accepted(world: World) -> None:
    task = world.post()
    with world.refuses("NotSolver", task.id, SOLVER):
        task.call("accept", sender=SOLVER)
