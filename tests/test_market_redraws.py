# SPDX-License-Identifier: GPL-3.0-or-later
"""Audits that fail: replacements, redraws, and the end after the last of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.task import SeatState, Status
from tests.market_chain import label
from tests.market_driver import (
    FUNDS,
    SOLVER,
    SPEC,
    STAKE,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    Task,
    at,
)


def silent_round(task: Task) -> None:
    """Nobody seals; anybody asks for a new draw."""
    task.reach(Status.SEALING)
    task.world.wait_beyond(task.state.deadline)
    task.call("redraw")


def garbage_window(task: Task) -> None:
    """Every verifier seals garbage and never reveals, until the window is over."""
    task.reach(Status.SEALING)
    for verifier in task.drawn:
        task.seal(verifier, [])
    task.open_ends()
    task.world.wait_beyond(task.state.deadline)
    task.call("openWindow")
    task.world.wait_beyond(task.state.deadline)


def garbage_round(task: Task) -> None:
    """The same, and anybody asks for a new draw."""
    garbage_window(task)
    task.call("redraw")


def drawn_after_garbage(task: Task) -> set[int]:
    """All that 25 different blocks draw in the next round."""
    garbage_window(task)
    world, mark, seen = task.world, task.world.evm.mark(), set()
    for block in range(25):
        world.evm.back(mark)
        world.wait(blocks=1 + block)
        task.call("redraw")
        task.draw()
        seen |= task.segments_drawn
    return seen


def unavailable_round(task: Task) -> None:
    """No verifier gets the start states."""
    task.reach(Status.SEALING)
    for verifier in task.drawn:
        task.plain("reportUnavailable", task.seat(verifier), sender=verifier)
    task.call("redraw")


def stateless_round(task: Task) -> None:
    """No verifier gets the final state."""
    task.reach(Status.REVEALING)
    for verifier in task.drawn:
        task.reveal(verifier, receipt=bytes(32))
    task.world.wait_beyond(task.state.deadline)
    task.call("redraw")


ROUNDS = (silent_round, garbage_round, unavailable_round, stateless_round)
HARMLESS = (unavailable_round, stateless_round)


# When.


def test_a_redraw_is_due_when_nobody_sealed_in_time() -> None:
    task = at(Status.SEALING)
    world, drawn, deadline = task.world, task.drawn, task.state.deadline
    with world.refuses("TooEarly", task.id, deadline):
        task.call("redraw")
    world.wait_beyond(deadline)
    burned = world.burned()
    done = task.call("redraw")
    assert len(done.all("VerifierSlashed")) == 2
    assert world.burned() == burned + 2 * STAKE
    assert [world.slots(v) for v in drawn] == [1, 1]
    state = task.state
    assert (state.status, state.round, state.retries, task.drawn) == (Status.COMMITTED, 2, 1, [])
    assert state.draw_block == world.evm.number + 1
    assert state.deadline == world.evm.timestamp + SPEC.audit_window
    with world.refuses("WrongStatus", task.id, Status.COMMITTED):
        task.call("redraw")
    world.assert_solvent()
    task.draw()
    assert not set(task.drawn) & set(drawn)


def test_no_redraw_while_enough_have_sealed_or_attested() -> None:
    task = at(Status.SEALING)
    world, deadline = task.world, task.state.deadline
    for verifier in task.drawn:
        with world.refuses("TooEarly", task.id, deadline):
            task.call("redraw")
        task.seal(verifier)
    for _ in range(2):
        with world.refuses("WrongStatus", task.id, Status.SEALING):
            task.call("redraw")
        world.wait_beyond(deadline)
    task = at(Status.WINDOW)
    with task.world.refuses("TooEarly", task.id, task.state.deadline):
        task.call("redraw")
    task.world.wait_beyond(task.state.deadline)
    with task.world.refuses("AlreadyAttested", task.id):
        task.call("redraw")


@pytest.mark.parametrize("status", [s for s in list(Status)[1:8] if s not in (5, 7)])
def test_no_redraw_in_any_other_status(status: Status) -> None:
    task = at(status)
    task.world.wait(30 * 86_400)
    with task.world.refuses("WrongStatus", task.id, status):
        task.call("redraw")


def test_who_has_sealed_waits_for_a_replacement_that_replays_the_same_runs() -> None:
    task = at(Status.SEALING)
    world, (diligent, silent), runs = task.world, task.drawn, task.runs
    task.seal(diligent)
    world.wait_beyond(task.state.deadline)
    done = task.call("redraw")
    assert len(done.all("VerifierSlashed")) == 1
    assert world.slots(silent) == 1
    done = task.draw()
    drawn = done.event("Drawn")
    assert (drawn["round"], len(drawn["verifiers"]), task.runs) == (1, 1, runs)
    # The starts are open already: the replacement may seal at once.
    state = task.state
    assert (state.status, state.deadline) == (
        Status.SEALING,
        world.evm.timestamp + SPEC.audit_window,
    )
    assert [seat.state for seat in task.seats] == [
        SeatState.SEALED,
        SeatState.SLASHED,
        SeatState.DRAWN,
    ]
    replacement = task.drawn[-1]
    assert replacement not in (diligent, silent)
    world.assert_solvent()
    task.seal(replacement)
    task.open_ends()
    for verifier in (diligent, replacement):
        task.reveal(verifier)
    task.reach(Status.SETTLED)
    assert world.free(diligent) == world.free(replacement) == FUNDS - 2 * STAKE + SPEC.verifier_fee
    assert [world.slots(v) for v in (diligent, silent, replacement)] == [2, 1, 2]
    world.assert_solvent()


def test_lazy_replacements_do_not_go_on_without_end() -> None:
    task = at(Status.SEALING)
    world, diligent = task.world, task.drawn[0]
    task.seal(diligent)
    for _ in range(2):
        world.wait_beyond(task.state.deadline)
        task.call("redraw")
        task.draw()
        world.assert_solvent()
    world.wait_beyond(task.state.deadline)
    done = task.call("redraw")
    assert done.event("TaskEnded")["reason"] == label("no attestation")
    assert (world.slots(diligent), world.free(SOLVER)) == (2, FUNDS)
    world.assert_solvent()


# What is drawn.


def test_withholding_starts_shakes_off_no_drawn_segment() -> None:
    task = at(Status.SEALING)
    world, before = task.world, task.segments_drawn
    for verifier in task.drawn:
        task.plain("reportUnavailable", task.seat(verifier), sender=verifier)
    mark = world.evm.mark()
    sizes = set()
    for block in range(12):
        world.evm.back(mark)
        world.wait(blocks=1 + block)
        task.call("redraw")  # at once: nobody is left that could seal
        task.draw()
        assert before <= task.segments_drawn
        sizes.add(len(task.segments_drawn))
        assert len({run.first for run in task.runs}) == len(task.runs)
    assert sizes == {3}
    world.assert_solvent()


def test_what_was_audited_is_never_audited_again() -> None:
    task = at(Status.SEALING)
    audited = task.segments_drawn
    seen = drawn_after_garbage(task)
    assert seen == set(range(8)) - audited


# How it ends.


@pytest.mark.parametrize("play", HARMLESS)
def test_verifiers_that_could_not_get_the_bytes_lose_nothing_in_any_round(
    play: Callable[[Task], None],
) -> None:
    task = at(Status.SEALING, samples=1)
    world = task.world
    for _ in range(3):
        play(task)
        assert [world.slots(v) for v in VERIFIERS] == [2] * len(VERIFIERS)
        world.assert_solvent()
    assert task.state.status == Status.EXPIRED


@pytest.mark.parametrize("play", ROUNDS)
def test_three_rounds_without_attestation_expire_and_return_stake_and_escrow(
    play: Callable[[Task], None],
) -> None:
    task = at(Status.SEALING, samples=1)
    world, free = task.world, task.world.free(SUBMITTER)
    slots = sum(world.slots(v) for v in VERIFIERS) + 2
    for expected in (Status.COMMITTED, Status.COMMITTED, Status.EXPIRED):
        play(task)
        assert task.state.status == expected
        world.assert_solvent()
    assert world.free(SUBMITTER) == free + task.spec.escrow
    assert world.free(SOLVER) == FUNDS
    lost = 0 if play in HARMLESS else 6
    assert sum(world.slots(v) for v in VERIFIERS) == slots - lost
    assert world.burned() == lost * STAKE
    with world.refuses("WrongStatus", task.id, Status.EXPIRED):
        task.call("redraw")


def test_a_redraw_with_nothing_left_to_audit_ends_the_task_unpaid() -> None:
    task = at(Status.SEALING, samples=8)
    world = task.world
    garbage_round(task)
    done = task.draw()
    assert done.event("TaskEnded")["reason"] == label("nobody to draw")
    assert done.result == ()
    assert world.free(SOLVER) == FUNDS
    assert sum(world.slots(v) for v in VERIFIERS) == 2 * len(VERIFIERS) - 2
    world.assert_solvent()


def test_a_redraw_that_finds_nobody_gives_those_it_found_their_slots_back() -> None:
    task = at(Status.SEALING, committee=4)
    world = task.world
    silent = task.drawn
    silent_round(task)  # two verifiers are left
    done = task.draw_in_vain()
    assert done.event("TaskEnded")["reason"] == label("nobody to draw")
    assert [world.slots(v) for v in VERIFIERS] == [1 if v in silent else 2 for v in VERIFIERS]
    assert world.free(SOLVER) == FUNDS
    world.assert_solvent()


def test_a_second_audit_that_finds_nobody_leaves_the_first_one_in_force() -> None:
    task = at(Status.REVEALING, committee=4, second_audit=255)
    world, early = task.world, task.drawn
    for verifier in early:
        task.reveal(verifier)
    task.draw()
    assert (task.state.status, task.drawn) == (Status.WINDOW, early)
    task.reach(Status.SETTLED)
    assert all(world.slots(v) == 2 for v in VERIFIERS)
    world.assert_solvent()


def test_a_seal_of_an_earlier_round_counts_for_nothing_in_the_next() -> None:
    task = at(Status.SEALING)
    first = task.drawn[0]
    old = task.world.market.view("sealOf", task.id, first, bytes(32), [])
    silent_round(task)
    assert task.world.market.view("sealOf", task.id, first, bytes(32), []) != old


def test_lost_bonds_go_to_the_solver_when_a_task_expires() -> None:
    task = at(Status.SEALING, samples=1)
    unavailable_round(task)
    unavailable_round(task)
    task.reach(Status.REVEALING)
    task.world.decide(task.whistle(WHISTLEBLOWER), convicted=False)
    for verifier in task.drawn:
        task.reveal(verifier, receipt=bytes(32))
    task.world.wait_beyond(task.state.deadline)
    task.call("redraw")
    assert task.state.status == Status.EXPIRED
    assert task.world.free(SOLVER) == FUNDS + SPEC.bond // 2
    task.world.assert_solvent()


def test_no_solver_escapes_a_dispute_by_an_audit_that_fails() -> None:
    # The second audit fails for the last time while a dispute over the first one is open.
    task = at(Status.REVEALING, second_audit=255, samples=1)
    world = task.world
    dispute = task.whistle(WHISTLEBLOWER)
    for verifier in task.drawn:
        task.reveal(verifier)
    task.reach(Status.SEALING)
    task.seal(task.drawn[0])
    for _ in range(2):
        world.wait_beyond(task.state.deadline)
        task.call("redraw")
        task.draw()
    world.wait_beyond(task.state.deadline)
    with world.refuses("StillOpen", task.id, 1):
        task.call("redraw")
    world.decide(dispute, convicted=True)
    task.punish()
    assert world.free(SOLVER) == FUNDS - SPEC.solver_stake
    world.assert_solvent()
