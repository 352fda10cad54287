# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks from posting to the complete checkpoint log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import eth_abi
import pytest
from eth_utils.crypto import keccak

from protocol.commitments import checkpoint_leaf_hash
from protocol.merkle import Tree, node_hash
from protocol.task import Status, TaskSpec
from tests.evm import ETHER
from tests.market_driver import (
    BUDGET,
    FUNDS,
    NOBODY,
    RIVAL,
    SOLVER,
    SPEC,
    STRANGER,
    SUBMITTER,
    Task,
    World,
    at,
    fresh_world,
    raw,
    salt,
)

SPEC_TYPE = "(" + "bytes32," * 5 + "uint32," * 4 + "uint64,uint32,uint8,uint8,"
SPEC_TYPE += "uint128," * 3 + "uint32," * 4 + "uint32)"
FEES = SPEC.committee * SPEC.verifier_fee
UINT32, UINT96 = 2**32 - 1, 2**96 - 1


@pytest.fixture
def world() -> World:
    return fresh_world()


def wrong(task: Task) -> tuple[TaskSpec, bytes, bytes]:
    """Terms with one field changed, and both hashes."""
    spec = replace(task.spec, verifier_fee=task.spec.verifier_fee + 1)
    hashes = [keccak(eth_abi.encode([SPEC_TYPE], [s.as_abi()])) for s in (task.spec, spec)]
    return spec, hashes[0], hashes[1]


# Posting and cancelling.


def test_posting_escrows_the_budget_and_publishes_the_terms(world: World) -> None:
    in_hand = world.evm.balance(SUBMITTER)
    value = BUDGET + FEES
    done = world.send("post", SPEC.as_abi(), "store", sender=SUBMITTER, value=value)
    event = done.event("TaskPosted")
    assert (event["id"], event["budget"], event["artifacts"]) == (1, BUDGET, "store")
    assert event["spec"] == SPEC.as_abi()
    state = Task(world, 1, SPEC).state
    assert state.spec_hash == keccak(eth_abi.encode([SPEC_TYPE], [SPEC.as_abi()]))
    assert (state.price, state.escrow, state.stake) == (BUDGET, value, SPEC.solver_stake)
    assert (state.status, state.deadline) == (Status.BIDDING, world.evm.timestamp + SPEC.bid_window)
    assert raw(state.solver) == NOBODY
    assert world.evm.balance(SUBMITTER) == in_hand - value
    world.assert_solvent()


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("steps", {"steps": 0}),
        ("steps", {"steps": UINT32}),
        ("steps", {"steps": 2**64 - 1}),
        ("segmentSteps", {"segment_steps": 0}),
        ("segmentSteps", {"segment_steps": SPEC.steps + 1}),
        ("nNodes", {"n_state": 0}),
        ("nNodes", {"n_nodes": SPEC.n_state}),
        ("roots", {"program_root": bytes(32)}),
        ("roots", {"initial_root": bytes(32)}),
        ("committee", {"committee": 0}),
        ("committee", {"committee": 5}),
        ("samples", {"samples": 0}),
        ("samples", {"samples": 17, "segment_steps": 1}),
        ("samples", {"samples": 9}),
        ("stakes", {"solver_stake": 0}),
        ("stakes", {"bond": 0}),
        ("stakes", {"solver_stake": UINT96 + 1}),
        ("stakes", {"bond": UINT96 + 1}),
        ("verifierFee", {"verifier_fee": UINT96 + 1}),
        ("windows", {"bid_window": 0}),
        ("windows", {"train_window": 0}),
        ("windows", {"audit_window": 0}),
        ("windows", {"challenge_window": 0}),
        ("windows", {"dispute_clock": 0}),
        ("windows", {"dispute_clock": 90 * 86_400 + 1}),
        ("windows", {"bid_window": UINT32}),
    ],
)
def test_posting_terms_that_make_no_sense_is_refused(
    world: World, field: str, changes: dict[str, Any]
) -> None:
    spec = replace(SPEC, **changes)
    with world.refuses("InvalidSpec", field):
        world.send("post", spec.as_abi(), "", sender=SUBMITTER, value=BUDGET + FEES)


@pytest.mark.parametrize("value", [0, FEES - 1, FEES, UINT96 + 1])
def test_posting_a_budget_that_pays_nobody_or_overflows_is_refused(
    world: World, value: int
) -> None:
    world.evm.set_balance(SUBMITTER, 2**100)
    with world.refuses("InvalidSpec", "budget"):
        world.send("post", SPEC.as_abi(), "", sender=SUBMITTER, value=value)


