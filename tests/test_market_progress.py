# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress windows: each is trained, audited, disputed and paid by itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from protocol.task import Status
from tests.market_driver import (
    BUDGET,
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    STAKE,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    World,
    at,
    fresh_world,
    raw,
    role,
)

WINDOW = 3  # segments: of eight, so that the windows have 3, 3 and 2
LEAST_STAKE = STAKE // 4
PRICE = BUDGET  # of a single bid


def settle(task: Task) -> int:
    """Settles the current progress window honestly; what the solver got."""
    task.reach(Status.WINDOW)
    task.world.wait_beyond(task.state.deadline)
    before = task.world.free(SOLVER)
    task.call("settle")
    return task.world.free(SOLVER) - before


def in_second_window() -> Task:
    """A task that is training for its second window."""
    task = at(Status.WINDOW, window_segments=WINDOW)
    settle(task)
    return task


def share(done: int) -> int:
    return PRICE * done // SPEC.segments


def test_each_window_is_paid_when_its_challenge_window_is_over() -> None:
    task = at(Status.WINDOW, window_segments=WINDOW)
    world = task.world
    deadline = task.state.deadline
    world.wait_until(deadline)
    with world.refuses("TooEarly", task.id, deadline):
        task.call("settle")
    attested = sorted(task.drawn)
    assert settle(task) == share(3)
    assert [world.free(v) - FUNDS + 2 * STAKE for v in attested] == [SPEC.verifier_fee] * 2
    state = task.state
    assert (state.status, state.settled, state.log_size) == (Status.TRAINING, 3, 4)
    assert state.paid == share(3) + 2 * SPEC.verifier_fee
    assert state.deadline == world.evm.timestamp + SPEC.train_window
    assert [world.slots(v) for v in VERIFIERS] == [2] * len(VERIFIERS)
    world.assert_solvent()
    assert settle(task) == share(6) - share(3)
    assert settle(task) == PRICE - share(6) + SPEC.solver_stake
    assert task.state.status == Status.SETTLED
    assert world.market.view("recordOf", SOLVER)[:2] == (1, 0)  # one task, not three
    world.assert_solvent()


def test_every_window_has_a_deadline_of_its_own() -> None:
    task = in_second_window()
    world, deadline = task.world, task.state.deadline
    world.wait_until(deadline)
    task.append(5)
    world.wait_beyond(deadline)
    with world.refuses("TooLate", task.id, deadline):
        task.append(7)
    paid, free = task.state.paid, world.free(SUBMITTER)
    task.call("defaulted")
    # What was paid stays paid, the rest goes back, and the whole stake burns.
    assert world.free(SUBMITTER) - free == task.spec.escrow - paid
    assert world.free(SOLVER) == FUNDS - SPEC.solver_stake + share(3)
    assert world.burned() == SPEC.solver_stake
    assert world.market.view("recordOf", SOLVER)[:2] == (0, 1)
    world.assert_solvent()


@pytest.mark.parametrize("ahead", [5, 7, 8, 9])
def test_no_window_takes_leaves_of_the_next_one(ahead: int) -> None:
    task = at(Status.TRAINING, window_segments=WINDOW)
    with task.world.refuses("WrongLogSize", task.id, ahead, 1, 4):
        task.append(ahead)
    task.append(4)
    assert task.state.status == Status.COMMITTED
    with task.world.refuses("WrongStatus", task.id, Status.COMMITTED):
        task.append(5)


@pytest.mark.parametrize("size", [1, 3, 4, 8, 9])
def test_a_log_that_shrinks_or_runs_ahead_in_a_later_window_is_refused(size: int) -> None:
    task = in_second_window()
    with task.world.refuses("WrongLogSize", task.id, size, 5, 7):
        task.append(size)


@pytest.mark.parametrize("leaf", [0, 1, 3])
def test_a_fork_of_a_window_that_was_paid_is_refused(leaf: int) -> None:
    task = in_second_window()
    task.claimed[leaf] = keccak(text="second thoughts")
    for size in (5, 7):
        with task.world.refuses("BadProof", task.id, "consistency"):
            task.append(size)


def test_another_solver_cannot_take_over_a_later_window() -> None:
    task = in_second_window()
    with task.world.refuses("NotSolver", task.id, RIVAL):
        task.append(7, sender=RIVAL)


def test_only_the_segments_of_the_window_are_drawn() -> None:
    task = at(Status.TRAINING, window_segments=WINDOW)
    for segments in ({0, 1, 2}, {3, 4, 5}, {6, 7}):
        mark, seen = task.world.evm.mark(), set()
        for block in range(12):
            task.world.evm.back(mark)
            task.world.wait(blocks=1 + block)
            task.reach(Status.STARTING)
            assert task.segments_drawn <= segments
            assert len(task.segments_drawn) == SPEC.samples
            seen |= task.segments_drawn
        assert seen == segments
        settle(task)


