# SPDX-License-Identifier: GPL-3.0-or-later
"""The sealed audit: starts and seals."""

from __future__ import annotations

from typing import Any

import pytest
from eth_utils.crypto import keccak

from protocol.task import NO_SEAT, SeatState, Status, seal_digest
from tests.evm import CHAIN_ID
from tests.market_driver import (
    BUDGET,
    RECEIPT,
    SOLVER,
    SPEC,
    STRANGER,
    SUBMITTER,
    at,
    nonce,
    outsider,
    raw,
    states,
)

DRAWN, SEALED, ATTESTED, MISMATCHED, DISPUTING, UNAVAILABLE, SLASHED = SeatState


# Starts.


def test_starts_are_opened_by_the_solver_once_and_in_time() -> None:
    task = at(Status.STARTING)
    deadline, openings = task.state.deadline, task.starts()
    with task.world.refuses("NotSolver", task.id, STRANGER):
        task.call("openStarts", openings, sender=STRANGER)
    with task.world.refuses("WrongCount", 1, 2):
        task.call("openStarts", openings[:1], sender=SOLVER)
    task.world.wait_until(deadline)
    done = task.open_starts()
    event = done.event("StartsOpened")
    # Also from a solver that hides behind a contract of its own.
    assert [(s, r, list(p)) for s, r, p in event["openings"]] == task.starts()
    assert event["round"] == task.state.round
    assert task.state.deadline == deadline + SPEC.audit_window
    with task.world.refuses("WrongStatus", task.id, Status.SEALING):
        task.call("openStarts", openings, sender=SOLVER)


def test_late_starts_are_refused_and_cost_the_stake() -> None:
    task = at(Status.STARTING)
    deadline, openings, drawn = task.state.deadline, task.starts(), task.drawn
    with task.world.refuses("TooEarly", task.id, deadline):
        task.call("defaulted")
    task.world.wait_beyond(deadline)
    with task.world.refuses("TooLate", task.id, deadline):
        task.call("openStarts", openings, sender=SOLVER)
    free = task.world.free(SUBMITTER)
    task.call("defaulted")
    # The submitter gets its escrow and a fifth of the stake; the verifiers lost nothing.
    assert task.world.free(SUBMITTER) == free + SPEC.escrow + SPEC.solver_stake // 5
    assert [task.world.slots(v) for v in drawn] == [2, 2]
    task.world.assert_solvent()


def damaged(opening: tuple[bytes, bytes, list[bytes]], how: str) -> tuple[Any, ...]:
    salt, root, proof = opening
    return {
        "salt": (keccak(salt), root, proof),
        "root": (salt, keccak(root), proof),
        "short proof": (salt, root, proof[:-1]),
        "long proof": (salt, root, [*proof, bytes(32)]),
    }[how]


DAMAGES = ("salt", "root", "short proof", "long proof", "other leaf")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_start_that_the_log_does_not_hold_is_refused(how: str) -> None:
    task = at(Status.STARTING)
    wrong = task.opening(8) if how == "other leaf" else damaged(task.starts()[0], how)
    with task.world.refuses("BadProof", task.id, "checkpoint"):
        task.call("openStarts", [wrong, *task.starts()[1:]], sender=SOLVER)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("last", [False, True])
def test_an_end_that_the_log_does_not_hold_is_refused(how: str, last: bool) -> None:
    task = at(Status.SEALING)
    for verifier in task.drawn:
        task.seal(verifier)
    ends, final = task.ends(), task.opening(8)
    victim = final if last else ends[0]
    wrong = task.opening(0) if how == "other leaf" else damaged(victim, how)
    arguments = (ends, wrong) if last else ([wrong, *ends[1:]], final)
    with task.world.refuses("BadProof", task.id, "checkpoint"):
        task.call("openEnds", *arguments, sender=SOLVER)


def test_a_checkpoint_without_a_root_cannot_hide_from_disputes() -> None:
    # The game knows no state root zero: were it opened, nobody could dispute it.
    task = at(Status.TRAINING, samples=8)
    task.claimed[8] = bytes(32)
    task.reach(Status.SEALING)
    for verifier in task.drawn:
        task.seal(verifier)
    with task.world.refuses("BadProof", task.id, "checkpoint"):
        task.open_ends()
    task.world.wait_beyond(task.state.deadline + SPEC.audit_window)
    task.call("defaulted")
    assert task.state.status == Status.SLASHED


# Seals.


def test_a_seal_is_what_the_client_computes_and_binds_chain_market_task_round_and_sender() -> None:
    task = at(Status.SEALING)
    verifier, roots = task.drawn[0], task.digests()
    digest = task.world.market.view("sealOf", task.id, verifier, nonce(verifier), roots)
    market = "0x" + task.world.market.address.hex()

    def client(**changes: Any) -> bytes:
        parts = {"chain": CHAIN_ID, "market": market, "task": task.id, "round": 1} | changes
        who = parts.get("who", verifier)
        order = [parts[key] for key in ("chain", "market", "task", "round")]
        return seal_digest(*order, "0x" + who.hex(), nonce(verifier), roots)

    assert client() == digest
    changes = [{"chain": 1}, {"market": "0x" + bytes(20).hex()}, {"task": 2}, {"round": 2}]
    assert digest not in [client(**change) for change in (*changes, {"who": task.drawn[1]})]


