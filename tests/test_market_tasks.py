# SPDX-License-Identifier: GPL-3.0-or-later
"""Terms of tasks: posting, cancelling, and what every entry point asks of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import eth_abi
import pytest
from eth_utils.crypto import keccak

from protocol.commitments import checkpoint_leaf_hash
from protocol.merkle import node_hash
from protocol.task import NO_SEAT, Status, TaskSpec
from tests.evm import EvmReverted
from tests.market_driver import (
    BUDGET,
    FUNDS,
    NOBODY,
    SOLVER,
    SPEC,
    STAKE,
    STRANGER,
    SUBMITTER,
    Task,
    World,
    at,
    fresh_world,
    raw,
)
from tests.market_world import MIN_WINDOW

FIELDS = ["bytes32"] * 5 + ["uint32"] * 4 + ["uint64", "uint32", "uint32", "uint64", "uint32"]
FIELDS += ["uint8"] * 3 + ["address"] * 2 + ["uint96"] * 5 + ["uint32"] * 5
SPEC_TYPE = f"({','.join(FIELDS)})"
FEES = 3 * SPEC.committee * SPEC.verifier_fee  # of three rounds, should two of them fail
UINT24, UINT32, UINT96 = 2**24 - 1, 2**32 - 1, 2**96 - 1
LONGEST = 28 * 86_400  # of a window
NO_OPENING: tuple[bytes, bytes, list[bytes]] = (bytes(32), bytes(32), [])


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
    assert (event["id"], raw(event["submitter"]), event["artifacts"]) == (1, SUBMITTER, "store")
    assert event["spec"] == SPEC.as_abi()
    assert world.market.view("escrowOf", SPEC.as_abi()) == SPEC.escrow == value
    state = Task(world, 1, SPEC).state
    assert state.spec_hash == SPEC.hash == keccak(eth_abi.encode([SPEC_TYPE], [SPEC.as_abi()]))
    assert (state.status, state.deadline) == (Status.BIDDING, world.evm.timestamp + SPEC.bid_window)
    assert raw(state.solver) == NOBODY
    assert world.evm.balance(SUBMITTER) == in_hand - value
    world.tasks.append(Task(world, 1, SPEC))
    world.assert_solvent()


@pytest.mark.parametrize(
    ("window_segments", "second_audit", "audits"), [(8, 0, 1), (8, 1, 2), (3, 0, 3), (3, 255, 6)]
)
def test_the_escrow_pays_the_verifiers_of_every_round_that_may_come(
    world: World, window_segments: int, second_audit: int, audits: int
) -> None:
    spec = replace(SPEC, window_segments=window_segments, second_audit=second_audit, committee=4)
    expected = BUDGET + audits * 3 * 4 * SPEC.verifier_fee
    assert world.market.view("escrowOf", spec.as_abi()) == spec.escrow == expected


@pytest.mark.parametrize("sent", [0, 1, SPEC.escrow - 1, SPEC.escrow, SPEC.escrow + 7])
def test_posting_takes_what_is_not_sent_from_the_free_balance(world: World, sent: int) -> None:
    world.send("post", SPEC.as_abi(), "", sender=SUBMITTER, value=sent)
    assert world.free(SUBMITTER) == FUNDS + sent - SPEC.escrow
    world.tasks.append(Task(world, 1, SPEC))
    world.assert_solvent()


def test_posting_without_the_money_is_refused(world: World) -> None:
    world.send("withdraw", sender=SUBMITTER)
    with world.refuses("InsufficientBalance", SUBMITTER, SPEC.escrow, SPEC.escrow - 1):
        world.send("post", SPEC.as_abi(), "", sender=SUBMITTER, value=SPEC.escrow - 1)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("submitter", {"submitter": "0x" + STRANGER.hex()}),
        ("solver", {"solver": "0x" + SUBMITTER.hex()}),
        ("steps", {"steps": 0}),
        ("steps", {"steps": UINT32 + 1, "segment_steps": UINT32, "window_segments": 2}),
        ("steps", {"steps": 2**64 - 1}),
        ("steps", {"segment_steps": 0}),
        ("steps", {"segment_steps": SPEC.steps + 1}),
        ("segmentSteps", {"steps": UINT24, "segment_steps": 1, "window_segments": UINT24}),
        ("windowSegments", {"window_segments": 0}),
        ("windowSegments", {"window_segments": 9}),
        ("windowSegments", {"window_segments": 1, "steps": 33 * 5}),
        ("windowSegments", {"window_segments": 2, "steps": 64 * 5 + 1}),
        ("nNodes", {"n_state": 0}),
        ("nNodes", {"n_nodes": SPEC.n_state}),
        ("roots", {"program_root": bytes(32)}),
        ("roots", {"initial_root": bytes(32)}),
        ("committee", {"committee": 0}),
        ("committee", {"committee": 1}),
        ("committee", {"committee": 5}),
        ("samples", {"samples": 0}),
        ("samples", {"samples": 17, "segment_steps": 1, "window_segments": 38}),
        ("samples", {"samples": 9}),
        ("budget", {"budget": 0}),
        ("budget", {"budget": UINT96 - FEES + 1}),
        ("solverStake", {"solver_stake": 0}),
        ("solverStake", {"solver_stake": STAKE // 4 - 1}),
        ("verifierFee", {"verifier_fee": 0}),
        ("verifierFee", {"verifier_fee": STAKE // 1024 - 1}),
        ("bond", {"bond": 0}),
        ("bond", {"bond": STAKE // 32 - 1}),
        ("bond", {"bond": STAKE + 1}),
        ("bond", {"bond": UINT96}),
        ("windows", {"bid_window": 0}),
        ("windows", {"bid_window": MIN_WINDOW - 1}),
        ("windows", {"train_window": MIN_WINDOW - 1}),
        ("windows", {"audit_window": MIN_WINDOW - 1}),
        ("windows", {"challenge_window": MIN_WINDOW - 1}),
        ("windows", {"dispute_clock": MIN_WINDOW - 1}),
        ("windows", {"bid_window": LONGEST + 1}),
        ("windows", {"train_window": LONGEST + 1}),
        ("windows", {"audit_window": LONGEST + 1}),
        ("windows", {"challenge_window": LONGEST + 1}),
        ("windows", {"dispute_clock": LONGEST + 1}),
        ("windows", {"bid_window": UINT32}),
    ],
)
def test_posting_terms_that_make_no_sense_is_refused(
    world: World, field: str, changes: dict[str, Any]
) -> None:
    world.evm.set_balance(SUBMITTER, 2**100)
    spec = replace(SPEC, **changes)
    with world.refuses("InvalidSpec", field):
        world.send("post", spec.as_abi(), "", sender=SUBMITTER, value=2**98)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 32 * 5, "window_segments": 1},
        {"steps": 64 * 5, "window_segments": 2},
        {"committee": 4, "samples": 16, "segment_steps": 1, "window_segments": 38},
        {"samples": 8},
        {"steps": UINT32, "segment_steps": UINT32, "window_segments": 1, "samples": 1},
        {"segment_steps": SPEC.steps, "window_segments": 1, "samples": 1},
        {"n_nodes": SPEC.n_state + 1},
        {"budget": UINT96 - FEES},
        {"verifier_fee": STAKE // 1024, "solver_stake": STAKE // 4, "bond": STAKE // 32},
        {"solver_stake": UINT96, "bond": STAKE},
        {"bid_window": LONGEST, "train_window": LONGEST, "audit_window": LONGEST},
        {"challenge_window": LONGEST, "dispute_clock": LONGEST},
        {"bid_window": MIN_WINDOW, "train_window": MIN_WINDOW, "audit_window": MIN_WINDOW},
        {"challenge_window": MIN_WINDOW, "dispute_clock": MIN_WINDOW},
    ],
)
def test_terms_at_the_limits_are_accepted(world: World, changes: dict[str, Any]) -> None:
    world.evm.set_balance(SUBMITTER, 2**100)
    task = world.post(**changes)
    assert task.state.status == Status.BIDDING
    world.assert_solvent()


def test_the_longest_schedule_that_is_accepted_can_be_completed(world: World) -> None:
    spec = replace(SPEC, steps=UINT24 - 1, segment_steps=1, window_segments=UINT24 - 1)
    terms = spec.as_abi()
    world.send("post", terms, "", sender=SUBMITTER, value=spec.escrow)
    price, nonce = 7, bytes(32)
    digest = world.market.view("bidDigest", 1, SOLVER, price, nonce)
    world.send("bid", 1, terms, digest, sender=SOLVER)
    world.wait(spec.bid_window + 1)
    world.send("revealBid", 1, terms, price, nonce, sender=SOLVER)
    world.wait(spec.bid_window + 1)
    # A log of 2^24 - 1 leaves in which all but leaf 0 are unknown siblings on its path.
    root, siblings = checkpoint_leaf_hash(bytes(32), spec.initial_root), []
    for level in range(24):
        siblings.append(bytes([level]) * 32)
        root = node_hash(root, siblings[-1])
    done = world.send("append", 1, terms, UINT24, root, siblings, sender=SOLVER)
    assert done.event("LogCompleted")["root"] == root
    world.wait(blocks=2)
    world.send("draw", 1, terms, [], sender=STRANGER)
    runs = world.market.view("getRuns", 1)
    assert sum(run[1] for run in runs) == SPEC.samples
    assert all(run[0] + run[1] < UINT24 for run in runs)


def test_cancelling_returns_the_escrow(world: World) -> None:
    task = world.post()
    free = world.free(SUBMITTER)
    world.wait_until(task.state.deadline)
    done = task.call("cancel", sender=SUBMITTER)
    assert done.event("TaskCancelled")["id"] == task.id
    assert done.event("TaskEnded")["reason"].rstrip(b"\0") == b"cancelled"
    assert task.state.status == Status.EXPIRED
    assert world.free(SUBMITTER) == free + BUDGET + FEES
    with world.refuses("WrongStatus", task.id, Status.EXPIRED):
        task.call("cancel", sender=SUBMITTER)
    world.assert_solvent()


def test_cancelling_is_for_the_submitter_before_bids_may_be_revealed(world: World) -> None:
    task = world.post()
    deadline = task.state.deadline
    with world.refuses("NotSubmitter", task.id, STRANGER):
        task.call("cancel", sender=STRANGER)
    world.wait_beyond(deadline)
    with world.refuses("TooLate", task.id, deadline):
        task.call("cancel", sender=SUBMITTER)


def test_a_submitter_may_cancel_while_an_ask_leads_which_gets_all_back(world: World) -> None:
    task = world.post()
    world.send("setAsk", 1, 1, SPEC.memory_mib, 2**48 - 1, sender=SOLVER)
    task.call("enterAsk", SOLVER)
    task.call("cancel", sender=SUBMITTER)
    assert task.state.status == Status.EXPIRED
    assert (world.free(SOLVER), world.free(SUBMITTER)) == (FUNDS, FUNDS + SPEC.escrow)
    assert world.market.view("recordOf", SOLVER)[3] == 1
    world.assert_solvent()


# Terms.


WITH_TERMS: dict[str, list[Any]] = {
    "bid": [bytes(32)],
    "revealBid": [1, bytes(32)],
    "forfeitBid": [SOLVER],
    "assign": [],
    "accept": [],
    "cancel": [],
    "decline": [],
    "enterAsk": [SOLVER],
    "append": [1, bytes(32), []],
    "draw": [[]],
    "openStarts": [[]],
    "openEnds": [[], NO_OPENING],
    "reveal": [0, bytes(32), [], bytes(32)],
    "openWindow": [],
    "settle": [],
    "sealChallenge": [bytes(32), False],
    "challenge": [(0, 1, 0, NO_SEAT, NO_OPENING, NO_OPENING), bytes(32)],
    "dropChallenge": [SOLVER],
    "demand": [0, 0, 0, 0, b"", []],
    "redraw": [],
    "defaulted": [],
    "punish": [],
    "voidProgram": [0, b"", []],
}


@pytest.mark.parametrize("status", range(Status.BIDDING, Status.CONVICTED))
def test_every_entry_point_refuses_other_terms_than_the_posted_ones(status: Status) -> None:
    task = at(Status(status))
    spec, expected, given = wrong(task)
    for function, arguments in WITH_TERMS.items():
        with task.world.refuses("WrongSpec", task.id, expected, given):
            task.world.send(function, task.id, spec.as_abi(), *arguments, sender=SOLVER)


def test_a_task_that_was_never_posted_has_no_entry_point(world: World) -> None:
    given = keccak(eth_abi.encode([SPEC_TYPE], [SPEC.as_abi()]))
    for function, arguments in WITH_TERMS.items():
        with world.refuses("WrongSpec", 99, bytes(32), given):
            world.send(function, 99, SPEC.as_abi(), *arguments, sender=SOLVER)


@pytest.mark.parametrize("field", [i for i, kind in enumerate(FIELDS) if kind != "bytes32"])
def test_terms_with_dirty_bits_above_a_field_are_refused(field: int) -> None:
    task = at(Status.BIDDING)
    world = task.world
    for function, sender, start, arguments in (
        ("post", SUBMITTER, 4, [SPEC.as_abi(), "store"]),
        ("bid", SOLVER, 36, [task.id, SPEC.as_abi(), b"\x01" * 32]),
    ):
        data = bytearray(world.market.calldata(function, *arguments))
        world.evm.call(world.market.address, bytes(data), sender=sender, keep=False)
        data[start + 32 * field] = 0xFF
        before = world.picture()
        with pytest.raises(EvmReverted):
            world.evm.call(world.market.address, bytes(data), sender=sender)
        assert world.picture() == before
