# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealed bids: what is sealed, when it is revealed, and what becomes of the bond."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.task import Status, bid_digest
from tests.evm import CHAIN_ID
from tests.market_driver import (
    BUDGET,
    FUNDS,
    NOBODY,
    RIVAL,
    SOLVER,
    SPEC,
    STRANGER,
    SUBMITTER,
    Task,
    World,
    at,
    fresh_world,
    nonce,
    raw,
)
from tests.market_world import BLOCK_SECONDS

MONTH = 30 * 86_400
SEAL = b"\x07" * 32


@pytest.fixture
def world() -> World:
    return fresh_world()


def revealing(world: World, *bids: tuple[bytes, int], **changes: Any) -> Task:
    """A task with these bids sealed, in the time for revealing them."""
    task = world.post(**changes)
    for bidder, price in bids:
        task.seal_bid(bidder, price)
    world.wait_beyond(task.state.deadline)
    return task


def ended(task: Task) -> Task:
    """The task after the time for revealing."""
    task.world.wait_beyond(task.state.deadline + task.spec.bid_window)
    return task


def sealed(task: Task, bidder: bytes) -> bool:
    return bool(any(task.world.market.view("sealedBids", task.id, bidder)))


# Sealing.


def test_sealing_a_bid_locks_the_bond_and_tells_nobody_the_price(world: World) -> None:
    task = world.post()
    done = task.seal_bid(SOLVER, 5)
    assert raw(done.event("BidSealed")["solver"]) == SOLVER
    assert len(done.events) == 1
    assert world.free(SOLVER) == FUNDS - SPEC.bond
    assert raw(task.state.solver) == NOBODY
    world.assert_solvent()


def test_a_bid_binds_chain_market_task_sender_and_price(world: World) -> None:
    task = world.post()
    market = "0x" + world.market.address.hex()
    digest = world.market.view("bidDigest", task.id, SOLVER, 5, nonce(SOLVER))

    def client(
        chain: int = CHAIN_ID,
        where: str = market,
        number: int = task.id,
        who: bytes = SOLVER,
        price: int = 5,
    ) -> bytes:
        return bid_digest(chain, where, number, "0x" + who.hex(), price, nonce(SOLVER))

    assert client() == digest
    others = [client(chain=1), client(where="0x" + bytes(20).hex()), client(number=2)]
    assert digest not in [*others, client(who=RIVAL), client(price=6)]


def test_commitment_copying_a_rivals_sealed_bid_cannot_be_revealed(world: World) -> None:
    task = world.post()
    task.seal_bid(SOLVER, 5)
    task.call("bid", world.market.view("sealedBids", task.id, SOLVER), sender=RIVAL)
    world.wait_beyond(task.state.deadline)
    task.reveal_bid(SOLVER, 5)
    for word in (nonce(SOLVER), nonce(RIVAL)):
        with world.refuses("WrongSeal", task.id, RIVAL):
            task.call("revealBid", 5, word, sender=RIVAL)
    ended(task).call("forfeitBid", RIVAL)
    assert world.free(RIVAL) == FUNDS - SPEC.bond
    task.call("assign")
    assert (raw(task.state.solver), task.state.price) == (SOLVER, BUDGET)
    world.assert_solvent()


def test_bids_are_sealed_until_the_last_second_and_no_longer(world: World) -> None:
    task = world.post()
    deadline = task.state.deadline
    world.wait_until(deadline)
    task.seal_bid(SOLVER, 5)
    with world.refuses("TooEarly", task.id, deadline):
        task.reveal_bid(SOLVER, 5)
    world.wait_beyond(deadline)
    with world.refuses("TooLate", task.id, deadline):
        task.seal_bid(RIVAL, 4)


def test_a_bid_is_sealed_once_and_not_empty(world: World) -> None:
    task = world.post()
    with world.refuses("EmptySeal"):
        task.call("bid", bytes(32), sender=SOLVER)
    task.seal_bid(SOLVER, 5)
    with world.refuses("AlreadyBid", task.id, SOLVER):
        task.seal_bid(SOLVER, 4)


def test_the_submitter_cannot_bid(world: World) -> None:
    task = world.post()
    with world.refuses("SubmitterMayNotBid", task.id):
        task.seal_bid(SUBMITTER, 1)


def test_a_bid_without_the_bond_is_refused(world: World) -> None:
    task = world.post()
    world.send("withdraw", sender=SOLVER)
    with world.refuses("InsufficientBalance", SOLVER, SPEC.bond, 0):
        task.seal_bid(SOLVER, 1)


# Revealing.


