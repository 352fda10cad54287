# SPDX-License-Identifier: GPL-3.0-or-later
"""Receipts of the final state, the weight of stake in the draw, and the market's three pieces."""

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
from tests.evm import EvmReverted
from tests.market_chain import Deployed, contract
from tests.market_driver import (
    FUNDS,
    RECEIPT,
    SOLVER,
    STAKE,
    STRANGER,
    SUBMITTER,
    VERIFIERS,
    Task,
    at,
    fresh_world,
    role,
)
from tests.market_world import MIN_WINDOW, NATIVE

MISSING = bytes(32)


def revealed(receipts: Sequence[bytes], **changes: Any) -> Task:
    """A task in its window whose verifiers revealed the right digests with these receipts."""
    task = at(Status.SEALING, committee=len(receipts), **changes)
    for verifier in task.drawn:
        task.seal(verifier)
    task.open_ends()
    for verifier, receipt in zip(task.drawn, receipts, strict=True):
        task.reveal(verifier, receipt=receipt)
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
        world.wait_beyond(task.state.deadline)
    assert world.free(SUBMITTER) == FUNDS + task.spec.escrow  # all that it sent
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
    ("have", "lack", "settles"),
    [
        (2, 0, True),
        (3, 0, True),
        (2, 1, False),
        (3, 1, True),
        (1, 1, False),
        (1, 2, False),
        (2, 2, False),
    ],
)
def test_of_four_drawn_at_most_one_may_lack_the_bytes(have: int, lack: int, settles: bool) -> None:
    task = revealed([RECEIPT] * have + [MISSING] * lack)
    assert is_lacking(task.seats, task.state.round) is not settles
    allowed, refused = ("settle", "redraw") if settles else ("redraw", "settle")
    with task.world.refuses("AlreadyAttested" if settles else "NotAttested", task.id):
        task.call(refused)
    task.call(allowed)
    assert task.state.status == (Status.SETTLED if settles else Status.COMMITTED)
    # Nobody was dishonest: all stakes are back, but those of who must answer for an attestation.
    bound = 0 if settles else have
    assert sum(task.world.slots(v) for v in VERIFIERS) == 2 * len(VERIFIERS) - bound
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
    task = world.post().reach(Status.TRAINING)
    mark = world.evm.mark()
    first: Counter[bytes] = Counter()
    for block in range(60):
        world.evm.back(mark)
        world.wait(blocks=1 + block)
        task.append(9)
        task.draw()
        first.update(task.drawn[:1])  # nobody has two seats of one audit
    # The draws depend on block numbers alone here: two standard deviations.
    assert first[whale] == pytest.approx(30, abs=8)


def test_the_second_piece_of_code_acts_on_the_markets_storage_alone() -> None:
    task = at(Status.WINDOW)
    world, terms = task.world, task.spec.as_abi()
    before = world.picture()
    target = task.target(0)
    for piece, function, arguments in (
        ("REMEDIES", "sealChallenge", [task.id, terms, RECEIPT, False]),
        ("REMEDIES", "challenge", [task.id, terms, target, bytes(32)]),
        ("REMEDIES", "redraw", [task.id, terms]),
        ("REMEDIES", "defaulted", [task.id, terms]),
        ("REMEDIES", "punish", [task.id, terms]),
        ("REMEDIES", "onVerdict", [1, True]),
        ("REGISTRY", "registerVerifier", [1]),
        ("REGISTRY", "bid", [task.id, terms, RECEIPT]),
        ("REGISTRY", "accept", [task.id, terms]),
        ("REGISTRY", "cancel", [task.id, terms]),
    ):
        code = bytes.fromhex(world.market.view(piece)[2:])
        data = world.market.calldata(function, *arguments)
        with pytest.raises(EvmReverted):
            world.evm.call(code, data, sender=STRANGER)
    assert world.picture() == before


@pytest.mark.parametrize("piece", ["Remedies", "Registry"])
@pytest.mark.parametrize("what", ["game", "token", "stake"])
def test_a_market_refuses_code_that_was_deployed_for_another(piece: str, what: str) -> None:
    world = fresh_world()
    terms = {"game": world.game.address, "token": NATIVE, "stake": STAKE}
    codes = {
        name: Deployed(world.evm, name, *terms.values()).address
        for name in ("Remedies", "Registry")
    }
    other = {"game": STRANGER, "token": STRANGER, "stake": STAKE + 1}[what]
    codes[piece] = Deployed(world.evm, piece, *(terms | {what: other}).values()).address
    with pytest.raises(EvmReverted) as caught:
        Deployed(world.evm, "Market", *terms.values(), *codes.values(), MIN_WINDOW)
    refusal = world.market.refusal(caught.value)
    assert (refusal.error, refusal.arguments) == ("ForeignCode", ("0x" + codes[piece].hex(),))


@pytest.mark.size
def test_all_pieces_are_small_enough_and_the_market_tells_all_events_and_errors() -> None:
    abis = {}
    for name in ("Market", "Remedies", "Registry"):
        code = contract(name)["deployed_bytecode"]
        assert (len(code) - 2) // 2 <= 24_576 - 53  # EIP-170, and the metadata that brownie appends
        kinds = ("event", "error", "function")
        abis[name] = {i["name"] for i in contract(name)["abi"] if i["type"] in kinds}
    assert abis["Remedies"] | abis["Registry"] <= abis["Market"]
