# SPDX-License-Identifier: GPL-3.0-or-later
"""Standing asks that anybody may enter, declining what they won, and tasks for a named solver."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.task import Status
from tests.market_chain import Done
from tests.market_driver import (
    BUDGET,
    FUNDS,
    NOBODY,
    RIVAL,
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    SUBMITTER,
    Task,
    World,
    fresh_world,
    raw,
)

PRICE = 5  # of a unit of work
ASKED = PRICE * SPEC.work
STAKE_UNITS = SPEC.solver_stake // 10**9


@pytest.fixture
def world() -> World:
    return fresh_world()


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


# Asks.


def test_an_ask_says_price_capacity_memory_and_stake(world: World) -> None:
    event = ask(world, capacity=3).event("AskSet")
    assert event == {
        "solver": "0x" + SOLVER.hex(),
        "price": PRICE,
        "capacity": 3,
        "memoryMiB": SPEC.memory_mib,
        "maxStake": STAKE_UNITS,
    }
    assert world.market.view("recordOf", SOLVER)[3:] == (3, SPEC.memory_mib, PRICE, STAKE_UNITS)
    assert world.free(SOLVER) == FUNDS  # an ask locks nothing


def test_anybody_enters_an_ask_which_locks_the_stake_and_uses_capacity(world: World) -> None:
    ask(world, capacity=2)
    task = world.post()
    done = task.call("enterAsk", SOLVER, sender=STRANGER)
    assert raw(done.event("AskEntered")["solver"]) == SOLVER
    assert done.event("BidRevealed")["price"] == ASKED
    assert (capacity(world), world.free(SOLVER)) == (1, FUNDS - SPEC.solver_stake)
    assert (raw(task.state.solver), task.state.by_ask) == (SOLVER, True)
    with world.refuses("AlreadyLeads", task.id, SOLVER):
        task.call("enterAsk", SOLVER)
    world.assert_solvent()


def test_an_ask_may_be_entered_until_the_last_second_for_sealing_bids(world: World) -> None:
    ask(world)
    task = world.post()
    world.wait_until(task.state.deadline)
    task.call("enterAsk", SOLVER)
    assert raw(task.state.solver) == SOLVER


def test_front_running_no_ask_underbids_revealed_bids_or_lowers_what_they_are_paid(
    world: World,
) -> None:
    ask(world)
    task = world.post()
    limit = task.state.deadline
    world.wait_beyond(limit)
    with world.refuses("TooLate", task.id, limit):
        task.call("enterAsk", SOLVER)
    world.wait_beyond(limit + SPEC.bid_window)
    with world.refuses("TooLate", task.id, limit):
        task.call("enterAsk", SOLVER)
    task.call("assign")
    with world.refuses("WrongStatus", task.id, Status.EXPIRED):
        task.call("enterAsk", SOLVER)


@pytest.mark.parametrize(
    "changes",
    [{"capacity": 0}, {"memory": SPEC.memory_mib - 1}, {"stake": STAKE_UNITS - 1}],
)
def test_an_ask_that_does_not_cover_the_task_is_refused(
    world: World, changes: dict[str, int]
) -> None:
    ask(world, **changes)
    task = world.post()
    with world.refuses("NoAsk", SOLVER):
        task.call("enterAsk", SOLVER)


def test_an_ask_above_the_budget_is_refused(world: World) -> None:
    ask(world)
    task = world.post(budget=ASKED - 1)
    with world.refuses("PriceAboveBudget", task.id, ASKED, ASKED - 1):
        task.call("enterAsk", SOLVER)
    task = world.post(budget=ASKED)
    task.call("enterAsk", SOLVER)
    assert task.state.price == ASKED


def test_an_ask_that_was_never_set_or_is_the_submitters_is_refused(world: World) -> None:
    task = world.post()
    with world.refuses("NoAsk", RIVAL):
        task.call("enterAsk", RIVAL)
    ask(world, SUBMITTER)
    with world.refuses("SubmitterMayNotBid", task.id):
        task.call("enterAsk", SUBMITTER)


def test_an_ask_whose_owner_has_no_free_money_is_refused(world: World) -> None:
    ask(world)
    task = world.post()
    world.send("withdraw", sender=SOLVER)
    with world.refuses("InsufficientBalance", SOLVER, SPEC.solver_stake, 0):
        task.call("enterAsk", SOLVER)


def test_capacity_bounds_the_tasks_that_an_ask_wins_and_comes_back_when_outbid(
    world: World,
) -> None:
    ask(world)
    first, second = world.post(), world.post()
    first.call("enterAsk", SOLVER)
    with world.refuses("NoAsk", SOLVER):
        second.call("enterAsk", SOLVER)
    ask(world, RIVAL, price=PRICE - 1)
    first.call("enterAsk", RIVAL)
    assert (capacity(world), capacity(world, RIVAL)) == (1, 0)
    assert (raw(first.state.solver), first.state.price) == (RIVAL, ASKED)
    assert world.free(SOLVER) == FUNDS
    second.call("enterAsk", SOLVER)
    assert capacity(world) == 0
    world.assert_solvent()


def test_an_ask_that_does_not_lead_keeps_its_capacity_and_bounds_the_price(world: World) -> None:
    task = world.post()
    ask(world, RIVAL, price=PRICE - 1)
    ask(world)
    task.call("enterAsk", RIVAL)
    task.call("enterAsk", SOLVER)
    assert (capacity(world), world.free(SOLVER)) == (1, FUNDS)
    state = task.state
    assert (raw(state.solver), state.price, state.by_ask) == (RIVAL, ASKED, True)


def test_an_ask_that_would_not_lead_must_be_able_to_all_the_same(world: World) -> None:
    task = world.post()
    ask(world, RIVAL, price=PRICE - 1)
    ask(world)
    task.call("enterAsk", RIVAL)
    world.send("withdraw", sender=SOLVER)
    with world.refuses("InsufficientBalance", SOLVER, SPEC.solver_stake, 0):
        task.call("enterAsk", SOLVER)
    assert task.state.price == BUDGET


def test_a_leading_ask_that_has_grown_to_the_most_there_is_cannot_stop_who_outbids_it(
    world: World,
) -> None:
    ask(world)
    task = world.post()
    task.call("enterAsk", SOLVER)
    ask(world, capacity=2**16 - 1)
    task.seal_bid(RIVAL, ASKED - 1)
    world.wait_beyond(task.state.deadline)
    task.reveal_bid(RIVAL, ASKED - 1)
    assert raw(task.state.solver) == RIVAL
    assert (capacity(world), world.free(SOLVER)) == (2**16 - 1, FUNDS)
    world.assert_solvent()


@pytest.mark.parametrize("sealed", [ASKED + 5, ASKED, ASKED - 5])
def test_nobody_lowers_the_price_of_a_sealed_bid_by_entering_its_bidders_own_ask(
    world: World, sealed: int
) -> None:
    ask(world)
    task = world.post()
    task.seal_bid(SOLVER, sealed)
    task.seal_bid(RIVAL, ASKED - 3)
    task.call("enterAsk", SOLVER, sender=STRANGER)
    world.wait_beyond(task.state.deadline)
    task.reveal_bid(SOLVER, sealed)
    assert (raw(task.state.solver), task.state.price) == (SOLVER, BUDGET)
    assert world.free(SOLVER) == FUNDS - SPEC.solver_stake  # the bond is back
    task.reveal_bid(RIVAL, ASKED - 3)
    wins = sealed < ASKED - 3
    price = ASKED - 3 if wins else ASKED
    assert (raw(task.state.solver), task.state.price) == (SOLVER if wins else RIVAL, price)
    assert capacity(world) == (0 if wins else 1)
    world.assert_solvent()


def test_a_sealed_bid_that_outbids_an_ask_is_no_ask(world: World) -> None:
    task = world.post()
    task.seal_bid(RIVAL, ASKED - 1)
    ask(world)
    task.call("enterAsk", SOLVER)
    world.wait_beyond(task.state.deadline)
    task.reveal_bid(RIVAL, ASKED - 1)
    assert (raw(task.state.solver), task.state.by_ask, capacity(world)) == (RIVAL, False, 1)
    world.wait_beyond(task.state.deadline + SPEC.bid_window)
    task.call("assign")
    with world.refuses("MayNotDecline", task.id):
        task.call("decline", sender=RIVAL)


# Declining.


STAKE_PART = SPEC.solver_stake // 16
LEAST_BOND = STAKE // 32


@pytest.mark.parametrize(("bond", "cost"), [(SPEC.bond, STAKE_PART), (LEAST_BOND, LEAST_BOND)])
def test_declining_burns_a_bond_or_less_empties_the_ask_and_begins_the_bidding_again(
    world: World, bond: int, cost: int
) -> None:
    task = won(world, bond=bond)
    ask(world, capacity=7)
    done = task.call("decline", sender=SOLVER)
    assert raw(done.event("Declined")["solver"]) == SOLVER
    assert done.event("Burned")["amount"] == cost
    assert (world.free(SOLVER), world.burned()) == (FUNDS - cost, cost)
    assert capacity(world) == 0
    state = task.state
    assert (raw(state.solver), state.price, state.by_ask) == (NOBODY, 0, False)
    assert state.status == Status.BIDDING
    assert state.deadline == world.evm.timestamp + SPEC.bid_window
    with world.refuses("NoAsk", SOLVER):
        task.call("enterAsk", SOLVER)
    world.assert_solvent()


def test_after_a_decline_a_whole_auction_follows(world: World) -> None:
    task = won(world)
    task.call("decline", sender=SOLVER)
    task.auction((RIVAL, 30), (SOLVER, 20))
    assert (raw(task.state.solver), task.state.price) == (SOLVER, 30)
    assert not task.state.by_ask
    with world.refuses("MayNotDecline", task.id):
        task.call("decline", sender=SOLVER)
    task.reach(Status.WINDOW)
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert task.state.status == Status.SETTLED
    world.assert_solvent()


def test_a_submitter_may_cancel_what_was_declined(world: World) -> None:
    task = won(world)
    task.call("decline", sender=SOLVER)
    free = world.free(SUBMITTER)
    task.call("cancel", sender=SUBMITTER)
    assert world.free(SUBMITTER) == free + SPEC.escrow
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
    with world.refuses("NotSolver", task.id, SOLVER):
        task.call("decline", sender=SOLVER)


def test_whoever_was_entered_may_leave_for_nothing_as_long_as_bids_may_be_sealed(
    world: World,
) -> None:
    ask(world)
    task = world.post()
    task.call("enterAsk", SOLVER)
    task.seal_bid(RIVAL, ASKED)
    with world.refuses("NotSolver", task.id, RIVAL):
        task.call("decline", sender=RIVAL)
    deadline = task.state.deadline
    world.wait_until(deadline)
    task.call("decline", sender=SOLVER)
    assert (world.free(SOLVER), world.burned(), capacity(world)) == (FUNDS, 0, 0)
    assert (raw(task.state.solver), task.state.deadline) == (NOBODY, deadline)
    world.assert_solvent()
    world.wait_beyond(deadline)
    task.reveal_bid(RIVAL, ASKED)
    assert (raw(task.state.solver), task.state.price) == (RIVAL, BUDGET)


def test_a_leading_ask_stays_while_bids_are_revealed(world: World) -> None:
    ask(world)
    task = world.post()
    task.call("enterAsk", SOLVER)
    deadline = task.state.deadline
    world.wait_beyond(deadline)
    with world.refuses("TooLate", task.id, deadline):
        task.call("decline", sender=SOLVER)


def test_a_sealed_bid_that_leads_cannot_be_declined(world: World) -> None:
    task = world.post()
    task.seal_bid(RIVAL, ASKED)
    world.wait_beyond(task.state.deadline)
    task.reveal_bid(RIVAL, ASKED)
    with world.refuses("MayNotDecline", task.id):
        task.call("decline", sender=RIVAL)


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