def test_revealing_frees_the_bond_and_the_first_locks_its_stake(world: World) -> None:
    task = revealing(world, (SOLVER, 7))
    event = task.reveal_bid(SOLVER, 7).event("BidRevealed")
    assert (raw(event["solver"]), event["price"], event["score"]) == (SOLVER, 7, 7)
    assert world.free(SOLVER) == FUNDS - SPEC.solver_stake
    assert (raw(task.state.solver), task.state.price) == (SOLVER, BUDGET)
    assert not sealed(task, SOLVER)
    world.assert_solvent()


def test_bids_are_revealed_once_exactly_and_until_the_last_second(world: World) -> None:
    task = revealing(world, (SOLVER, 7), (RIVAL, 6))
    for price, word in ((6, nonce(SOLVER)), (7, nonce(RIVAL))):
        with world.refuses("WrongSeal", task.id, SOLVER):
            task.call("revealBid", price, word, sender=SOLVER)
    with world.refuses("WrongSeal", task.id, STRANGER):
        task.reveal_bid(STRANGER, 7)
    limit = task.state.deadline + SPEC.bid_window
    world.wait_until(limit)
    task.reveal_bid(SOLVER, 7)
    with world.refuses("WrongSeal", task.id, SOLVER):
        task.reveal_bid(SOLVER, 7)
    with world.refuses("TooEarly", task.id, limit):
        task.call("assign")
    world.wait_beyond(limit)
    with world.refuses("TooLate", task.id, limit):
        task.reveal_bid(RIVAL, 6)


def test_a_bid_above_the_budget_cannot_be_revealed(world: World) -> None:
    for price in (BUDGET + 1, 2**96 + 5, 2**256 - 1):
        task = revealing(world, (SOLVER, price))
        with world.refuses("PriceAboveBudget", task.id, price, BUDGET):
            task.reveal_bid(SOLVER, price)


def test_a_leading_bid_without_the_stake_is_refused(world: World) -> None:
    task = revealing(world, (SOLVER, 1), solver_stake=FUNDS + 1)
    with world.refuses("InsufficientBalance", SOLVER, FUNDS + 1, FUNDS):
        task.reveal_bid(SOLVER, 1)


def test_a_bid_that_does_not_lead_needs_no_stake(world: World) -> None:
    task = revealing(world, (SOLVER, 1), (RIVAL, 2), solver_stake=FUNDS)
    task.reveal_bid(SOLVER, 1)
    world.send("withdraw", sender=RIVAL)
    task.reveal_bid(RIVAL, 2)
    assert (raw(task.state.solver), task.state.price) == (SOLVER, 2)
    world.assert_solvent()


# Who may bid.


def slashed_at(world: World) -> int:
    """The solver defaults; when it did."""
    first = world.post().reach(Status.TRAINING)
    world.wait_beyond(first.state.deadline)
    first.call("defaulted")
    world.tasks.remove(first)
    return world.evm.timestamp


def test_a_slashed_solver_may_not_bid_for_a_month(world: World) -> None:
    until = slashed_at(world) + MONTH
    task = world.post(bid_window=86_400)
    for function, arguments in (("bid", [SEAL]), ("enterAsk", [SOLVER])):
        with world.refuses("RecentlySlashed", SOLVER, until):
            task.call(function, *arguments, sender=SOLVER)
    world.wait_until(until - 1)
    task = world.post(bid_window=86_400)
    with world.refuses("RecentlySlashed", SOLVER, until):
        task.seal_bid(SOLVER, 3)
    world.wait_until(until)
    task.seal_bid(SOLVER, 3)
    world.wait_beyond(task.state.deadline)
    task.reveal_bid(SOLVER, 3)
    assert raw(task.state.solver) == SOLVER


def test_a_solver_slashed_after_sealing_cannot_reveal_and_loses_the_bond(world: World) -> None:
    first = world.post().reach(Status.TRAINING)
    world.wait_until(first.state.deadline)
    task = world.post()
    task.seal_bid(SOLVER, 3)
    world.wait_beyond(first.state.deadline)
    first.call("defaulted")
    until = world.evm.timestamp + MONTH
    world.wait_beyond(task.state.deadline)
    with world.refuses("RecentlySlashed", SOLVER, until):
        task.reveal_bid(SOLVER, 3)
    burned = world.burned()
    ended(task).call("forfeitBid", SOLVER)
    assert world.burned() == burned + SPEC.bond


# Bonds of bids that were not revealed.