def test_seats_and_runs_begin_anew_and_rounds_go_on() -> None:
    task = at(Status.WINDOW, window_segments=WINDOW)
    assert (task.state.round, len(task.seats), task.state.first_run) == (1, 2, 0)
    for round_ in (2, 3):
        settle(task)
        state = task.state
        assert (state.seats, state.runs, state.first_run, state.retries) == (0, 0, 0, 0)
        assert (task.seats, task.all_runs) == ([], [])
        task.reach(Status.STARTING)
        assert task.state.round == round_
        assert {seat.round for seat in task.seats} == {run.round for run in task.runs} == {round_}
        # Who has attested an earlier window may be drawn again, and holds a new slot.
        assert len(task.seats) == SPEC.committee
    task.world.assert_solvent()


def test_rerolls_verifiers_are_drawn_from_those_of_the_windows_last_commitment() -> None:
    task = in_second_window()
    world = task.world
    mark = world.evm.mark()
    newcomer, late = role("newcomer"), role("late newcomer")
    drawn: set[bytes] = set()
    for block in range(12):
        world.evm.back(mark)
        world.fund(newcomer)
        world.send("registerVerifier", 64, sender=newcomer)
        world.wait(blocks=1 + block)
        task.append(7)
        assert (task.state.pool, task.state.committed_block) == (12 + 64, world.evm.number)
        world.fund(late)
        world.send("registerVerifier", 64, sender=late)
        task.draw()
        drawn |= set(task.drawn)
    assert newcomer in drawn  # it came after the first window, before the second was complete
    assert late not in drawn


def test_a_conviction_in_a_later_window_leaves_what_was_paid_and_takes_the_stake() -> None:
    task = in_second_window().reach(Status.WINDOW)
    world, paid = task.world, task.state.paid
    solver, submitter = world.free(SOLVER), world.free(SUBMITTER)
    dispute = task.whistle(WHISTLEBLOWER, 4)
    world.wait_beyond(task.state.deadline)
    with world.refuses("StillOpen", task.id, 1):
        task.call("settle")
    world.decide(dispute, convicted=True)
    task.punish()
    assert task.state.status == Status.SLASHED
    assert world.free(SOLVER) == solver == FUNDS - SPEC.solver_stake + share(3)
    compensation = SPEC.solver_stake // 5
    assert world.free(SUBMITTER) - submitter == task.spec.escrow - paid + compensation
    assert world.free(WHISTLEBLOWER) == FUNDS + SPEC.solver_stake * 2 // 5
    assert world.burned() == SPEC.solver_stake * 2 // 5
    assert [world.slots(v) for v in VERIFIERS] == [2] * len(VERIFIERS)
    world.assert_solvent()


def test_a_segment_of_a_window_that_was_paid_may_still_be_disputed_in_a_later_one() -> None:
    task = in_second_window().reach(Status.WINDOW)
    dispute = task.whistle(WHISTLEBLOWER, 1)
    task.world.decide(dispute, convicted=True)
    task.punish()
    assert task.state.status == Status.SLASHED
    task.world.assert_solvent()


def test_bonds_lost_in_an_early_window_wait_for_the_last_one() -> None:
    task = at(Status.WINDOW, window_segments=WINDOW)
    dispute = task.whistle(WHISTLEBLOWER, 1)
    task.world.decide(dispute, convicted=False)
    kept = SPEC.bond // 2
    assert task.state.forfeited == kept
    assert settle(task) == share(3)
    assert task.state.forfeited == kept
    settle(task)
    assert settle(task) == PRICE - share(6) + SPEC.solver_stake + kept
    task.world.assert_solvent()


def play(world: World, steps: int, segment_steps: int, window: int, price: int) -> list[int]:
    """A whole honest task; what each of its windows paid the solver."""
    spec = {"steps": steps, "segment_steps": segment_steps, "window_segments": window}
    task = world.post(**spec, samples=1, budget=max(price, 1), solver_stake=LEAST_STAKE)
    task.seal_bid(SOLVER, 0)
    task.seal_bid(RIVAL, price)
    world.wait_beyond(task.state.deadline)
    task.reveal_bid(SOLVER, 0)
    task.reveal_bid(RIVAL, price)  # which is what the other is paid
    world.wait_beyond(task.state.deadline + SPEC.bid_window)
    paid = []
    while not task.state.status.final:
        size = task.spec.complete(task.state.settled)
        task.append(size)
        paid.append(settle(task))
        world.assert_solvent()
    assert raw(task.state.solver) == SOLVER
    return paid


@pytest.mark.slow
@given(data=st.data())
def test_the_shares_of_windows_of_any_size_add_up_to_the_price(data: st.DataObject) -> None:
    segments = data.draw(st.integers(1, 9), "segments")
    window = data.draw(st.integers(max(1, -(-segments // 4)), segments), "window")
    segment_steps = data.draw(st.integers(1, 4), "steps of a segment")
    least = max(segment_steps, (segments - 1) * segment_steps + 1)
    steps = data.draw(st.integers(least, segments * segment_steps), "steps")
    price = data.draw(st.one_of(st.integers(0, 50), st.integers(0, 10**19)), "price")
    world = fresh_world()
    paid = play(world, steps, segment_steps, window, price)
    paid[-1] -= LEAST_STAKE
    marks = [*range(0, segments, window), segments]
    # Cumulative shares, rounded down: none depends on how the windows before it were cut.
    assert paid == [price * b // segments - price * a // segments for a, b in pairwise(marks)]
    assert sum(paid) == price
    assert world.free(SOLVER) == FUNDS + price
