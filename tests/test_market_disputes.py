# SPDX-License-Identifier: GPL-3.0-or-later
"""Disputes with the solver: who may open them, their verdicts, and a convicted solver's money."""

from __future__ import annotations

import pytest

from protocol.task import NO_SEAT, SeatState, Status
from tests.market_chain import label
from tests.market_cheats import BOND, BURNED, COMPENSATION, REWARD, STAKED, SYBIL, cheated
from tests.market_driver import (
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    SUBMITTER,
    WHISTLEBLOWER,
    at,
    nonce,
    raw,
    role,
)

CLOCK = SPEC.dispute_clock
DISPUTABLE = (Status.REVEALING, Status.WINDOW)


# Opening.


def test_a_mismatched_verifier_opens_a_game_over_its_run_that_its_seat_stands_for() -> None:
    task = cheated()
    world, honest, run = task.world, task.drawn[-1], task.runs[1]
    free = world.free(honest)
    seat = task.seat(honest)
    target = task.target(run.first, run.count, seat)
    event = task.call("challenge", target, bytes(32), sender=honest).event("DisputeOpened")
    assert (raw(event["challenger"]), raw(event["defendant"])) == (honest, SOLVER)
    assert (event["first"], event["count"], event["disputeId"]) == (run.first, run.count, 1)
    steps = task.spec.steps_between(run.first, run.count)
    ends = (task.claimed[run.first], task.claimed[run.first + run.count])
    counts = (SPEC.n_nodes, SPEC.n_state, SPEC.n_const, SPEC.n_data)
    task_roots = (SPEC.program_root, SPEC.const_root, SPEC.data_root, SPEC.seed)
    assert event["context"] == (*task_roots, *ends, steps.start, len(steps), *counts)
    parties = world.game.view("getDispute", 1)
    people = ("0x" + who.hex() for who in (world.market.address, SOLVER, honest))
    assert parties[:3] == tuple(people)
    assert parties[3:] == (CLOCK, CLOCK, event["context"])
    assert world.free(honest) == free
    assert (task.state.open, task.seats[seat].state) == (1, SeatState.DISPUTING)
    world.assert_solvent()


def test_the_last_segment_ends_with_the_training() -> None:
    task = at(Status.WINDOW)
    task.seal_challenge(WHISTLEBLOWER, 7)
    task.world.wait()
    done = task.call("challenge", task.target(7), nonce(WHISTLEBLOWER), sender=WHISTLEBLOWER)
    assert done.event("DisputeOpened")["context"][6:8] == (35, SPEC.steps - 35)


@pytest.mark.parametrize("status", [*list(Status)[1:6], Status.SETTLED])
def test_disputes_open_only_while_ends_are_known_and_the_task_lives(status: Status) -> None:
    task = at(status)
    with task.world.refuses("WrongStatus", task.id, status):
        task.call("sealChallenge", b"\x01" * 32, False, sender=WHISTLEBLOWER)


@pytest.mark.parametrize("status", DISPUTABLE)
def test_disputes_open_until_the_last_second_and_no_longer(status: Status) -> None:
    task = at(status)
    deadline = task.state.deadline
    task.world.wait_until(deadline)
    task.seal_challenge(WHISTLEBLOWER, 0)
    task.world.wait_beyond(deadline)
    with task.world.refuses("TooLate", task.id, deadline):
        task.seal_challenge(RIVAL, 0)


def test_a_mismatched_verifier_that_comes_late_is_refused() -> None:
    task = cheated()
    deadline, honest = task.state.deadline, task.drawn[-1]
    task.world.wait_beyond(deadline)
    with task.world.refuses("TooLate", task.id, deadline):
        task.challenge(honest)


def test_the_solver_may_not_challenge_itself() -> None:
    task = at(Status.WINDOW)
    task.seal_challenge(SOLVER, 0)
    task.world.wait()
    with task.world.refuses("InvalidParties", SOLVER, SOLVER):
        task.tell_challenge(SOLVER, 0)


