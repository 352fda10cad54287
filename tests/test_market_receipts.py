# SPDX-License-Identifier: GPL-3.0-or-later
"""Receipts of the final state, the weight of stake in the draw, and the market's two pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from eth_utils.crypto import keccak

from protocol.commitments import receipt_root
from protocol.merkle import leaf_hash, node_hash
from protocol.task import SeatState, Status, is_lacking, receipt_salt
from tests.market_chain import contract
from tests.market_driver import (
    BUDGET,
    FUNDS,
    RECEIPT,
    SOLVER,
    SPEC,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    Task,
    at,
    fresh_world,
    role,
)

MISSING = bytes(32)


def revealed(receipts: Sequence[bytes], **changes: Any) -> Task:
    """A task in its window whose verifiers revealed the right digests with these receipts."""
    task = at(Status.SEALING, committee=len(receipts), **changes)
    for verifier in task.drawn:
        task.seal(verifier)
    task.open_ends()
    for verifier, receipt in zip(task.drawn, receipts, strict=True):
        task.reveal(verifier, receipt=receipt)
    task.call("openWindow")
    task.world.wait_beyond(task.state.deadline)
    return task


def test_ransom_a_solver_that_withholds_the_final_state_is_never_paid() -> None:
    task = revealed([MISSING] * 2, samples=1)
    world = task.world
    slots = sum(world.slots(v) for v in VERIFIERS)
    assert slots == 2 * len(VERIFIERS)  # who reports it loses nothing
    for left in (Status.COMMITTED, Status.COMMITTED, Status.EXPIRED):
        with world.refuses("NotAttested", task.id):
            task.call("settle")
        task.call("redraw")
        assert task.state.status == left
        if left == Status.EXPIRED:
            break
        task.reach(Status.SEALING)
        for verifier in task.drawn:
            task.seal(verifier)
        task.open_ends()
        for verifier in task.drawn:
            task.reveal(verifier, receipt=MISSING)
        task.call("openWindow")
        world.wait_beyond(task.state.deadline)
    assert world.free(SUBMITTER) == FUNDS + BUDGET + 2 * SPEC.verifier_fee  # all that it sent
    assert world.free(SOLVER) == FUNDS
    world.assert_solvent()


def test_an_attestation_carries_the_receipt_and_none_is_no_attestation() -> None:
    task = at(Status.REVEALING)
    first, second = task.drawn
    assert task.reveal(first).event("Revealed")["receipt"] == RECEIPT
    done = task.reveal(second, receipt=MISSING)
    assert done.all("Revealed") == []
    assert done.event("Unavailable")["verifier"] == "0x" + second.hex()
    assert [seat.state for seat in task.seats] == [SeatState.ATTESTED, SeatState.UNAVAILABLE]
    assert task.world.slots(second) == 2
    task.world.assert_solvent()


def test_a_digest_that_differs_stands_also_without_a_receipt() -> None:
    task = at(Status.SEALING)
    lie = [keccak(root) for root in task.digests()]
    for verifier in task.drawn:
        task.seal(verifier, lie)
    task.open_ends()
    event = task.reveal(task.drawn[0], lie, receipt=MISSING).event("Revealed")
    assert event["attested"] is False
    assert task.seats[0].state == SeatState.MISMATCHED


@pytest.mark.parametrize(
    ("have", "lack", "settles"), [(1, 0, True), (1, 1, True), (1, 2, False), (2, 2, True)]
)
def test_most_of_the_drawn_must_not_lack_the_bytes(have: int, lack: int, settles: bool) -> None:
    task = revealed([RECEIPT] * have + [MISSING] * lack)
    assert is_lacking(task.seats) is not settles
    allowed, refused = ("settle", "redraw") if settles else ("redraw", "settle")
    with task.world.refuses("AlreadyAttested" if settles else "NotAttested", task.id):
        task.call(refused)
    task.call(allowed)
    assert task.state.status == (Status.SETTLED if settles else Status.COMMITTED)
    # Nobody was dishonest: all stakes are back.
    assert [task.world.slots(v) for v in VERIFIERS] == [2] * len(VERIFIERS)
    task.world.assert_solvent()


def test_a_receipt_needs_every_byte_and_names_its_verifier() -> None:
    state = [np.arange(600, dtype=np.uint32), np.array([7], np.uint32)]
    market, salts = "0x" + bytes(20).hex(), set()
    for chain, task, audit_round, verifier in [(1, 1, 0, 1), (2, 1, 0, 1), (1, 2, 0, 1)]:
        for other in (verifier, verifier + 1):
            address = "0x" + other.to_bytes(20, "big").hex()
            salts.add(receipt_salt(chain, market, task, audit_round, address))
            salts.add(receipt_salt(chain, market, task, audit_round + 1, address))
    assert len(salts) == 12
    roots = {receipt_root(state, salt) for salt in salts}
    assert len(roots) == 12
    salt = min(salts)
    data = state[0].tobytes()
    leaves = [salt + data[:1024], salt + data[1024:2048], salt + data[2048:], salt + b"\7\0\0\0"]
    a, b, c, d = (leaf_hash(leaf) for leaf in leaves)
    assert receipt_root(state, salt) == node_hash(node_hash(a, b), node_hash(c, d))
    for tensor, element in [(0, 0), (0, 599), (1, 0)]:
        changed = [t.copy() for t in state]
        changed[tensor][element] ^= 1
        assert receipt_root(changed, salt) not in roots


def test_stake_spread_over_accounts_is_drawn_as_often_as_stake_on_one() -> None:
    world = fresh_world()
    whale = role("whale")
    world.fund(whale)
    world.send("registerVerifier", 12, sender=whale)  # as many stakes as the six others together
    task = world.post(committee=1).reach(Status.TRAINING)
    mark = world.evm.mark()
    drawn: Counter[bytes] = Counter()
    for block in range(60):
        world.evm.back(mark)
        world.wait(blocks=1 + block)
        task.append(9)
        task.draw()
        drawn.update(task.drawn)
    # The draws depend on block numbers alone here: two standard deviations.
    assert drawn[whale] == pytest.approx(30, abs=8)


def test_the_second_piece_of_code_acts_on_the_markets_storage_alone() -> None:
    task = at(Status.WINDOW)
    world = task.world
    remedies = bytes.fromhex(world.market.view("REMEDIES")[2:])
    before = world.picture()
    for function, arguments in (
        ("challenge", [task.id, SPEC.as_abi(), 0]),
        ("redraw", [task.id, SPEC.as_abi()]),
        ("defaulted", [task.id, SPEC.as_abi()]),
        ("registerVerifier", [1]),
        ("onVerdict", [1, True]),
    ):
        data = world.market.calldata(function, *arguments)
        with pytest.raises(Exception, match="Revert"):
            world.evm.call(remedies, data, sender=STRANGER)
    assert world.picture() == before


@pytest.mark.size
def test_both_pieces_are_small_enough_and_the_market_tells_all_events_and_errors() -> None:
    abis = {}
    for name in ("Market", "Remedies"):
        code = contract(name)["deployed_bytecode"]
        assert (len(code) - 2) // 2 <= 24_576  # EIP-170
        kinds = ("event", "error", "function")
        abis[name] = {i["name"] for i in contract(name)["abi"] if i["type"] in kinds}
    assert abis["Remedies"] <= abis["Market"]
