# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is paid when nobody convicted the solver, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.task import SeatState, Status
from tests.market_chain import label
from tests.market_driver import (
    BUDGET,
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    STAKE,
    SUBMITTER,
    WHISTLEBLOWER,
    at,
    raw,
)

BID = BUDGET * 8 // 10


def test_settling_pays_solver_verifiers_and_submitter_once() -> None:
    task = at(Status.WINDOW)
    world, price = task.world, task.state.price
    deadline = task.state.deadline
    world.wait_until(deadline)
    with world.refuses("TooEarly", task.id, deadline):
        task.call("settle")
    world.wait_beyond(deadline)
    free, burned = world.free(SUBMITTER), world.burned()
    verifiers = [world.free(v) for v in task.drawn]
    done = task.call("settle")
    assert done.event("TaskEnded") == {
        "id": task.id,
        "status": Status.SETTLED,
        "reason": label("settled"),
    }
    assert world.free(SOLVER) == FUNDS + price
    fees = 2 * SPEC.verifier_fee
    assert world.free(SUBMITTER) == free + task.spec.escrow - price - fees
    assert [world.free(v) for v in task.drawn] == [v + SPEC.verifier_fee for v in verifiers]
    assert [world.slots(v) for v in task.drawn] == [2, 2]
    assert world.burned() == burned
    assert task.state.status == Status.SETTLED
    assert world.market.view("recordOf", SOLVER)[:3] == (1, 0, 0)
    for function in ("settle", "redraw", "defaulted", "openWindow", "punish"):
        with world.refuses("WrongStatus", task.id, Status.SETTLED):
            task.call(function)
    world.assert_solvent()