def test_priority_belongs_to_the_owner_of_a_mismatched_seat_and_only_once() -> None:
    task = cheated()
    world, (attestor, _, honest) = task.world, task.drawn
    run = task.runs[0]

    def challenge(sender: bytes, seat: int) -> None:
        target = task.target(run.first, run.count, seat)
        task.call("challenge", target, bytes(32), sender=sender)

    for seat in (task.seat(honest), len(task.seats), NO_SEAT - 1):
        with world.refuses("NotDrawn", task.id, WHISTLEBLOWER):
            challenge(WHISTLEBLOWER, seat)
    with world.refuses("AlreadyChallenged", task.id, attestor):
        challenge(attestor, task.seat(attestor))
    challenge(honest, task.seat(honest))
    with world.refuses("AlreadyChallenged", task.id, honest):
        challenge(honest, task.seat(honest))


def test_a_dispute_over_segments_or_states_that_do_not_exist_is_refused() -> None:
    task = cheated()
    world, honest = task.world, task.drawn[-1]
    seat = task.seat(honest)
    start, end = task.opening(0), task.opening(1)
    for first, count in ((0, 0), (0, 9), (8, 1), (0, 17), (2**32 - 1, 2**32 - 1)):
        with world.refuses("UnknownRun", task.id, first, count):
            target = (first, count, seat, NO_SEAT, start, end)
            task.call("challenge", target, bytes(32), sender=honest)
    unsealed = (bytes(32), task.claimed[1], end[2])
    foreign = (end[0], task.truth[1], end[2])
    for pair in ((end, end), (start, start), (start, unsealed), (start, foreign)):
        with world.refuses("BadProof", task.id, label("checkpoint")):
            task.call("challenge", (0, 1, seat, NO_SEAT, *pair), bytes(32), sender=honest)


def test_a_challenger_without_money_is_refused() -> None:
    task = at(Status.WINDOW)
    poor = role("poor challenger")
    with task.world.refuses("InsufficientBalance", poor, BOND, 0):
        task.seal_challenge(poor, 0)


def test_the_defence_gets_a_clock_for_every_dispute_beside_it() -> None:
    # All segments at once.
    task = at(Status.WINDOW)
    for segment in range(8):
        dispute = task.whistle(WHISTLEBLOWER, segment)
        clocks = task.world.game.view("getDispute", dispute)[3:5]
        assert clocks == ((segment + 1) * CLOCK, CLOCK)


def test_the_longest_clocks_of_all_places_do_not_overflow() -> None:
    task = cheated(dispute_clock=28 * 86_400)
    task.world.fund(SYBIL, 10_000 * STAKE)
    for _ in range(32):
        task.whistle(SYBIL)
    dispute = task.challenge(task.drawn[-1])
    assert task.world.game.view("getDispute", dispute)[3] == 33 * 28 * 86_400


# Verdicts.


def test_only_the_game_gives_a_verdict_and_only_once() -> None:
    task = at(Status.WINDOW)
    dispute = task.whistle(WHISTLEBLOWER)
    for sender in (STRANGER, SOLVER, WHISTLEBLOWER):
        with task.world.refuses("NotGame", sender):
            task.world.send("onVerdict", dispute, False, sender=sender)
    with task.world.refuses("UnknownDispute", dispute + 1):
        task.world.send("onVerdict", dispute + 1, True, sender=task.world.game.address)
    for convicted in (False, True):
        mark = task.world.evm.mark()
        event = task.world.decide(dispute, convicted=convicted).event("DisputeEnded")
        assert (event["disputeId"], event["convicted"]) == (dispute, convicted)
        assert task.state.open == 0
        for again in (False, True):
            with task.world.refuses("UnknownDispute", dispute):
                task.world.decide(dispute, convicted=again)
        task.world.evm.back(mark)


def test_a_conviction_pays_challenger_and_submitter_and_burns_the_rest() -> None:
    task = cheated()
    world, (attestor, _, honest) = task.world, task.drawn
    free = {p: world.free(p) for p in (SUBMITTER, SOLVER, attestor, honest)}
    burned = world.burned()
    world.decide(task.challenge(honest), convicted=True)
    convicted_at = world.evm.timestamp
    assert (task.state.status, world.burned()) == (Status.CONVICTED, burned)
    assert world.market.view("recordOf", SOLVER)[:3] == (0, 1, convicted_at)
    done = task.punish()
    event = done.event("SolverSlashed")
    assert (raw(event["solver"]), event["amount"]) == (SOLVER, STAKED)
    assert event["reason"] == done.event("TaskEnded")["reason"] == label("convicted")
    assert done.event("TaskEnded")["status"] == task.state.status == Status.SLASHED
    # Who revealed another digest is paid its fee like an attestor of a true log.
    fee = SPEC.verifier_fee
    assert world.free(honest) - free[honest] == REWARD + fee
    refund = task.spec.escrow - fee + COMPENSATION
    assert world.free(SUBMITTER) - free[SUBMITTER] == refund
    assert world.free(SOLVER) == free[SOLVER]
    assert world.burned() - burned == BURNED
    # Convicting the solver never slashes attestors: it could lose to itself on purpose.
    assert world.free(attestor) == free[attestor]
    assert [world.slots(v) for v in task.drawn] == [2, 2, 2]
    assert world.market.view("recordOf", SOLVER)[:3] == (0, 1, convicted_at)
    world.assert_solvent()
    for function in ("settle", "redraw", "defaulted", "openWindow", "punish"):
        with world.refuses("WrongStatus", task.id, Status.SLASHED):
            task.call(function, sender=honest)


