# SPDX-License-Identifier: GPL-3.0-or-later
"""The sealed audit: ends and reveals."""

from __future__ import annotations

import eth_abi
import pytest
from eth_utils.crypto import keccak

from protocol.task import SeatState, Status
from tests.market_driver import (
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    at,
    outsider,
    raw,
    states,
)

DRAWN, SEALED, ATTESTED, MISMATCHED, DISPUTING, UNAVAILABLE, SLASHED = SeatState


def test_no_end_is_opened_while_a_drawn_verifier_may_still_seal() -> None:
    task = at(Status.SEALING)
    first, second = task.drawn
    with task.world.refuses("SealNotOver", task.id):
        task.open_ends()
    task.seal(first)
    task.world.wait_until(task.state.deadline)
    with task.world.refuses("SealNotOver", task.id):
        task.open_ends()
    task.seal(second)
    task.open_ends()
    assert task.state.status == Status.REVEALING


@pytest.mark.parametrize("seals", [0, 1, 2])
def test_after_the_deadline_two_seals_are_enough_and_fewer_are_not(seals: int) -> None:
    task = at(Status.SEALING, committee=3)
    drawn = task.drawn
    for verifier in drawn[:seals]:
        task.seal(verifier)
    limit = task.state.deadline + SPEC.audit_window
    task.world.wait_until(limit)
    if seals < 2:
        with task.world.refuses("SealNotOver", task.id):
            task.open_ends()
        task.world.wait_beyond(limit)
        with task.world.refuses("NoDefault", task.id):  # the verifiers are late, not the solver
            task.call("defaulted")
        return
    done = task.open_ends()
    state = task.state
    assert (state.status, state.deadline) == (Status.REVEALING, limit + SPEC.audit_window)
    assert done.event("EndsOpened")["finalRoot"] == task.claimed[8]
    # Who did not seal has lost its stake.
    assert states(task) == [SEALED, SEALED, SLASHED]
    assert raw(done.event("VerifierSlashed")["verifier"]) == drawn[2]
    assert task.world.burned() == STAKE
    task.world.assert_solvent()


def test_ends_are_opened_by_the_solver_once_completely_and_in_time() -> None:
    task = at(Status.SEALING)
    for verifier in task.drawn:
        task.seal(verifier)
    ends, last, limit = task.ends(), task.opening(8), task.state.deadline + SPEC.audit_window
    with task.world.refuses("NotSolver", task.id, STRANGER):
        task.call("openEnds", ends, last, sender=STRANGER)
    with task.world.refuses("WrongCount", 3, 2):
        task.call("openEnds", [*ends, last], last, sender=SOLVER)
    mark = task.world.evm.mark()
    done = task.open_ends()
    event = done.event("EndsOpened")
    assert [(s, r, list(p)) for s, r, p in event["openings"]] == task.ends()
    assert event["round"] == task.state.round
    assert task.state.ends_hash == keccak(
        eth_abi.encode(["bytes32[]"], [[r for _, r, _ in event["openings"]]])
    )
    with task.world.refuses("WrongStatus", task.id, Status.REVEALING):
        task.call("openEnds", ends, last, sender=SOLVER)
    task.world.evm.back(mark)
    with task.world.refuses("TooEarly", task.id, limit):
        task.call("defaulted")
    task.world.wait_beyond(limit)
    with task.world.refuses("TooLate", task.id, limit):
        task.call("openEnds", ends, last, sender=SOLVER)
    task.call("defaulted")
    assert task.state.status == Status.SLASHED
    assert [task.world.slots(v) for v in task.drawn] == [2, 2]
    task.world.assert_solvent()


