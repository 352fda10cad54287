# SPDX-License-Identifier: GPL-3.0-or-later
"""Challenges, verdicts, and who gets the money of a convicted solver."""

from __future__ import annotations

import pytest
from eth_utils.crypto import keccak

from protocol.task import SeatState, Status
from tests.market_driver import (
    BUDGET,
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    SUBMITTER,
    WHISTLEBLOWER,
    Task,
    at,
    raw,
    role,
)

BOND, STAKED, FEES = SPEC.bond, SPEC.solver_stake, SPEC.committee * SPEC.verifier_fee
REWARD, COMPENSATION = STAKED * 40 // 100, STAKED * 20 // 100
CLOCK = SPEC.dispute_clock
CAP = 32
SYBIL = role("sybil of the solver")


def cheated(**changes: int) -> Task:
    """A task whose solver lied about every checkpoint; the first drawn verifier attested all the
    same, the second one revealed another digest. Disputes may be opened.
    """
    task = at(Status.SEALING, **changes)
    task.truth = [keccak(root) for root in task.claimed]
    first, second = task.drawn
    lie = [task.claimed[run.first + run.count] for run in task.runs]
    task.seal(first, lie)
    task.seal(second)
    task.open_ends()
    task.reveal(first, lie)
    task.reveal(second)
    assert [seat.state for seat in task.seats] == [SeatState.ATTESTED, SeatState.MISMATCHED]
    task.world.fund(SYBIL)
    return task


# Opening.


def test_a_challenge_locks_the_bond_and_opens_a_game_over_the_run() -> None:
    task = at(Status.WINDOW)
    done = task.call("challenge", 1, sender=WHISTLEBLOWER)
    event, run = done.event("DisputeOpened"), task.runs[1]
    assert (raw(event["challenger"]), event["run"], event["disputeId"]) == (WHISTLEBLOWER, 1, 1)
    steps = task.spec.steps_between(run.first, run.count)
    roots = (run.start_root, run.end_root, steps.start, len(steps))
    counts = (SPEC.n_nodes, SPEC.n_state, SPEC.n_const, SPEC.n_data)
    task_roots = (SPEC.program_root, SPEC.const_root, SPEC.data_root, SPEC.seed)
    assert event["context"] == (*task_roots, *roots, *counts)
    parties = task.world.game.view("getDispute", 1)
    market = "0x" + task.world.market.address.hex()
    assert parties[:3] == (market, "0x" + SOLVER.hex(), "0x" + WHISTLEBLOWER.hex())
    assert parties[3:5] == (CLOCK, CLOCK)
    assert parties[5] == event["context"]
    assert task.world.free(WHISTLEBLOWER) == FUNDS - BOND
    assert task.state.open_disputes == 1
    task.world.assert_solvent()


def test_the_last_run_ends_with_the_training_and_not_with_its_segment() -> None:
    task = at(Status.WINDOW, samples=8)
    event = task.call("challenge", 0, sender=WHISTLEBLOWER).event("DisputeOpened")
    assert event["context"][6:8] == (0, SPEC.steps)


@pytest.mark.parametrize("status", [*list(Status)[1:6], Status.SETTLED])
def test_disputes_open_only_while_ends_are_known_and_the_task_lives(status: Status) -> None:
    task = at(status)
    with task.world.refuses("WrongStatus", task.id, status):
        task.call("challenge", 0, sender=WHISTLEBLOWER)


@pytest.mark.parametrize("status", [Status.REVEALING, Status.WINDOW])
def test_disputes_open_until_the_last_second_and_no_longer(status: Status) -> None:
    task = at(status)
    deadline = task.state.deadline
    task.world.wait_until(deadline)
    task.challenge(WHISTLEBLOWER)
    task.world.wait_beyond(deadline)
    with task.world.refuses("TooLate", task.id, deadline):
        task.call("challenge", 0, sender=WHISTLEBLOWER)


def test_challenges_by_the_solver_over_nothing_or_without_money_are_refused() -> None:
    task = at(Status.WINDOW)
    with task.world.refuses("SolverMayNotChallenge", task.id):
        task.call("challenge", 0, sender=SOLVER)
    for run in (2, 2**256 - 1):
        with task.world.refuses("UnknownRun", task.id, run):
            task.call("challenge", run, sender=WHISTLEBLOWER)
    poor = role("poor challenger")
    with task.world.refuses("InsufficientBalance", poor, BOND, 0):
        task.call("challenge", 0, sender=poor)


def test_the_defence_gets_a_clock_for_every_dispute_beside_it() -> None:
    task = at(Status.WINDOW)
    for i in range(3):
        dispute = task.challenge(WHISTLEBLOWER)
        clocks = task.world.game.view("getDispute", dispute)[3:5]
        assert clocks == ((i + 1) * CLOCK, CLOCK)


# Spam.


