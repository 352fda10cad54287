# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks in which somebody lied, and what a conviction is worth."""

from __future__ import annotations

from typing import Any

from eth_utils.crypto import keccak

from protocol.task import SeatState, Status
from tests.market_driver import SPEC, STAKE, Task, at, role

BOND = SPEC.bond
STAKED = SPEC.solver_stake
REWARD = STAKED * 40 // 100
COMPENSATION = STAKED * 20 // 100
BURNED = STAKED - REWARD - COMPENSATION
VERIFIER_REWARD = STAKE * 40 // 100
SYBIL = role("sybil of the solver")


def cheated(**changes: Any) -> Task:
    """A task whose solver lied about every checkpoint. Of three drawn verifiers two attested all
    the same and the last one revealed another digest. Disputes may be opened.
    """
    task = at(Status.SEALING, **{"committee": 3, **changes})
    task.truth = [keccak(root) for root in task.claimed]
    *liars, honest = task.drawn
    lie = [task.claimed[run.first + run.count] for run in task.runs]
    for liar in liars:
        task.seal(liar, lie)
    task.seal(honest)
    task.open_ends()
    for liar in liars:
        task.reveal(liar, lie)
    task.reveal(honest)
    attested = [SeatState.ATTESTED] * len(liars)
    assert [seat.state for seat in task.seats] == [*attested, SeatState.MISMATCHED]
    task.world.fund(SYBIL)
    return task


def objected(second_audit: int, **changes: Any) -> tuple[Task, bytes]:
    """Two attested, one has objected; the window is open."""
    task = at(Status.SEALING, committee=3, second_audit=second_audit, **changes)
    *honest, odd = task.drawn
    lie = [keccak(root) for root in task.digests()]
    task.seal(odd, lie)
    for verifier in honest:
        task.seal(verifier)
    task.open_ends()
    task.reveal(odd, lie)
    for verifier in honest:
        task.reveal(verifier)
    assert task.state.status == Status.WINDOW
    return task, odd