def test_the_longest_schedule_that_is_accepted_can_be_completed(world: World) -> None:
    spec = replace(SPEC, steps=UINT32 - 1, segment_steps=1)
    terms = spec.as_abi()
    world.send("post", terms, "", sender=SUBMITTER, value=BUDGET + FEES)
    world.send("bid", 1, terms, 1, sender=SOLVER)
    world.wait(spec.bid_window + 1)
    world.send("assign", 1, terms, sender=STRANGER)
    # A log of 2^32 - 1 leaves in which all but leaf 0 are unknown siblings on its path.
    root, siblings = checkpoint_leaf_hash(bytes(32), spec.initial_root), []
    for level in range(32):
        siblings.append(bytes([level]) * 32)
        root = node_hash(root, siblings[-1])
    done = world.send("append", 1, terms, UINT32, root, siblings, sender=SOLVER)
    assert done.event("LogCompleted")["root"] == root
    world.wait(blocks=2)
    world.send("draw", 1, terms, sender=STRANGER)
    firsts = [run[0] for run in world.market.view("getRuns", 1)]
    assert all(first < UINT32 - 1 for first in firsts)


def test_cancelling_returns_the_escrow(world: World) -> None:
    task = world.post()
    free = world.free(SUBMITTER)
    done = task.plain("cancel", sender=SUBMITTER)
    assert done.event("TaskEnded")["reason"].rstrip(b"\0") == b"cancelled"
    assert task.state.status == Status.EXPIRED
    assert world.free(SUBMITTER) == free + BUDGET + FEES
    with world.refuses("WrongStatus", task.id, Status.EXPIRED):
        task.plain("cancel", sender=SUBMITTER)
    world.assert_solvent()


def test_cancelling_is_for_the_submitter_before_any_bid(world: World) -> None:
    task = world.post()
    with world.refuses("NotSubmitter", task.id, STRANGER):
        task.plain("cancel", sender=STRANGER)
    task.call("bid", BUDGET, sender=SOLVER)
    with world.refuses("WrongStatus", task.id, Status.BIDDING):
        task.plain("cancel", sender=SUBMITTER)


# Bidding.


def test_the_first_bid_may_ask_for_the_whole_budget_and_locks_the_stake(world: World) -> None:
    task = world.post()
    event = task.call("bid", BUDGET, sender=SOLVER).event("Bid")
    assert (event["price"], raw(event["solver"])) == (BUDGET, SOLVER)
    assert world.free(SOLVER) == FUNDS - SPEC.solver_stake
    assert (raw(task.state.solver), task.state.price) == (SOLVER, BUDGET)
    world.assert_solvent()


def test_a_lower_bid_takes_over_and_frees_the_other_stake(world: World) -> None:
    task = world.post()
    task.call("bid", BUDGET, sender=SOLVER)
    task.call("bid", BUDGET - 1, sender=RIVAL)
    assert (raw(task.state.solver), task.state.price) == (RIVAL, BUDGET - 1)
    assert world.free(SOLVER) == FUNDS
    assert world.free(RIVAL) == FUNDS - SPEC.solver_stake
    world.assert_solvent()


def test_the_best_bidder_may_lower_its_own_bid_with_one_stake(world: World) -> None:
    task = world.post(solver_stake=FUNDS)
    task.call("bid", 5, sender=SOLVER)
    assert world.free(SOLVER) == 0
    task.call("bid", 0, sender=SOLVER)
    assert (world.free(SOLVER), task.state.price) == (0, 0)
    world.assert_solvent()


def test_a_bid_that_is_not_below_the_best_is_refused(world: World) -> None:
    task = world.post()
    with world.refuses("PriceNotBelow", task.id, BUDGET + 1, BUDGET):
        task.call("bid", BUDGET + 1, sender=SOLVER)
    with world.refuses("PriceNotBelow", task.id, 2**96 + 5, BUDGET):  # a cast would make it 5
        task.call("bid", 2**96 + 5, sender=SOLVER)
    task.call("bid", 100, sender=SOLVER)
    with world.refuses("PriceNotBelow", task.id, 100, 100):
        task.call("bid", 100, sender=RIVAL)