def test_filling_all_places_costs_far_more_than_a_stake_and_shuts_no_drawn_verifier_out() -> None:
    task = cheated()
    honest = task.drawn[1]
    task.world.fund(SYBIL, 10_000 * STAKE)
    free = task.world.free(SYBIL)
    for i in range(CAP):
        before = task.world.free(SYBIL)
        task.challenge(SYBIL)
        assert before - task.world.free(SYBIL) == BOND << (i // 4)
    locked = free - task.world.free(SYBIL)
    assert locked == 1020 * BOND
    with task.world.refuses("TooManyDisputes", task.id):
        task.call("challenge", 0, sender=WHISTLEBLOWER)
    with task.world.refuses("TooManyDisputes", task.id):
        task.call("challenge", 0, sender=task.drawn[0])  # attested: has no place kept for it
    free = task.world.free(honest)
    dispute = task.challenge(honest)
    assert task.world.free(honest) == free - BOND
    assert task.state.open_disputes == CAP + 1
    with task.world.refuses("TooManyDisputes", task.id):
        task.call("challenge", 0, sender=honest)  # one place each
    task.world.assert_solvent()
    for i in range(1, CAP + 1):
        task.world.decide(i, convicted=False)
    assert task.state.forfeited == locked // 2
    task.world.decide(dispute, convicted=True)
    assert task.state.status == Status.SLASHED
    assert task.world.free(honest) == free + REWARD
    task.world.assert_solvent()


def test_the_longest_clocks_of_all_places_do_not_overflow() -> None:
    task = cheated(dispute_clock=90 * 86_400)
    task.world.fund(SYBIL, 10_000 * STAKE)
    for _ in range(CAP):
        task.challenge(SYBIL)
    dispute = task.challenge(task.drawn[1])
    assert task.world.game.view("getDispute", dispute)[3] == 33 * 90 * 86_400


def test_a_bond_that_no_sum_of_money_could_pay_is_refused_without_overflow() -> None:
    task = at(Status.WINDOW, bond=2**96 - 1)
    with task.world.refuses("InsufficientBalance", WHISTLEBLOWER, 2**96 - 1, FUNDS):
        task.call("challenge", 0, sender=WHISTLEBLOWER)


# Verdicts.


def test_only_the_game_gives_a_verdict_and_only_once() -> None:
    task = at(Status.WINDOW)
    dispute = task.challenge(WHISTLEBLOWER)
    for sender in (STRANGER, SOLVER, WHISTLEBLOWER):
        with task.world.refuses("NotGame", sender):
            task.world.send("onVerdict", dispute, False, sender=sender)
    with task.world.refuses("UnknownDispute", dispute + 1):
        task.world.send("onVerdict", dispute + 1, True, sender=task.world.game.address)
    for convicted in (False, True):
        mark = task.world.evm.mark()
        event = task.world.decide(dispute, convicted=convicted).event("DisputeEnded")
        assert (event["disputeId"], event["convicted"]) == (dispute, convicted)
        assert task.state.open_disputes == 0
        for again in (False, True):
            with task.world.refuses("UnknownDispute", dispute):
                task.world.decide(dispute, convicted=again)
        task.world.evm.back(mark)


def test_a_conviction_pays_challenger_and_submitter_and_burns_the_rest() -> None:
    task = cheated()
    world, (attestor, honest) = task.world, task.drawn
    dispute = task.challenge(honest)
    free = {p: world.free(p) for p in (SUBMITTER, SOLVER, attestor, honest)}
    burned = world.burned()
    done = world.decide(dispute, convicted=True)
    event = done.event("SolverSlashed")
    assert (raw(event["solver"]), event["amount"]) == (SOLVER, STAKED)
    assert done.event("TaskEnded")["status"] == Status.SLASHED
    assert world.free(SUBMITTER) - free[SUBMITTER] == BUDGET + FEES + COMPENSATION
    assert world.free(honest) - free[honest] == BOND + REWARD
    assert world.free(SOLVER) == free[SOLVER]
    assert world.burned() - burned == STAKED - REWARD - COMPENSATION
    # Convicting the solver never slashes attestors: it could lose to itself on purpose.
    assert world.free(attestor) == free[attestor]
    assert [world.slots(v) for v in task.drawn] == [2, 2]
    world.assert_solvent()
    for function in ("settle", "redraw", "defaulted", "openWindow", "challenge"):
        arguments = [0] if function == "challenge" else []
        with world.refuses("WrongStatus", task.id, Status.SLASHED):
            task.call(function, *arguments, sender=honest)


def test_a_stake_that_does_not_divide_is_paid_out_to_the_last_wei() -> None:
    task = at(Status.WINDOW, solver_stake=101)
    world = task.world
    dispute = task.challenge(WHISTLEBLOWER)
    burned, free = world.burned(), world.free(SUBMITTER)
    world.decide(dispute, convicted=True)
    assert world.free(WHISTLEBLOWER) == FUNDS + 40
    assert world.free(SUBMITTER) == free + BUDGET + FEES + 20
    assert world.burned() == burned + 41
    world.assert_solvent()


def test_a_verifier_that_never_sealed_is_slashed_also_when_the_solver_is_convicted() -> None:
    task = at(Status.SEALING)
    world, (attestor, silent) = task.world, task.drawn
    task.seal(attestor)
    world.wait_beyond(task.state.deadline)
    task.open_ends()
    dispute = task.challenge(WHISTLEBLOWER)
    burned = world.burned()
    done = world.decide(dispute, convicted=True)
    assert raw(done.event("VerifierSlashed")["verifier"]) == silent
    assert world.burned() == burned + STAKE + STAKED - REWARD - COMPENSATION
    assert [world.slots(v) for v in (attestor, silent)] == [2, 1]
    world.assert_solvent()


def test_slashing_oneself_through_other_accounts_loses_money() -> None:
    # Solver, submitter and challenger are one: it bids, commits garbage, and convicts itself.
    task = at(Status.WINDOW)
    world = task.world
    gang = (SOLVER, SUBMITTER, WHISTLEBLOWER)
    before = sum(world.free(p) for p in gang)
    held = STAKED + BUDGET + FEES
    world.decide(task.challenge(WHISTLEBLOWER), convicted=True)
    assert sum(world.free(p) for p in gang) == before + held - (STAKED - REWARD - COMPENSATION)
    assert STAKED - REWARD - COMPENSATION == STAKED * 40 // 100


def test_a_lost_bond_is_half_burned_and_half_the_solvers_if_the_task_settles() -> None:
    task = at(Status.WINDOW)
    world, burned = task.world, task.world.burned()
    world.decide(task.challenge(WHISTLEBLOWER), convicted=False)
    assert world.burned() == burned + BOND // 2
    assert task.state.forfeited == BOND - BOND // 2
    world.assert_solvent()
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert world.free(SOLVER) == FUNDS + task.state.price + BOND - BOND // 2
    assert task.state.forfeited == 0
    world.assert_solvent()


def test_a_false_flag_shields_nobody_and_its_bond_burns_with_the_stake() -> None:
    task = cheated()
    world, honest = task.world, task.drawn[1]
    world.decide(task.challenge(SYBIL), convicted=False)  # claims the truth, loses on purpose
    burned = world.burned()
    world.decide(task.challenge(honest), convicted=True)
    assert task.state.status == Status.SLASHED
    assert world.burned() == burned + BOND - BOND // 2 + STAKED - REWARD - COMPENSATION
    assert world.free(SOLVER) == FUNDS - STAKED
    world.assert_solvent()


@pytest.mark.parametrize("convicted", [False, True])
def test_other_bonds_come_back_after_a_conviction_however_their_games_end(
    convicted: bool,
) -> None:
    task = cheated()
    world = task.world
    other = task.challenge(WHISTLEBLOWER)
    dispute = task.challenge(task.drawn[1])
    world.decide(dispute, convicted=True)
    world.assert_solvent()
    burned = world.burned()
    world.decide(other, convicted=convicted)
    assert world.free(WHISTLEBLOWER) == FUNDS
    assert world.burned() == burned
    world.assert_solvent()


# Priority.


def test_conceding_to_a_sybil_first_does_not_take_the_honest_verifiers_reward() -> None:
    task = cheated()
    world, honest = task.world, task.drawn[1]
    free = world.free(honest)
    quick = task.challenge(SYBIL)
    slow = task.challenge(honest)
    world.decide(quick, convicted=True)
    assert task.state.status == Status.SLASHED
    assert world.free(SYBIL) == FUNDS  # its bond; the reward waits
    world.assert_solvent()
    world.decide(slow, convicted=True)
    assert world.free(SYBIL) == FUNDS
    assert world.free(honest) == free + REWARD
    world.assert_solvent()


def test_the_first_to_open_is_rewarded_among_challengers_that_were_not_drawn() -> None:
    task = cheated()
    world = task.world
    first, second = task.challenge(WHISTLEBLOWER), task.challenge(RIVAL)
    world.decide(second, convicted=True)
    world.decide(first, convicted=True)
    assert (world.free(WHISTLEBLOWER), world.free(RIVAL)) == (FUNDS + REWARD, FUNDS)
    world.assert_solvent()


def test_a_challenger_that_does_not_win_its_own_game_is_not_rewarded() -> None:
    task = cheated()
    world, honest = task.world, task.drawn[1]
    free = world.free(honest)
    first, second = task.challenge(honest), task.challenge(WHISTLEBLOWER)
    world.decide(second, convicted=True)
    world.decide(first, convicted=False)
    assert (world.free(WHISTLEBLOWER), world.free(honest)) == (FUNDS + REWARD, free)
    world.assert_solvent()


def test_a_verifier_has_priority_only_after_it_revealed_another_digest_and_only_once() -> None:
    task = cheated()
    world, (attestor, honest) = task.world, task.drawn
    disputes = [task.challenge(v) for v in (attestor, honest, honest)]
    drawn = [world.market.view("disputes", d)[2] for d in disputes]
    assert drawn == [False, True, False]
