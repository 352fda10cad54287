# SPDX-License-Identifier: GPL-3.0-or-later
"""The checkpoint log of a task, and the solver that does not finish it."""

from __future__ import annotations

import pytest
from eth_utils.crypto import keccak

from protocol.commitments import checkpoint_leaf_hash
from protocol.merkle import Tree
from protocol.task import Status
from tests.market_driver import (
    FUNDS,
    RIVAL,
    SOLVER,
    SPEC,
    SUBMITTER,
    at,
    salt,
)


def test_the_log_grows_by_proofs_and_its_last_leaf_ends_the_training() -> None:
    task = at(Status.TRAINING)
    for size in (1, 2, 5, 6, 8):
        event = task.append(size).event("LogAppended")
        assert (event["size"], event["root"]) == (size, task.log(size).root)
        assert (task.state.log_size, task.state.log_root) == (size, task.log(size).root)
        assert task.state.status == Status.TRAINING
    done = task.append(9)
    assert done.event("LogCompleted")["drawBlock"] == task.world.evm.number + 1
    state = task.state
    assert (state.status, state.draw_block) == (Status.COMMITTED, task.world.evm.number + 1)
    # Six verifiers with two stakes each.
    assert (state.committed_block, state.pool) == (task.world.evm.number, 12)
    assert state.deadline == task.world.evm.timestamp + SPEC.audit_window
    with task.world.refuses("WrongStatus", task.id, Status.COMMITTED):
        task.append(9)


def test_the_whole_log_may_come_at_once() -> None:
    task = at(Status.TRAINING)
    task.append(9)
    assert task.state.status == Status.COMMITTED


def test_only_the_solver_appends_and_only_in_time() -> None:
    task = at(Status.TRAINING)
    deadline = task.state.deadline
    with task.world.refuses("NotSolver", task.id, RIVAL):
        task.append(3, sender=RIVAL)
    task.world.wait_until(deadline)
    task.append(3)
    task.world.wait_beyond(deadline)
    with task.world.refuses("TooLate", task.id, deadline):
        task.append(5)


def test_a_log_that_shrinks_stays_or_outgrows_the_schedule_is_refused() -> None:
    task = at(Status.TRAINING)
    with task.world.refuses("WrongLogSize", task.id, 0, 1, 9):
        task.call("append", 0, bytes(32), [], sender=SOLVER)
    with task.world.refuses("WrongLogSize", task.id, 10, 1, 9):
        task.append(10)
    task.append(4)
    for size in (2, 4, 10):
        with task.world.refuses("WrongLogSize", task.id, size, 5, 9):
            task.append(size)


def test_a_log_that_starts_elsewhere_is_refused() -> None:
    task = at(Status.TRAINING)
    task.claimed[0] = keccak(text="foreign start")
    for size in (1, 4, 9):
        with task.world.refuses("BadProof", task.id, "leaf 0"):
            task.append(size)


def test_a_salted_first_leaf_is_refused() -> None:
    task = at(Status.TRAINING)
    leaves = [checkpoint_leaf_hash(salt(i + 1), root) for i, root in enumerate(task.claimed)]
    tree = Tree(leaves)
    with task.world.refuses("BadProof", task.id, "leaf 0"):
        task.append(9, root=tree.root, proof=tree.inclusion_proof(0))


@pytest.mark.parametrize("old", [1, 3, 4, 7])
def test_a_forked_log_is_refused(old: int) -> None:
    task = at(Status.TRAINING)
    task.append(old)
    task.claimed[old - 1] = keccak(text="second thoughts")
    with task.world.refuses("BadProof", task.id, "consistency"):
        task.append(9)


@pytest.mark.parametrize("damage", ["missing", "extra", "flipped"])
def test_a_damaged_proof_is_refused(damage: str) -> None:
    task = at(Status.TRAINING)
    first = task.log(4).inclusion_proof(0)
    for what in ("leaf 0", "consistency"):
        proof = list(first) if what == "leaf 0" else task.log(9).consistency_proof(4)
        if damage == "missing":
            proof.pop()
        elif damage == "extra":
            proof.append(bytes(32))
        else:
            proof[-1] = bytes(32)
        with task.world.refuses("BadProof", task.id, what):
            task.append(4 if what == "leaf 0" else 9, proof=proof)
        if what == "leaf 0":
            task.append(4)


def test_a_solver_that_does_not_finish_loses_its_stake_to_nobody() -> None:
    task = at(Status.TRAINING)
    task.append(4)
    deadline = task.state.deadline
    with task.world.refuses("TooEarly", task.id, deadline):
        task.call("defaulted")
    task.world.wait_beyond(deadline)
    free, burned = task.world.free(SUBMITTER), task.world.burned()
    event = task.call("defaulted").event("SolverSlashed")
    assert event["amount"] == SPEC.solver_stake
    assert event["reason"].rstrip(b"\0") == b"default"
    # No compensation: the submitter may have caused it, by withholding data.
    assert task.world.free(SUBMITTER) == free + SPEC.escrow
    assert task.world.burned() == burned + SPEC.solver_stake
    assert task.world.free(SOLVER) == FUNDS - SPEC.solver_stake
    with task.world.refuses("WrongStatus", task.id, Status.SLASHED):
        task.call("defaulted")
    task.world.assert_solvent()
