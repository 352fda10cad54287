# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is paid when nobody convicted the solver, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.task import Status
from tests.market_chain import label
from tests.market_driver import (
    BUDGET,
    FUNDS,
    SOLVER,
    SPEC,
    STAKE,
    SUBMITTER,
    WHISTLEBLOWER,
    at,
    raw,
)


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
    task.call("settle")
    assert world.free(SOLVER) == FUNDS + price
    assert world.free(SUBMITTER) == free + BUDGET - price
    assert [world.free(v) for v in task.drawn] == [v + SPEC.verifier_fee for v in verifiers]
    assert [world.slots(v) for v in task.drawn] == [2, 2]
    assert world.burned() == burned
    assert (task.state.escrow, task.state.status) == (0, Status.SETTLED)
    for function in ("settle", "redraw", "defaulted"):
        with world.refuses("WrongStatus", task.id, Status.SETTLED):
            task.call(function)
    world.assert_solvent()


def test_settling_waits_for_every_dispute() -> None:
    task = at(Status.WINDOW)
    disputes = [task.challenge(WHISTLEBLOWER) for _ in range(2)]
    task.world.wait_beyond(task.state.deadline)
    for left, dispute in zip((2, 1), disputes, strict=True):
        for function in ("settle", "redraw"):
            with task.world.refuses("DisputesOpen", task.id, left):
                task.call(function)
        task.world.decide(dispute, convicted=False)
    task.call("settle")
    assert task.state.status == Status.SETTLED
    task.world.assert_solvent()


def test_nothing_settles_without_an_attestation() -> None:
    task = at(Status.SEALING)
    for verifier in task.drawn:
        task.seal(verifier, [])
    task.open_ends()
    task.reveal(task.drawn[0], [])  # mismatch; the other one never reveals
    task.world.wait_beyond(task.state.deadline)
    task.call("openWindow")
    task.world.wait_beyond(task.state.deadline)
    with task.world.refuses("NotAttested", task.id):
        task.call("settle")


@pytest.mark.parametrize("how", ["silent", "unrevealed", "mismatched"])
def test_who_did_not_attest_is_slashed_when_another_did(how: str) -> None:
    task = at(Status.SEALING)
    world, (attestor, other) = task.world, task.drawn
    task.seal(attestor)
    if how != "silent":
        task.seal(other, [])
    world.wait_beyond(task.state.deadline)
    task.open_ends()
    task.reveal(attestor)
    if how == "mismatched":
        task.reveal(other, [])
    world.wait_beyond(task.state.deadline)
    task.call("openWindow")
    world.wait_beyond(task.state.deadline)
    burned, free = world.burned(), world.free(SUBMITTER)
    done = task.call("settle")
    assert raw(done.event("VerifierSlashed")["verifier"]) == other
    assert done.event("Burned") == {"amount": STAKE, "reason": label("verifier")}
    assert world.burned() == burned + STAKE
    assert [world.slots(v) for v in (attestor, other)] == [2, 1]
    # The fee that nobody earned goes back.
    price = task.state.price
    assert world.free(SUBMITTER) == free + BUDGET - price + SPEC.verifier_fee
    world.assert_solvent()


def test_terms_of_another_task_settle_nothing() -> None:
    task = at(Status.WINDOW)
    task.world.wait_beyond(task.state.deadline)
    greedy = replace(task, spec=replace(task.spec, solver_stake=100 * SPEC.solver_stake))
    with pytest.raises(Exception, match="WrongSpec"):
        greedy.call("settle")
    task.world.assert_solvent()
