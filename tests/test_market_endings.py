# SPDX-License-Identifier: GPL-3.0-or-later
"""Redraws, and the way out of every status that anybody may take: no silence freezes money."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from eth_utils.crypto import keccak

from protocol.task import SeatState, Status
from tests.market_driver import (
    BUDGET,
    FUNDS,
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    WHISTLEBLOWER,
    Refused,
    Task,
    at,
    fresh_world,
    role,
)

LIVE = list(Status)[1:8]
FEES = SPEC.committee * SPEC.verifier_fee


def silent_round(task: Task) -> None:
    """Nobody seals; anybody asks for a new draw."""
    task.reach(Status.SEALING)
    task.world.wait_beyond(task.state.deadline)
    task.call("redraw")


def garbage_round(task: Task) -> None:
    """Every verifier seals garbage and never reveals; anybody asks for a new draw."""
    task.reach(Status.SEALING)
    for verifier in task.drawn:
        task.seal(verifier, [])
    task.open_ends()
    task.world.wait_beyond(task.state.deadline)
    task.call("openWindow")
    task.world.wait_beyond(task.state.deadline)
    task.call("redraw")


def unavailable_round(task: Task) -> None:
    """No verifier gets the start states."""
    task.reach(Status.SEALING)
    for verifier in task.drawn:
        task.plain("reportUnavailable", sender=verifier)
    task.call("redraw")


# Redraws.


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
    assert (state.status, state.round, task.seats) == (Status.COMMITTED, 1, [])
    assert state.draw_block == world.evm.number + 1
    assert state.deadline == world.evm.timestamp + SPEC.audit_window
    with world.refuses("WrongStatus", task.id, Status.COMMITTED):
        task.call("redraw")
    world.assert_solvent()


def test_no_redraw_while_somebody_has_sealed_or_attested() -> None:
    task = at(Status.SEALING)
    world, deadline = task.world, task.state.deadline
    task.seal(task.drawn[0])
    with world.refuses("TooEarly", task.id, deadline):
        task.call("redraw")
    world.wait_beyond(deadline)
    with world.refuses("WrongStatus", task.id, Status.SEALING):
        task.call("redraw")
    task = at(Status.WINDOW)
    with task.world.refuses("TooEarly", task.id, task.state.deadline):
        task.call("redraw")
    task.world.wait_beyond(task.state.deadline)
    with task.world.refuses("AlreadyAttested", task.id):
        task.call("redraw")


def test_withholding_starts_shakes_off_no_drawn_segment() -> None:
    task = at(Status.SEALING)
    world = task.world
    before = task.segments_drawn
    for verifier in task.drawn:
        task.plain("reportUnavailable", sender=verifier)
    mark = world.evm.mark()
    sizes = set()
    for block in range(12):
        world.evm.back(mark)
        world.wait(blocks=1 + block)
        task.call("redraw")  # at once: nobody is left that could seal
        task.draw()
        assert before <= task.segments_drawn
        sizes.add(len(task.segments_drawn))
        starts = {run.first for run in task.runs}
        assert all(run.start_root == run.end_root == bytes(32) for run in task.runs)
        assert len(starts) == len(task.runs)
    assert sizes == {3}
    world.assert_solvent()


def test_verifiers_that_report_unavailability_lose_nothing_in_any_round() -> None:
    task = at(Status.SEALING)
    world = task.world
    for _ in range(3):
        unavailable_round(task)
        assert [world.slots(v) for v in VERIFIERS] == [2] * len(VERIFIERS)
        world.assert_solvent()
    assert task.state.status == Status.EXPIRED


def test_what_was_opened_is_never_audited_as_sealed_again() -> None:
    task = at(Status.SEALING, samples=3)
    world = task.world
    for verifier in task.drawn:
        task.seal(verifier, [])
    task.open_ends()
    known = {run.first + run.count for run in task.runs} | {run.first for run in task.runs} | {8}
    known |= {s + 1 for s in task.segments_drawn}
    world.wait_beyond(task.state.deadline)
    task.call("openWindow")
    world.wait_beyond(task.state.deadline)
    task.call("redraw")
    mark = world.evm.mark()
    seen = set()
    for block in range(25):
        world.evm.back(mark)
        world.wait(blocks=1 + block)
        task.draw()
        seen |= task.segments_drawn
    assert len(seen) >= 1
    assert not {segment + 1 for segment in seen} & known  # leaf s + 1 is the end of segment s


def test_the_final_checkpoint_once_opened_is_never_audited_as_sealed() -> None:
    task = at(Status.SEALING, samples=1)
    assert task.segments_drawn & {6, 7} == set()
    garbage_round(task)
    world, mark, seen = task.world, task.world.evm.mark(), set()
    for block in range(25):
        world.evm.back(mark)
        world.wait(blocks=1 + block)
        task.draw()
        seen |= task.segments_drawn
    assert 6 in seen  # its end is still sealed
    assert 7 not in seen


def test_a_redraw_with_nothing_left_to_audit_ends_the_task_unpaid() -> None:
    task = at(Status.SEALING, samples=8)
    world = task.world
    garbage_round(task)
    task.draw()
    assert task.state.status == Status.EXPIRED
    assert world.free(SOLVER) == FUNDS
    assert sum(world.slots(v) for v in VERIFIERS) == 2 * len(VERIFIERS) - 2
    world.assert_solvent()


@pytest.mark.parametrize("play", [silent_round, garbage_round, unavailable_round])
def test_three_rounds_without_attestation_expire_and_return_stake_and_escrow(
    play: Callable[[Task], None],
) -> None:
    task = at(Status.SEALING, samples=1)
    world, free = task.world, task.world.free(SUBMITTER)
    slots = sum(world.slots(v) for v in VERIFIERS) + 2
    for expected in (Status.COMMITTED, Status.COMMITTED, Status.EXPIRED):
        play(task)
        assert task.state.status == expected
    assert world.free(SUBMITTER) == free + BUDGET + FEES
    assert world.free(SOLVER) == FUNDS
    lost = 0 if play is unavailable_round else 6
    assert sum(world.slots(v) for v in VERIFIERS) == slots - lost
    assert world.burned() == lost * STAKE
    with world.refuses("WrongStatus", task.id, Status.EXPIRED):
        task.call("redraw")
    world.assert_solvent()


def test_a_seal_of_an_earlier_round_counts_for_nothing_in_the_next() -> None:
    task = at(Status.SEALING, committee=4)
    first = task.drawn[0]
    old = task.world.market.view("sealOf", task.id, first, bytes(32), [])
    silent_round(task)
    assert task.world.market.view("sealOf", task.id, first, bytes(32), []) != old


def test_lost_bonds_go_to_the_solver_when_a_task_expires() -> None:
    task = at(Status.SEALING, samples=1)
    unavailable_round(task)
    unavailable_round(task)
    task.reach(Status.SEALING)
    for verifier in task.drawn:
        task.seal(verifier, [])
    task.open_ends()
    task.world.decide(task.challenge(WHISTLEBLOWER), convicted=False)
    task.world.wait_beyond(task.state.deadline)
    task.call("openWindow")
    task.world.wait_beyond(task.state.deadline)
    task.call("redraw")
    assert task.state.status == Status.EXPIRED
    assert task.world.free(SOLVER) == FUNDS + SPEC.bond // 2
    task.world.assert_solvent()


# Ways out.


@pytest.mark.parametrize("status", LIVE)
def test_no_deadline_is_the_solvers_default_before_it_is_over(status: Status) -> None:
    task = at(status)
    expected = {
        Status.TRAINING: ("TooEarly", task.id, task.state.deadline),
        Status.STARTING: ("TooEarly", task.id, task.state.deadline),
        Status.SEALING: ("NoDefault", task.id),
        Status.COMMITTED: ("NoDefault", task.id),
    }.get(status, ("WrongStatus", task.id, status))
    with task.world.refuses(*expected):
        task.call("defaulted")


KEEPER = ("assign", "draw", "defaulted", "redraw", "openWindow", "settle")


def keep(task: Task) -> None:
    """A stranger makes every call that is possible, until the task has ended."""
    for _ in range(30):
        state = task.state
        if state.status.final:
            return
        task.world.wait(blocks=2, seconds=max(2, state.deadline - task.world.evm.timestamp + 1))
        for function in KEEPER:
            try:
                task.call(function, sender=STRANGER)
                break
            except Refused:
                continue
        else:
            task.world.wait(blocks=300, seconds=SPEC.audit_window)
    pytest.fail(f"stuck: {task.state}")


@pytest.mark.parametrize("bid", [False, True])
def test_a_bidding_that_all_forget_ends_by_a_stranger(bid: bool) -> None:
    task = at(Status.BIDDING) if bid else at(Status.TRAINING).world.post()
    keep(task)
    assert task.state.status == (Status.SLASHED if bid else Status.EXPIRED)
    task.world.assert_solvent()


@pytest.mark.parametrize(
    ("status", "seals"),
    [*((status, 0) for status in LIVE[1:]), (Status.SEALING, 1), (Status.SEALING, 2)],
)
def test_nobodys_silence_freezes_money(status: Status, seals: int) -> None:
    task = at(status)
    for verifier in task.drawn[:seals]:
        task.seal(verifier)
    keep(task)
    world = task.world
    world.assert_solvent()
    state = task.state
    assert (state.escrow, state.forfeited, state.open_disputes) == (0, 0, 0)
    # Nothing is held for the task any more: all wei is free, or in a slot of a verifier.
    slots = sum(world.slots(v) for v in VERIFIERS) * STAKE
    free = sum(world.free(p) for p in world.people)
    assert world.evm.balance(world.market.address) == free + slots
    # A redraw needs the solver again, whose silence costs the stake.
    assert state.status == (Status.SETTLED if status == Status.WINDOW else Status.SLASHED)


def test_a_missed_draw_that_nobody_makes_ends_by_a_stranger() -> None:
    task = at(Status.COMMITTED)
    task.world.wait(blocks=300, seconds=30 * 86_400)
    keep(task)
    assert task.state.status == Status.SLASHED
    task.world.assert_solvent()


def test_open_disputes_end_a_task_whatever_their_verdicts() -> None:
    task = at(Status.WINDOW)
    disputes = [task.challenge(WHISTLEBLOWER) for _ in range(3)]
    task.world.wait_beyond(task.state.deadline)
    for dispute in disputes:
        task.world.decide(dispute, convicted=False)
    keep(task)
    assert task.state.status == Status.SETTLED
    assert [seat.state for seat in task.seats] == [SeatState.ATTESTED] * 2
    task.world.assert_solvent()


# What it costs.


@pytest.mark.gas
def test_gas_of_an_honest_task(gas_snapshot: Callable[[str, int], None]) -> None:
    task = fresh_world().post().reach(Status.SETTLED)
    for function, gas in task.gas.items():
        gas_snapshot(f"Market.{function}", gas)
    gas_snapshot("honest_task_total", task.spent)


@pytest.mark.gas
def test_gas_of_everything_else(gas_snapshot: Callable[[str, int], None]) -> None:
    task = at(Status.SEALING)
    task.gas.clear()
    mark = task.world.evm.mark()
    unavailable_round(task)
    task.world.evm.back(mark)
    task.truth = [keccak(root) for root in task.claimed]
    for verifier in task.drawn:
        task.seal(verifier)
    task.open_ends()
    task.reveal(task.drawn[0])
    dispute = task.challenge(task.drawn[0])
    gas_snapshot("Market.onVerdict, convicted", task.world.decide(dispute, convicted=True).gas)
    for function in ("reportUnavailable", "redraw", "challenge"):
        gas_snapshot(f"Market.{function}", task.gas[function])
    world = fresh_world()
    world.fund(role("newcomer"))
    sends = {"registerVerifier": [2], "leaveVerifiers": [], "withdraw": []}
    for function, arguments in sends.items():
        done = world.send(function, *arguments, sender=role("newcomer"))
        gas_snapshot(f"Market.{function}", done.gas)