def test_a_stake_that_does_not_divide_is_paid_out_to_the_last_wei() -> None:
    stake = STAKE // 4 + 1
    task = at(Status.WINDOW, solver_stake=stake)
    world = task.world
    burned, free = world.burned(), world.free(SUBMITTER)
    world.decide(task.whistle(WHISTLEBLOWER), convicted=True)
    task.punish()
    reward, compensation = stake * 40 // 100, stake * 20 // 100
    assert world.free(WHISTLEBLOWER) == FUNDS + reward
    assert world.free(SUBMITTER) == free + task.spec.escrow + compensation
    assert world.burned() == burned + stake - reward - compensation
    assert stake != 5 * compensation
    world.assert_solvent()


def test_a_verifier_that_never_sealed_is_slashed_also_when_the_solver_is_convicted() -> None:
    task = at(Status.SEALING, committee=3)
    world, (first, second, silent) = task.world, task.drawn
    task.seal(first)
    task.seal(second)
    world.wait_beyond(task.state.deadline)
    burned = world.burned()
    done = task.open_ends()
    assert raw(done.event("VerifierSlashed")["verifier"]) == silent
    world.decide(task.whistle(WHISTLEBLOWER), convicted=True)
    task.punish()
    assert world.burned() == burned + STAKE + BURNED
    assert [world.slots(v) for v in (first, second, silent)] == [2, 2, 1]
    world.assert_solvent()


def test_slashing_oneself_through_other_accounts_loses_money() -> None:
    # Solver, submitter and challenger are one: it bids, commits garbage, and convicts itself.
    task = at(Status.WINDOW)
    world = task.world
    gang = (SOLVER, SUBMITTER, WHISTLEBLOWER)
    before = sum(world.free(p) for p in gang)
    held = STAKED + task.spec.escrow
    world.decide(task.whistle(WHISTLEBLOWER), convicted=True)
    task.punish()
    assert sum(world.free(p) for p in gang) == before + held - BURNED
    assert BURNED == STAKED * 40 // 100


def test_a_lost_bond_is_half_burned_and_half_the_solvers_if_the_task_settles() -> None:
    task = at(Status.WINDOW, bond=BOND - 1)
    kept = (BOND - 1) // 2
    world, burned = task.world, task.world.burned()
    world.decide(task.whistle(WHISTLEBLOWER), convicted=False)
    assert world.burned() == burned + kept + 1
    assert task.state.forfeited == kept
    world.assert_solvent()
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert world.free(SOLVER) == FUNDS + task.state.price + kept
    assert task.state.forfeited == 0
    world.assert_solvent()


