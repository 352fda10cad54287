# SPDX-License-Identifier: GPL-3.0-or-later
"""Standing asks that anybody may enter, declining what they won, and tasks for a named solver."""

from __future__ import annotations

import pytest

from protocol.task import Status
from tests.market_asks import ASKED, PRICE, STAKE_UNITS, ask, capacity
from tests.market_driver import (
    BUDGET,
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    STRANGER,
    SUBMITTER,
    World,
    fresh_world,
    raw,
)


@pytest.fixture
def world() -> World:
    return fresh_world()


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


def test_anybody_enters_an_ask_in_the_first_half_and_its_owner_until_the_last_second(
    world: World,
) -> None:
    ask(world)
    task = world.post()
    mark, end = world.evm.mark(), task.state.deadline
    half = end - SPEC.bid_window // 2
    world.wait_until(half)
    task.call("enterAsk", SOLVER)
    assert raw(task.state.solver) == SOLVER
    world.evm.back(mark)
    world.wait_beyond(half)
    with world.refuses("TooLate", task.id, half):
        task.call("enterAsk", SOLVER)
    world.wait_until(end)
    task.call("enterAsk", SOLVER, sender=SOLVER)
    assert raw(task.state.solver) == SOLVER
    world.evm.back(mark)
    world.wait_beyond(end)
    with world.refuses("TooLate", task.id, end):
        task.call("enterAsk", SOLVER, sender=SOLVER)


def test_front_running_no_ask_underbids_revealed_bids_or_lowers_what_they_are_paid(
    world: World,
) -> None:
    ask(world)
    task = world.post()
    limit = task.state.deadline
    world.wait_beyond(limit)
    with world.refuses("TooLate", task.id, limit):
        task.call("enterAsk", SOLVER, sender=SOLVER)
    world.wait_beyond(limit + SPEC.bid_window)
    with world.refuses("TooLate", task.id, limit):
        task.call("enterAsk", SOLVER, sender=SOLVER)
    task.call("assign")
    with world.refuses("WrongStatus", task.id, Status.EXPIRED):
        task.call("enterAsk", SOLVER, sender=SOLVER)


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


def test_an_ask_whose_owner_has_just_the_stake_is_entered(world: World) -> None:
    ask(world)
    task, stake = world.post(), SPEC.solver_stake
    world.send("withdraw", sender=SOLVER)
    world.send("deposit", sender=SOLVER, value=stake - 1)
    with world.refuses("InsufficientBalance", SOLVER, stake, stake - 1):
        task.call("enterAsk", SOLVER)
    world.send("deposit", sender=SOLVER, value=1)
    task.call("enterAsk", SOLVER)
    assert (raw(task.state.solver), world.free(SOLVER)) == (SOLVER, 0)


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
    assert capacity(world) == 1  # if it won, it was not by its ask
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