def test_a_bid_without_the_stake_is_refused(world: World) -> None:
    task = world.post(solver_stake=FUNDS + 1)
    with world.refuses("InsufficientBalance", SOLVER, FUNDS + 1, FUNDS):
        task.call("bid", 1, sender=SOLVER)


def test_the_submitter_cannot_bid(world: World) -> None:
    task = world.post()
    with world.refuses("SubmitterMayNotBid", task.id):
        task.call("bid", 1, sender=SUBMITTER)


def test_bids_count_until_the_last_second_and_no_longer(world: World) -> None:
    task = world.post()
    deadline = task.state.deadline
    world.wait_until(deadline)
    task.call("bid", 5, sender=SOLVER)
    with world.refuses("TooEarly", task.id, deadline):
        task.call("assign")
    world.wait_beyond(deadline)
    with world.refuses("TooLate", task.id, deadline):
        task.call("bid", 4, sender=RIVAL)


def test_assigning_starts_the_training_once() -> None:
    task = at(Status.TRAINING)
    assert task.state.deadline == task.world.evm.timestamp + SPEC.train_window
    for function, arguments in (("assign", []), ("bid", [1])):
        with task.world.refuses("WrongStatus", task.id, Status.TRAINING):
            task.call(function, *arguments)
    task.world.assert_solvent()


def test_a_task_without_bids_expires_and_refunds(world: World) -> None:
    task = world.post()
    world.wait_beyond(task.state.deadline)
    free = world.free(SUBMITTER)
    task.call("assign")
    assert task.state.status == Status.EXPIRED
    assert world.free(SUBMITTER) == free + BUDGET + FEES
    world.assert_solvent()


def test_every_entry_point_refuses_other_terms_than_the_posted_ones() -> None:
    bidding, training = {"bid": [1], "assign": []}, {"append": [1, bytes(32), []]}
    sealing = {"redraw": [], "openEnds": [[], (bytes(32), bytes(32), [])]}
    window = {"settle": [], "redraw": [], "challenge": [0]}
    for status, functions in {
        Status.BIDDING: bidding,
        Status.TRAINING: {**training, "defaulted": []},
        Status.COMMITTED: {"draw": []},
        Status.STARTING: {"openStarts": [[]], "defaulted": []},
        Status.SEALING: sealing,
        Status.REVEALING: {"openWindow": [], "challenge": [0]},
        Status.WINDOW: window,
    }.items():
        task = at(status)
        spec, expected, given = wrong(task)
        for function, arguments in functions.items():
            with task.world.refuses("WrongSpec", task.id, expected, given):
                task.world.send(function, task.id, spec.as_abi(), *arguments, sender=SOLVER)


def test_terms_with_dirty_bits_above_a_field_are_refused(world: World) -> None:
    task = world.post()
    data = bytearray(world.market.calldata("bid", task.id, SPEC.as_abi(), 1))
    data[4 + 32 + 11 * 32] = 0xFF  # above the uint8 committee
    before = world.picture()
    with pytest.raises(Exception, match="Revert"):
        world.evm.call(world.market.address, bytes(data), sender=SOLVER)
    assert world.picture() == before


@pytest.mark.parametrize("function", ["bid", "assign", "append", "draw", "settle", "defaulted"])
def test_a_task_that_was_never_posted_has_no_entry_point(world: World, function: str) -> None:
    arguments: dict[str, list[Any]] = {"bid": [1], "append": [1, bytes(32), []]}
    zero = bytes(32)
    spec_hash = keccak(eth_abi.encode([SPEC_TYPE], [SPEC.as_abi()]))
    expected = ("WrongStatus", 99, 0)
    if function == "defaulted":
        expected = ("WrongSpec", 99, zero, spec_hash)  # type: ignore[assignment]
    with world.refuses(*expected):
        call = [99, SPEC.as_abi(), *arguments.get(function, [])]
        world.send(function, *call, sender=SOLVER)


# The checkpoint log.


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
    assert (event["amount"], event["reason"].rstrip(b"\0")) == (5 * ETHER, b"default")
    # No compensation: the submitter may have caused it, by withholding data.
    assert task.world.free(SUBMITTER) == free + BUDGET + FEES
    assert task.world.burned() == burned + SPEC.solver_stake
    assert task.world.free(SOLVER) == FUNDS - SPEC.solver_stake
    with task.world.refuses("WrongStatus", task.id, Status.SLASHED):
        task.call("defaulted")
    task.world.assert_solvent()