def test_a_drawn_verifier_that_loses_its_dispute_loses_its_stake_half_of_it_to_the_solver() -> None:
    task = cheated()
    world, honest = task.world, task.drawn[-1]
    free, burned, slots = world.free(honest), world.burned(), world.slots(honest)
    done = world.decide(task.challenge(honest), convicted=False)
    assert raw(done.event("VerifierSlashed")["verifier"]) == honest
    assert task.seats[-1].state == SeatState.SLASHED
    assert (world.free(honest), world.slots(honest)) == (free, slots)
    assert (world.burned(), task.state.forfeited) == (burned + STAKE // 2, STAKE // 2)
    world.assert_solvent()
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert world.free(SOLVER) == FUNDS + task.state.price + STAKE // 2
    world.assert_solvent()


def test_who_was_drawn_needs_no_money_besides_its_stake_to_convict() -> None:
    task = cheated()
    world, honest = task.world, task.drawn[-1]
    world.send("withdraw", sender=honest)
    world.decide(task.challenge(honest), convicted=True)
    task.punish()
    assert world.free(honest) == REWARD + SPEC.verifier_fee
    assert task.state.status == Status.SLASHED
    world.assert_solvent()


def test_a_false_flag_shields_nobody_and_its_bond_burns_with_the_stake() -> None:
    task = cheated()
    world, honest = task.world, task.drawn[-1]
    world.decide(task.whistle(SYBIL), convicted=False)  # claims the truth, loses on purpose
    burned = world.burned()
    world.decide(task.challenge(honest), convicted=True)
    task.punish()
    assert task.state.status == Status.SLASHED
    assert world.burned() == burned + BOND - BOND // 2 + BURNED
    assert world.free(SOLVER) == FUNDS - STAKED
    world.assert_solvent()


@pytest.mark.parametrize("convicted", [False, True])
def test_other_bonds_come_back_after_a_conviction_however_their_games_end(
    convicted: bool,
) -> None:
    task = cheated()
    world = task.world
    other, dispute = task.whistle(WHISTLEBLOWER), task.challenge(task.drawn[-1])
    world.decide(dispute, convicted=True)
    world.assert_solvent()
    burned = world.burned()
    world.decide(other, convicted=convicted)
    assert world.free(WHISTLEBLOWER) == FUNDS
    assert (world.burned(), task.state.forfeited) == (burned, 0)
    task.punish()
    assert world.free(WHISTLEBLOWER) == FUNDS
    world.assert_solvent()


# Convicted, and not yet punished.


def test_the_stake_is_shared_out_only_when_nothing_is_open() -> None:
    task = cheated()
    world, honest = task.world, task.drawn[-1]
    dispute, other = task.challenge(honest), task.whistle(WHISTLEBLOWER)
    task.seal_challenge(RIVAL, 1)
    world.decide(dispute, convicted=True)
    for left, close in (
        (2, lambda: task.call("dropChallenge", RIVAL)),
        (1, lambda: world.decide(other, convicted=False)),
    ):
        with world.refuses("StillOpen", task.id, left):
            task.call("punish")
        close()
        world.assert_solvent()
    task.punish()
    assert task.state.status == Status.SLASHED


def test_nothing_new_begins_once_the_solver_is_convicted() -> None:
    task = cheated()
    world = task.world
    task.seal_challenge(RIVAL, 1)
    world.wait()
    world.decide(task.whistle(WHISTLEBLOWER), convicted=True)
    calls = {
        "settle": lambda: task.call("settle"),
        "redraw": lambda: task.call("redraw"),
        "defaulted": lambda: task.call("defaulted"),
        "sealChallenge": lambda: task.seal_challenge(SYBIL, 0),
        "challenge": lambda: task.tell_challenge(RIVAL, 1),
        "demand": lambda: task.call("demand", 0, 0, 0, 0, b"", []),
        "append": lambda: task.append(9),
    }
    for call in calls.values():
        with world.refuses("WrongStatus", task.id, Status.CONVICTED):
            call()


def test_a_solver_that_defaults_while_disputes_are_open_is_punished_after_them() -> None:
    # A second audit runs while somebody disputes what the first one showed.
    task = at(Status.REVEALING, second_audit=255)
    world = task.world
    dispute = task.whistle(WHISTLEBLOWER)
    for verifier in task.drawn:
        task.reveal(verifier)
    assert (task.state.status, task.state.agreed) == (Status.COMMITTED, 1)
    task.draw()
    world.wait_beyond(task.state.deadline)
    task.call("defaulted")
    assert task.state.status == Status.CONVICTED
    record = world.market.view("recordOf", SOLVER)
    with world.refuses("StillOpen", task.id, 1):
        task.call("punish")
    free, burned = world.free(SUBMITTER), world.burned()
    world.decide(dispute, convicted=True)
    assert world.market.view("recordOf", SOLVER) == record  # who lost twice defaulted once
    done = task.punish()
    assert done.event("TaskEnded")["reason"] == label("convicted")
    assert world.free(WHISTLEBLOWER) == FUNDS + REWARD
    assert world.free(SUBMITTER) == free + task.spec.escrow + COMPENSATION
    assert world.burned() == burned + BURNED
    assert task.world.free(SOLVER) == FUNDS - STAKED
    world.assert_solvent()