def test_an_unrevealed_bid_loses_its_bond_after_the_time_for_it(world: World) -> None:
    task = revealing(world, (SOLVER, 7), (RIVAL, 6))
    task.reveal_bid(SOLVER, 7)
    limit = task.state.deadline + SPEC.bid_window
    with world.refuses("WrongSeal", task.id, STRANGER):
        task.call("forfeitBid", STRANGER)
    world.wait_until(limit)
    with world.refuses("TooEarly", task.id, limit):
        task.call("forfeitBid", RIVAL)
    world.wait_beyond(limit)
    with world.refuses("WrongSeal", task.id, SOLVER):  # it is revealed
        task.call("forfeitBid", SOLVER)
    done = task.call("forfeitBid", RIVAL)
    assert raw(done.event("BidForfeited")["solver"]) == RIVAL
    assert done.event("Burned")["amount"] == SPEC.bond
    assert (world.free(RIVAL), world.burned()) == (FUNDS - SPEC.bond, SPEC.bond)
    with world.refuses("WrongSeal", task.id, RIVAL):
        task.call("forfeitBid", RIVAL)
    world.assert_solvent()


@pytest.mark.parametrize("status", [Status.TRAINING, Status.WINDOW, Status.EXPIRED])
def test_an_unrevealed_bond_burns_whenever_it_is_closed(world: World, status: Status) -> None:
    task = revealing(world, (SOLVER, 7), (RIVAL, 6))
    if status != Status.EXPIRED:
        task.reveal_bid(SOLVER, 7)
    ended(task).call("assign")
    if status == Status.WINDOW:
        task.reach(status)
    assert task.state.status == status
    task.call("forfeitBid", RIVAL)
    assert (world.free(RIVAL), world.burned()) == (FUNDS - SPEC.bond, SPEC.bond)
    world.assert_solvent()


def test_a_cancelled_task_gives_the_sealed_bids_their_bonds_back(world: World) -> None:
    task = world.post()
    task.seal_bid(SOLVER, 7)
    with world.refuses("TooEarly", task.id, task.state.deadline + SPEC.bid_window):
        task.call("forfeitBid", SOLVER)
    task.call("cancel", sender=SUBMITTER)
    world.assert_solvent()
    done = task.call("forfeitBid", SOLVER)
    assert done.event("Credited")["reason"].rstrip(b"\0") == b"bond"
    assert (world.free(SOLVER), world.burned()) == (FUNDS, 0)
    world.assert_solvent()


# The end of the bidding.


def test_assigning_starts_the_training_once_and_its_time_at_the_end_of_the_bidding() -> None:
    task = at(Status.BIDDING)
    task.seal_bid(SOLVER, 7)
    world, end = task.world, task.state.deadline + SPEC.bid_window
    world.wait_beyond(task.state.deadline)
    task.reveal_bid(SOLVER, 7)
    world.wait_until(end + 1_000)
    event = task.call("assign").event("Assigned")
    assert (raw(event["solver"]), event["price"]) == (SOLVER, BUDGET)
    assert event["deadline"] == task.state.deadline == end + SPEC.train_window
    for function, arguments in (("assign", []), ("bid", [SEAL]), ("revealBid", [1, SEAL])):
        with world.refuses("WrongStatus", task.id, Status.TRAINING):
            task.call(function, *arguments)
    world.assert_solvent()


def test_the_first_commitment_assigns_the_task_once_the_bidding_is_over(world: World) -> None:
    task = revealing(world, (SOLVER, 7), (RIVAL, 9))
    task.reveal_bid(SOLVER, 7)
    task.reveal_bid(RIVAL, 9)
    limit = task.state.deadline + SPEC.bid_window
    with world.refuses("TooEarly", task.id, limit):
        task.append(3)
    world.wait_beyond(limit)
    with world.refuses("NotSolver", task.id, RIVAL):
        task.append(3, sender=RIVAL)
    done = task.append(3)
    assert done.event("Assigned")["price"] == 9
    assert done.event("LogAppended")["size"] == 3
    assert (task.state.status, task.state.deadline) == (Status.TRAINING, limit + SPEC.train_window)
    world.assert_solvent()


def test_a_first_commitment_after_the_training_time_assigns_nothing(world: World) -> None:
    task = revealing(world, (SOLVER, 7))
    task.reveal_bid(SOLVER, 7)
    limit = task.state.deadline + SPEC.bid_window + SPEC.train_window
    world.wait_beyond(limit)
    with world.refuses("TooLate", task.id, limit):
        task.append(3)
    task.call("assign")
    task.call("defaulted")  # at once: its time ran from the end of the bidding
    assert task.state.status == Status.SLASHED
    world.assert_solvent()


def test_a_task_without_bids_expires_and_refunds(world: World) -> None:
    task = revealing(world, (SOLVER, 7))  # and it is not revealed
    limit, free = task.state.deadline + SPEC.bid_window, world.free(SUBMITTER)
    world.wait_until(limit)
    with world.refuses("TooEarly", task.id, limit):
        task.call("assign")
    world.wait(BLOCK_SECONDS)
    done = task.call("assign")
    assert done.event("TaskEnded")["reason"].rstrip(b"\0") == b"no bid"
    assert task.state.status == Status.EXPIRED
    assert world.free(SUBMITTER) == free + SPEC.escrow
    world.assert_solvent()