def test_reveals_attest_or_mismatch_once_and_in_time() -> None:
    task = at(Status.REVEALING)
    first, second = task.drawn
    mark = task.world.evm.mark()
    event = task.reveal(first).event("Revealed")
    assert (raw(event["verifier"]), event["attested"]) == (first, True)
    assert states(task) == [ATTESTED, SEALED]
    with task.world.refuses("NotSealed", task.id, first):
        task.reveal(first)
    with task.world.refuses("NotDrawn", task.id, outsider(task)):
        task.reveal(outsider(task))
    with task.world.refuses("WrongSeal", task.id, second):
        task.reveal(second, [keccak(root) for root in task.digests()])
    task.world.evm.back(mark)
    deadline = task.state.deadline
    task.world.wait_until(deadline)
    task.reveal(first)
    task.world.wait_beyond(deadline)
    with task.world.refuses("TooLate", task.id, deadline):
        task.reveal(second)
    with task.world.refuses("WrongStatus", task.id, Status.REVEALING):
        task.plain("seal", task.seat(second), b"\x01" * 32, sender=second)


@pytest.mark.parametrize("what", ["one root", "too few", "too many", "none", "swapped"])
def test_digests_that_are_not_exactly_the_solvers_do_not_attest(what: str) -> None:
    task = at(Status.SEALING)
    verifier, roots = task.drawn[0], task.digests()
    other = {
        "one root": [roots[0], keccak(roots[1])],
        "too few": roots[:1],
        "too many": [*roots, bytes(32)],
        "none": [],
        "swapped": roots[::-1],
    }[what]
    task.seal(verifier, other)
    task.seal(task.drawn[1])
    task.open_ends()
    assert task.reveal(verifier, other).event("Revealed")["attested"] is False
    assert states(task) == [MISMATCHED, SEALED]


def test_the_window_opens_when_all_have_revealed_or_may_no_longer() -> None:
    task = at(Status.REVEALING)
    deadline, (first, second) = task.state.deadline, task.drawn
    task.reveal(first)
    with task.world.refuses("TooEarly", task.id, deadline):
        task.call("openWindow")
    mark = task.world.evm.mark()
    done = task.reveal(second)  # the last one
    opened = task.world.evm.timestamp + SPEC.challenge_window
    assert done.event("WindowOpened")["deadline"] == task.state.deadline == opened
    with task.world.refuses("WrongStatus", task.id, Status.WINDOW):
        task.call("openWindow")
    with task.world.refuses("WrongStatus", task.id, Status.WINDOW):
        task.reveal(first)
    task.world.evm.back(mark)
    task.world.wait_beyond(deadline)
    task.call("openWindow")
    assert (task.state.status, states(task)) == (Status.WINDOW, [ATTESTED, SEALED])


def test_one_attestation_settles_nothing() -> None:
    task = at(Status.REVEALING)
    task.reveal(task.drawn[0])
    task.world.wait_beyond(task.state.deadline)
    task.call("openWindow")
    task.world.wait_beyond(task.state.deadline)
    with task.world.refuses("NotAttested", task.id):
        task.call("settle")
    task.call("redraw")
    assert (task.state.status, task.state.retries) == (Status.COMMITTED, 1)
    assert states(task) == [ATTESTED, SLASHED]
    task.world.assert_solvent()


def test_who_did_not_reveal_or_stands_alone_loses_its_stake_at_the_settlement() -> None:
    task = at(Status.SEALING, committee=4)
    silent, alone, *honest = task.drawn
    lie = [keccak(root) for root in task.digests()]
    for verifier in task.drawn:
        task.seal(verifier, lie if verifier == alone else None)
    task.open_ends()
    task.reveal(alone, lie)
    for verifier in honest:
        task.reveal(verifier)
    task.world.wait_beyond(task.state.deadline)
    task.call("openWindow")
    task.world.wait_beyond(task.state.deadline)
    task.call("settle")
    assert task.state.status == Status.SETTLED
    assert [task.seats[task.seat(v)].state for v in (silent, alone)] == [SLASHED, SLASHED]
    assert task.world.burned() == 2 * STAKE
    assert [task.world.slots(v) for v in (silent, alone, *honest)] == [1, 1, 2, 2]
    task.world.assert_solvent()