@pytest.mark.parametrize(
    ("window", "budget"), [(3, BUDGET), (1, BUDGET), (5, BUDGET + 7), (8, BUDGET + 1)]
)
def test_each_progress_window_is_paid_its_share_and_all_shares_add_up(
    window: int, budget: int
) -> None:
    changes = {"samples": 1, "window_segments": window, "budget": budget}
    task = at(Status.TRAINING, **changes, solver="0x" + SOLVER.hex())
    world, price, segments = task.world, task.state.price, task.spec.segments
    assert price == budget
    free = {v: world.free(v) + STAKE * world.slots(v) for v in world.people}
    earned, done = 0, 0
    while done < segments:
        task.reach(Status.WINDOW)
        drawn = task.drawn
        world.wait_beyond(task.state.deadline)
        before = [world.free(v) for v in drawn]
        result = task.call("settle")
        done = min(done + window, segments)
        share = price * done // segments - earned
        earned += share
        assert [world.free(v) for v in drawn] == [b + SPEC.verifier_fee for b in before]
        assert result.all("Credited")[-1]["reason"] == label(
            "unspent" if done == segments else "trained"
        )
        if done < segments:
            assert world.free(SOLVER) == FUNDS - SPEC.solver_stake + earned
            state = task.state
            assert (state.status, state.settled) == (Status.TRAINING, done)
            assert state.paid == earned + SPEC.verifier_fee * 2 * -(-done // window)
            assert state.deadline == world.evm.timestamp + SPEC.train_window
            assert (state.seats, state.runs, task.all_runs, task.seats) == (0, 0, [], [])
        world.assert_solvent()
    assert earned == price
    assert world.free(SOLVER) == FUNDS + price
    fees = 2 * SPEC.verifier_fee * task.spec.windows
    assert world.free(SUBMITTER) - free[SUBMITTER] == task.spec.escrow - price - fees
    assert task.state.status == Status.SETTLED


def test_a_later_progress_window_is_audited_in_its_own_segments_alone() -> None:
    task = at(Status.TRAINING, window_segments=3, samples=3)
    seen = []
    for _ in range(3):
        task.reach(Status.STARTING)
        seen.append(task.segments_drawn)
        task.reach(Status.WINDOW)
        task.world.wait_beyond(task.state.deadline)
        task.call("settle")
    assert seen == [{0, 1, 2}, {3, 4, 5}, {6, 7}]


def test_a_solver_that_stops_is_paid_for_the_windows_before_and_loses_its_stake() -> None:
    task = at(Status.WINDOW, window_segments=4)
    world = task.world
    world.wait_beyond(task.state.deadline)
    task.call("settle")
    earned = task.state.paid
    world.wait_beyond(task.state.deadline)
    free, burned = world.free(SUBMITTER), world.burned()
    done = task.call("defaulted")
    assert done.event("TaskEnded")["reason"] == label("default")
    assert world.free(SOLVER) == FUNDS - SPEC.solver_stake + BUDGET // 2
    # No compensation: the submitter may have caused the default itself.
    assert world.free(SUBMITTER) == free + task.spec.escrow - earned
    assert world.burned() == burned + SPEC.solver_stake
    world.assert_solvent()


def test_the_second_price_is_paid() -> None:
    task = at(Status.BIDDING)
    world = task.world
    task.auction((SOLVER, BUDGET // 2), (RIVAL, BID))
    task.reach(Status.SETTLED)
    assert world.free(SOLVER) == FUNDS + BID
    assert world.free(RIVAL) == FUNDS
    world.assert_solvent()


def test_settling_waits_for_every_dispute_and_sealed_challenge() -> None:
    task = at(Status.WINDOW)
    world = task.world
    dispute = task.whistle(WHISTLEBLOWER)
    task.seal_challenge(RIVAL, 1)
    world.wait_beyond(task.state.deadline)
    closing = (
        lambda: task.call("dropChallenge", RIVAL),
        lambda: world.decide(dispute, convicted=False),
    )
    for left, close in zip((2, 1), closing, strict=True):
        for function in ("settle", "redraw"):
            with world.refuses("StillOpen", task.id, left):
                task.call(function)
        world.wait(SPEC.audit_window)
        close()
    task.call("settle")
    assert task.state.status == Status.SETTLED
    world.assert_solvent()


@pytest.mark.parametrize("attested", [0, 1])
def test_nothing_settles_without_a_quorum_of_attestations(attested: int) -> None:
    task = at(Status.SEALING)
    for i, verifier in enumerate(task.drawn):
        task.seal(verifier, None if i < attested else [])
    task.open_ends()
    for i, verifier in enumerate(task.drawn):
        task.reveal(verifier, None if i < attested else [])
    task.world.wait_beyond(task.state.deadline)
    with task.world.refuses("NotAttested", task.id):
        task.call("settle")


@pytest.mark.parametrize("how", ["silent", "unrevealed", "mismatched"])
def test_who_did_not_attest_is_slashed_when_enough_others_did(how: str) -> None:
    task = at(Status.SEALING, committee=3)
    world, (first, second, other) = task.world, task.drawn
    burned, events = world.burned(), []
    task.seal(first)
    task.seal(second)
    if how != "silent":
        task.seal(other, [])
    world.wait_beyond(task.state.deadline)
    events += task.open_ends().all("VerifierSlashed")
    task.reveal(first)
    task.reveal(second)
    if how == "unrevealed":
        world.wait_beyond(task.state.deadline)
        task.call("openWindow")
    elif how == "mismatched":
        task.reveal(other, [])
    world.wait_beyond(task.state.deadline)
    free = world.free(SUBMITTER)
    events += task.call("settle").all("VerifierSlashed")
    assert [raw(event["verifier"]) for event in events] == [other]
    assert world.burned() == burned + STAKE
    assert [world.slots(v) for v in (first, second, other)] == [2, 2, 1]
    assert task.seats[2].state == SeatState.SLASHED
    # The fees that nobody earned go back.
    fees = 2 * SPEC.verifier_fee
    assert world.free(SUBMITTER) == free + task.spec.escrow - BUDGET - fees
    world.assert_solvent()


def test_terms_of_another_task_settle_nothing() -> None:
    task = at(Status.WINDOW)
    task.world.wait_beyond(task.state.deadline)
    greedy = replace(task, spec=replace(task.spec, solver_stake=100 * SPEC.solver_stake))
    given = greedy.world.post(solver_stake=100 * SPEC.solver_stake).state.spec_hash
    with task.world.refuses("WrongSpec", task.id, task.state.spec_hash, given):
        greedy.call("settle")
    task.world.assert_solvent()


# Second audits.


def test_a_second_audit_by_others_must_agree_too_and_is_paid_like_the_first() -> None:
    task = at(Status.REVEALING, second_audit=255)
    world, early = task.world, task.drawn
    for verifier in early:
        task.reveal(verifier)
    task.reach(Status.WINDOW)
    late = task.drawn
    assert not set(early) & set(late)
    world.wait_beyond(task.state.deadline)
    before = [world.free(v) for v in (*early, *late)]
    task.call("settle")
    assert [world.free(v) for v in (*early, *late)] == [b + SPEC.verifier_fee for b in before]
    assert all(world.slots(v) == 2 for v in (*early, *late))
    world.assert_solvent()


def test_two_that_collude_are_caught_by_the_second_audit() -> None:
    task = at(Status.SEALING, second_audit=255)
    world, liars = task.world, task.drawn
    lies = [task.claimed[run.first + run.count] for run in task.runs]
    for liar in liars:
        task.seal(liar, lies)
    task.open_ends()
    for liar in liars:
        task.reveal(liar, lies)
    assert task.state.status == Status.COMMITTED
    task.truth = [root[::-1] for root in task.claimed]
    task.reach(Status.SEALING)
    honest = task.drawn
    for verifier in honest:
        task.seal(verifier)
    task.open_ends()
    for verifier in honest:
        task.reveal(verifier)
    world.decide(task.challenge(honest[0]), convicted=True)
    task.punish()
    assert world.free(SOLVER) == FUNDS - SPEC.solver_stake
    assert all(world.slots(v) == 2 for v in honest)
    world.assert_solvent()
