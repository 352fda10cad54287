# SPDX-License-Identifier: GPL-3.0-or-later
"""The way out of every status that anybody may take, since no silence freezes money."""

from __future__ import annotations

import pytest

from protocol.task import SeatState, Status
from tests.market_cheats import REWARD, cheated
from tests.market_drain import drain, everybody_out
from tests.market_driver import (
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    STAKE,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    at,
    fresh_world,
    raw,
    states,
)

LIVE = list(Status)[1:8]


def assert_nothing_is_held(task: Task) -> None:
    """All wei is free, or in a slot of a verifier, or burned; and everybody can take it out."""
    world, state = task.world, task.state
    world.assert_solvent()
    assert state.status.final
    assert (state.forfeited, state.open) == (0, 0)
    slots = sum(world.slots(v) for v in VERIFIERS) * STAKE
    burned = world.burned()
    assert world.evm.balance(world.market.address) == slots + burned + sum(
        world.free(p) for p in world.people
    )
    everybody_out(world)


@pytest.mark.parametrize("status", LIVE)
def test_no_deadline_is_the_solvers_default_before_it_is_over(status: Status) -> None:
    task = at(status)
    deadline = task.state.deadline
    expected = {
        Status.TRAINING: ("TooEarly", task.id, deadline),
        Status.STARTING: ("TooEarly", task.id, deadline),
        Status.SEALING: ("NoDefault", task.id),
        Status.COMMITTED: ("NoDefault", task.id),
    }.get(status, ("WrongStatus", task.id, status))
    for _ in range(2):
        with task.world.refuses(*expected):
            task.call("defaulted")
        task.world.wait_until(deadline)


def test_a_solver_that_opens_no_ends_has_a_window_of_its_own_before_it_defaults() -> None:
    task = at(Status.SEALING)
    world, last = task.world, task.state.deadline + SPEC.audit_window
    for verifier in task.drawn:
        task.seal(verifier)
    world.wait_until(last)
    with world.refuses("TooEarly", task.id, last):
        task.call("defaulted")
    mark = world.evm.mark()
    task.open_ends()
    world.evm.back(mark)
    world.wait_beyond(last)
    with world.refuses("TooLate", task.id, last):
        task.open_ends()
    task.call("defaulted")
    assert world.free(SOLVER) == FUNDS - SPEC.solver_stake
    assert world.market.view("recordOf", SOLVER)[:2] == (0, 1)
    assert_nothing_is_held(task)


def test_who_did_not_seal_is_slashed_although_the_solver_opens_no_ends() -> None:
    task = at(Status.SEALING, committee=3)
    world, (*diligent, idle) = task.world, task.drawn
    for verifier in diligent:
        task.seal(verifier)
    world.wait_beyond(task.state.deadline + SPEC.audit_window)
    done = task.call("defaulted")
    assert raw(done.event("VerifierSlashed")["verifier"]) == idle
    assert states(task) == [SeatState.SEALED, SeatState.SEALED, SeatState.SLASHED]
    assert [world.slots(verifier) for verifier in task.drawn] == [2, 2, 1]
    assert [world.free(v) for v in diligent] == [world.free(idle) + SPEC.verifier_fee] * 2
    assert_nothing_is_held(task)


@pytest.mark.parametrize("bids", [0, 1, 2])
def test_a_bidding_that_all_forget_ends_by_a_stranger(bids: int) -> None:
    task = fresh_world().post()
    for bidder in (SOLVER, RIVAL)[:bids]:
        task.seal_bid(bidder, 10**18)
    task.world.wait_beyond(task.state.deadline)
    if bids == 2:
        task.reveal_bid(SOLVER, 10**18)
    drain(task)
    assert task.state.status == (Status.SLASHED if bids == 2 else Status.EXPIRED)
    lost = {0: 0, 1: SPEC.bond, 2: SPEC.bond + SPEC.solver_stake}[bids]
    assert task.world.burned() == lost
    assert_nothing_is_held(task)


@pytest.mark.parametrize(
    ("status", "seals", "end"),
    [
        (Status.TRAINING, 0, Status.SLASHED),
        (Status.COMMITTED, 0, Status.SLASHED),
        (Status.STARTING, 0, Status.SLASHED),
        # A redraw needs the solver again, whose silence costs the stake,
        (Status.SEALING, 0, Status.SLASHED),
        # but a replacement does not.
        (Status.SEALING, 1, Status.EXPIRED),
        (Status.SEALING, 2, Status.SLASHED),
        (Status.REVEALING, 0, Status.SLASHED),
        (Status.WINDOW, 0, Status.SETTLED),
    ],
)
def test_nobodys_silence_freezes_money(status: Status, seals: int, end: Status) -> None:
    task = at(status)
    for verifier in task.drawn[:seals]:
        task.seal(verifier)
    drain(task)
    assert task.state.status == end
    assert_nothing_is_held(task)


@pytest.mark.parametrize("status", LIVE)
def test_silence_in_a_later_progress_window_freezes_no_money(status: Status) -> None:
    first = Status.TRAINING if status == Status.BIDDING else status
    task = at(Status.WINDOW, window_segments=3, second_audit=128)
    task.world.wait_beyond(task.state.deadline)
    task.call("settle")
    task.reach(first)
    drain(task)
    paid = task.state.price * 3 // 8 if first != Status.WINDOW else task.state.price * 6 // 8
    assert task.world.free(SOLVER) >= FUNDS - SPEC.solver_stake + paid
    assert_nothing_is_held(task)


def test_a_missed_draw_that_nobody_makes_ends_by_a_stranger() -> None:
    task = at(Status.COMMITTED)
    task.world.wait(blocks=300, seconds=30 * 86_400)
    drain(task)
    assert task.state.status == Status.SLASHED
    assert_nothing_is_held(task)


@pytest.mark.parametrize("convicted", [False, True])
def test_open_disputes_end_a_task_whatever_their_verdicts(convicted: bool) -> None:
    task = cheated()
    for segment in range(3):
        task.whistle(WHISTLEBLOWER, segment)
    run = task.runs[0]
    task.whistle(RIVAL, run.first, run.count, attestor=0)
    task.challenge(task.drawn[-1])
    task.seal_challenge(RIVAL, 1)
    drain(task, lambda dispute: convicted)
    assert task.state.status == (Status.SLASHED if convicted else Status.SETTLED)
    assert (task.seats[0].state == SeatState.SLASHED) == convicted
    assert_nothing_is_held(task)


def test_a_winner_is_rewarded_also_if_a_stranger_ends_the_task() -> None:
    task = cheated()
    honest = task.drawn[-1]
    free = task.world.free(honest)
    dispute = task.challenge(honest)
    drain(task, lambda number: number == dispute)
    assert task.world.free(honest) == free + REWARD + SPEC.verifier_fee
    assert_nothing_is_held(task)
