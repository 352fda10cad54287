# SPDX-License-Identifier: GPL-3.0-or-later
"""A transaction whose fee has become too low does not stop its account."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from web3.exceptions import TimeExhausted, TransactionNotFound, Web3RPCError
from web3.types import RPCEndpoint

from protocol.chain import sending
from protocol.chain.client import Chain, new_account
from protocol.chain.sending import REPLACEMENTS, dearer, send_until_mined
from scripts.toolchain import TOOLCHAIN

GWEI = 10**9
ANVIL = TOOLCHAIN / "bin" / "anvil"


class Signer:
    address = "0x" + "12" * 20

    def sign_transaction(self, transaction: dict[str, Any]) -> Any:
        return SimpleNamespace(raw_transaction=transaction)


class Node:
    """Mines what pays `price` or more, in the order of the nonces."""

    chain_id = 1

    def __init__(self, price: int, *older: dict[str, Any]) -> None:
        self.price = price
        self.waiting = {one["nonce"]: one for one in older}
        self.mined: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []

    def get_block(self, _which: str) -> dict[str, int]:
        return {"baseFeePerGas": GWEI}

    def get_transaction_count(self, _address: str, which: str) -> int:
        assert which == "latest"
        return len(self.mined)

    def send_raw_transaction(self, transaction: dict[str, Any]) -> dict[str, Any]:
        self.sent.append(transaction)
        known = self.waiting.get(transaction["nonce"])
        if known is not None and 8 * transaction["maxFeePerGas"] < 9 * known["maxFeePerGas"]:
            raise Web3RPCError("replacement transaction underpriced")
        self.waiting[transaction["nonce"]] = transaction
        return transaction

    def get_transaction_receipt(self, transaction: dict[str, Any]) -> dict[str, Any]:
        cheapest = self.waiting.get(len(self.mined))
        while cheapest is not None and cheapest["maxFeePerGas"] >= self.price:
            self.mined.append(cheapest)
            cheapest = self.waiting.get(len(self.mined))
        if transaction not in self.mined:
            raise TransactionNotFound("not yet")
        return {"of": transaction}


def of(nonce: int, most: int, data: str = "own") -> dict[str, Any]:
    fees = {"maxFeePerGas": most, "maxPriorityFeePerGas": GWEI}
    return {"nonce": nonce, "data": data, **fees}


def send(node: Node, transaction: dict[str, Any]) -> Any:
    w3: Any = SimpleNamespace(eth=node)
    return send_until_mined(w3, Signer(), transaction, patience=0)


def test_a_transaction_that_pays_enough_is_sent_once() -> None:
    node = Node(3 * GWEI)
    assert send(node, of(0, 3 * GWEI))["of"] == of(0, 3 * GWEI)
    assert len(node.sent) == 1


def test_a_transaction_that_is_too_cheap_is_sent_again_with_higher_fees() -> None:
    node = Node(6 * GWEI)
    send(node, of(0, 3 * GWEI))
    assert [one["maxFeePerGas"] for one in node.sent] == [3 * GWEI, 9 * GWEI // 2, 27 * GWEI // 4]
    assert {(one["nonce"], one["data"]) for one in node.sent} == {(0, "own")}
    assert len(node.mined) == 1


def test_a_transaction_of_an_earlier_process_that_is_stuck_is_replaced_by_nothing() -> None:
    node = Node(6 * GWEI, of(0, 5 * GWEI, "older"))
    receipt = send(node, of(1, 3 * GWEI))
    first, second = node.mined
    assert (first["to"], first["value"], first["nonce"]) == (Signer.address, 0, 0)
    assert (second["nonce"], second["data"]) == (1, "own")
    assert receipt["of"] == second


def test_who_cannot_get_a_transaction_mined_is_told_so_in_the_end() -> None:
    node = Node(1000 * GWEI)
    with pytest.raises(TimeExhausted, match="transaction 0 of 0x1212"):
        send(node, of(0, 3 * GWEI))
    assert len(node.sent) == 1 + REPLACEMENTS


def test_a_replacement_follows_the_chains_fees_and_never_costs_less() -> None:
    assert dearer(of(0, 4 * GWEI), 100 * GWEI)["maxFeePerGas"] == 200 * GWEI + 3 * GWEI // 2
    assert dearer(of(0, 4 * GWEI), 0)["maxFeePerGas"] == 6 * GWEI
    assert dearer(of(0, 4 * GWEI), 0)["maxPriorityFeePerGas"] == 3 * GWEI // 2


@pytest.mark.slow
@pytest.mark.skipif(not ANVIL.exists(), reason="`make test` installs anvil")
def test_an_account_with_stuck_transactions_goes_on_on_a_live_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.test_processes import ANVIL_KEY, anvil_chain

    monkeypatch.setattr(sending, "REPLACE_AFTER", 3.0)
    with anvil_chain(tmp_path) as url:
        chain, rich, other = Chain.connect(url), new_account(ANVIL_KEY), new_account()

        nonce = chain.w3.eth.get_transaction_count(rich.address)
        base = chain.w3.eth.get_block("latest")["baseFeePerGas"]
        fields = {"to": other.address, "value": 1, "gas": 21_000, "chainId": chain.chain_id}
        fees = {"maxFeePerGas": base, "maxPriorityFeePerGas": 1}
        signed = rich.sign_transaction({**fields, **fees, "nonce": nonce})
        chain.w3.eth.send_raw_transaction(signed.raw_transaction)
        price = [hex(50 * base)]
        chain.w3.provider.make_request(RPCEndpoint("anvil_setNextBlockBaseFeePerGas"), price)
        while chain.w3.eth.get_block("latest")["baseFeePerGas"] <= base:
            time.sleep(0.2)
        chain.transfer(rich, other.address, 10**18)
        assert chain.balance(other.address) == 10**18  # the older one became nothing