def test_drawn_verifiers_seal_once_and_in_time() -> None:
    task = at(Status.SEALING)
    first, second = task.drawn
    task.world.wait_until(task.state.deadline)
    assert raw(task.seal(first).event("Sealed")["verifier"]) == first
    assert states(task) == [SEALED, DRAWN]
    with task.world.refuses("AlreadySealed", task.id, first):
        task.seal(first)
    with task.world.refuses("EmptySeal"):
        task.plain("seal", task.seat(second), bytes(32), sender=second)
    for seat in (task.seat(second), 2, NO_SEAT, 2**255):
        with task.world.refuses("NotDrawn", task.id, first):
            task.plain("seal", seat, keccak(b"seal"), sender=first)
    with task.world.refuses("NotDrawn", task.id, outsider(task)):
        task.seal(outsider(task))
    deadline = task.state.deadline
    task.world.wait_beyond(deadline)
    with task.world.refuses("TooLate", task.id, deadline):
        task.seal(second)


def test_a_verifier_that_does_not_like_the_terms_leaves_before_the_starts_are_opened() -> None:
    task = at(Status.STARTING)
    world, (first, second) = task.world, task.drawn
    deadline = task.state.deadline
    task.plain("reportUnavailable", task.seat(first), sender=first)
    assert states(task) == [UNAVAILABLE, DRAWN]
    assert world.slots(first) == 2
    mark = world.evm.mark()
    world.wait_beyond(deadline)
    with world.refuses("TooLate", task.id, deadline):
        task.plain("reportUnavailable", task.seat(second), sender=second)
    world.evm.back(mark)
    world.wait_until(deadline)
    task.plain("reportUnavailable", task.seat(second), sender=second)
    task.open_starts()
    task.call("redraw")  # at once
    assert task.state.status == Status.COMMITTED
    world.assert_solvent()


@pytest.mark.parametrize(
    ("status", "function"),
    [
        (Status.STARTING, "seal"),
        (Status.REVEALING, "seal"),
        (Status.REVEALING, "reportUnavailable"),
        (Status.WINDOW, "reportUnavailable"),
    ],
)
def test_seats_are_used_only_while_sealing(status: Status, function: str) -> None:
    task = at(status)
    arguments = [keccak(b"seal")] if function == "seal" else []
    with task.world.refuses("WrongStatus", task.id, status):
        task.plain(function, 0, *arguments, sender=task.drawn[0])


def test_a_copied_seal_cannot_be_revealed() -> None:
    task = at(Status.SEALING)
    honest, copier = task.drawn
    roots = task.digests()
    digest = task.world.market.view("sealOf", task.id, honest, nonce(honest), roots)
    for verifier in (honest, copier):
        task.plain("seal", task.seat(verifier), digest, sender=verifier)
    task.open_ends()
    task.reveal(honest)
    seat = task.seat(copier)
    for word in (nonce(honest), nonce(copier)):
        with task.world.refuses("WrongSeal", task.id, copier):
            task.call("reveal", seat, word, roots, RECEIPT, sender=copier)
    with task.world.refuses("NotDrawn", task.id, copier):
        task.call("reveal", task.seat(honest), nonce(honest), roots, RECEIPT, sender=copier)


def test_who_cannot_replay_leaves_its_seat_without_loss_and_says_so() -> None:
    task = at(Status.SEALING, committee=4)
    first, second, third, fourth = task.drawn
    with task.world.refuses("NotDrawn", task.id, STRANGER):
        task.plain("reportUnavailable", 0, sender=STRANGER)
    done = task.plain("reportUnavailable", task.seat(first), sender=first)
    assert raw(done.event("Unavailable")["verifier"]) == first
    assert states(task) == [UNAVAILABLE, DRAWN, DRAWN, DRAWN]
    assert task.world.slots(first) == 2
    task.world.assert_solvent()
    for function, arguments in (("reportUnavailable", []), ("seal", [b"\x01" * 32])):
        with task.world.refuses("AlreadySealed", task.id, first):
            task.plain(function, task.seat(first), *arguments, sender=first)
    task.seal(second)
    with task.world.refuses("AlreadySealed", task.id, second):
        task.plain("reportUnavailable", task.seat(second), sender=second)
    task.seal(third)
    task.seal(fourth)
    task.open_ends()  # at once: nobody is left that could seal
    with task.world.refuses("NotSealed", task.id, first):
        task.reveal(first)
    task.reveal(second)
    task.reveal(third)
    task.reveal(fourth)
    task.world.wait_beyond(task.state.deadline)
    free = task.world.free(SUBMITTER)
    task.call("settle")
    assert task.world.free(SUBMITTER) == free + task.spec.escrow - BUDGET - 3 * SPEC.verifier_fee
    assert [task.world.slots(v) for v in (first, second, third, fourth)] == [2, 2, 2, 2]
    task.world.assert_solvent()


def test_a_late_report_of_unavailability_is_refused() -> None:
    task = at(Status.SEALING)
    deadline = task.state.deadline
    task.world.wait_beyond(deadline)
    with task.world.refuses("TooLate", task.id, deadline):
        task.plain("reportUnavailable", 0, sender=task.drawn[0])
