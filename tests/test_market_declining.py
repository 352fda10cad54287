# SPDX-License-Identifier: GPL-3.0-or-later
"""Declining what a standing ask leads or has won."""

from __future__ import annotations

import pytest

from protocol.task import Status
from tests.market_asks import ASKED, PRICE, ask, capacity, won
from tests.market_driver import (
    BUDGET,
    FUNDS,
    NOBODY,
    RIVAL,
    SOLVER,
    SPEC,
    STAKE,
    SUBMITTER,
    WHISTLEBLOWER,
    World,
    fresh_world,
    raw,
)


@pytest.fixture
def world() -> World:
    return fresh_world()


STAKE_PART = SPEC.solver_stake // 16
LEAST_BOND = STAKE // 32


@pytest.mark.parametrize(("bond", "cost"), [(SPEC.bond, STAKE_PART), (LEAST_BOND, LEAST_BOND)])
def test_declining_what_it_has_won_burns_a_bond_or_less_empties_the_ask_and_ends_the_task(
    world: World, bond: int, cost: int
) -> None:
    task = won(world, bond=bond)
    ask(world, capacity=7)
    free = world.free(SUBMITTER)
    done = task.call("decline", sender=SOLVER)
    assert raw(done.event("Declined")["solver"]) == SOLVER
    assert done.event("Burned")["amount"] == cost
    assert done.event("TaskEnded")["reason"].rstrip(b"\0") == b"declined"
    assert (world.free(SOLVER), world.burned()) == (FUNDS - cost, cost)
    assert (world.free(SUBMITTER), capacity(world)) == (free + task.spec.escrow, 0)
    state = task.state
    assert (raw(state.solver), state.price, state.by_ask) == (NOBODY, 0, False)
    assert state.status == Status.EXPIRED
    world.assert_solvent()


def test_no_second_auction_begins_with_what_everybody_has_bid(world: World) -> None:
    task = world.post()
    ask(world)
    task.call("enterAsk", SOLVER)
    for bidder, price in ((RIVAL, ASKED + 1), (WHISTLEBLOWER, ASKED + 2)):
        task.seal_bid(bidder, price)
    world.wait_beyond(task.state.deadline)
    task.reveal_bid(RIVAL, ASKED + 1)
    world.wait_beyond(task.state.deadline + SPEC.bid_window)
    task.call("assign")
    task.call("decline", sender=SOLVER)
    for late in (
        lambda: task.seal_bid(RIVAL, ASKED),
        lambda: task.reveal_bid(WHISTLEBLOWER, ASKED + 2),
        lambda: task.call("enterAsk", SOLVER, sender=SOLVER),
    ):
        with world.refuses("WrongStatus", task.id, Status.EXPIRED):
            late()
    task.call("forfeitBid", WHISTLEBLOWER)
    assert world.burned() == SPEC.bond + STAKE_PART
    world.assert_solvent()


def test_an_ask_that_leaves_in_time_leaves_time_to_whom_it_has_outbid(world: World) -> None:
    task = world.post()
    ask(world)
    ask(world, RIVAL, price=PRICE - 1)
    task.call("enterAsk", SOLVER)
    task.call("enterAsk", RIVAL)
    last = task.state.deadline - SPEC.bid_window // 4
    world.wait_until(last)
    task.call("decline", sender=RIVAL)
    task.call("enterAsk", SOLVER, sender=SOLVER)
    assert raw(task.state.solver) == SOLVER
    world.assert_solvent()


def test_only_the_solver_declines_in_time_and_before_its_first_commitment(world: World) -> None:
    task = won(world)
    with world.refuses("NotSolver", task.id, RIVAL):
        task.call("decline", sender=RIVAL)
    mark, deadline = world.evm.mark(), task.state.deadline - SPEC.train_window // 2
    task.append(1)
    with world.refuses("MayNotDecline", task.id):
        task.call("decline", sender=SOLVER)
    world.evm.back(mark)
    world.wait_beyond(deadline)
    with world.refuses("TooLate", task.id, deadline):
        task.call("decline", sender=SOLVER)
    world.evm.back(mark)
    world.wait_until(deadline)
    task.call("decline", sender=SOLVER)
    with world.refuses("WrongStatus", task.id, Status.EXPIRED):
        task.call("decline", sender=SOLVER)


def test_whoever_was_entered_may_leave_for_nothing_in_three_quarters_of_the_time_for_sealing(
    world: World,
) -> None:
    ask(world)
    task = world.post()
    task.call("enterAsk", SOLVER)
    task.seal_bid(RIVAL, ASKED)
    with world.refuses("NotSolver", task.id, RIVAL):
        task.call("decline", sender=RIVAL)
    mark, deadline = world.evm.mark(), task.state.deadline
    last = deadline - SPEC.bid_window // 4
    for late in (last + 1, deadline, deadline + 1):
        world.evm.back(mark)
        world.wait_until(late)
        with world.refuses("TooLate", task.id, last):
            task.call("decline", sender=SOLVER)
    world.evm.back(mark)
    world.wait_until(last)
    task.call("decline", sender=SOLVER)
    assert (world.free(SOLVER), world.burned(), capacity(world)) == (FUNDS, 0, 0)
    assert (raw(task.state.solver), task.state.deadline) == (NOBODY, deadline)
    world.assert_solvent()
    world.wait_beyond(deadline)
    task.reveal_bid(RIVAL, ASKED)
    assert (raw(task.state.solver), task.state.price) == (RIVAL, BUDGET)


def test_a_sealed_bid_that_leads_cannot_be_declined(world: World) -> None:
    task = world.post()
    task.seal_bid(RIVAL, ASKED)
    world.wait_beyond(task.state.deadline)
    task.reveal_bid(RIVAL, ASKED)
    with world.refuses("MayNotDecline", task.id):
        task.call("decline", sender=RIVAL)


@pytest.mark.parametrize(("sealed", "by_ask"), [(ASKED - 1, False), (ASKED, True)])
def test_a_sealed_bid_that_is_lower_than_the_own_leading_ask_cannot_be_declined(
    world: World, sealed: int, by_ask: bool
) -> None:
    ask(world)
    task = world.post()
    task.seal_bid(SOLVER, sealed)
    task.call("enterAsk", SOLVER, sender=SOLVER)
    world.wait_beyond(task.state.deadline)
    task.reveal_bid(SOLVER, sealed)
    world.wait_beyond(task.state.deadline + task.spec.bid_window)
    task.call("assign")
    assert (task.state.by_ask, capacity(world)) == (by_ask, 0 if by_ask else 1)
    if by_ask:
        task.call("decline", sender=SOLVER)
        assert task.state.status == Status.EXPIRED
    else:
        with world.refuses("MayNotDecline", task.id):
            task.call("decline", sender=SOLVER)
    world.assert_solvent()


def test_an_ask_that_was_withdrawn_does_not_come_back(world: World) -> None:
    ask(world)
    task = world.post()
    task.call("enterAsk", SOLVER)
    world.send("setAsk", 0, 0, 0, 0, sender=SOLVER)
    ask(world, RIVAL, price=PRICE - 1)
    task.call("enterAsk", RIVAL)  # outbids it
    assert (capacity(world), world.free(SOLVER)) == (0, FUNDS)
    with world.refuses("NoAsk", SOLVER):
        task.call("enterAsk", SOLVER)
