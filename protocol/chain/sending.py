# SPDX-License-Identifier: GPL-3.0-or-later
"""Sending a transaction until it is mined: a fee that was enough a minute ago may be too low now.

All transactions of an account wait for the one with the lowest nonce. One that is too cheap would
stop an agent for good, with its stakes locked.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

from web3 import Web3
from web3.exceptions import (
    TimeExhausted,
    TransactionIndexingInProgress,
    TransactionNotFound,
    Web3Exception,
)

REPLACE_AFTER: Final = 30.0
"""Seconds, more than two blocks of Ethereum, after which a transaction is sent with higher fees."""
REPLACEMENTS: Final = 3
"""How many times; then whoever looks next begins anew."""
_FASTEST, _SLOWEST = 0.05, 1.0
"""Seconds between two looks for a receipt."""


class Signer(Protocol):
    """What sending needs of an account."""

    @property
    def address(self) -> Any:
        """Who sends."""

    def sign_transaction(self, transaction: Any) -> Any:
        """The transaction with a signature."""


def send_until_mined(
    w3: Web3, account: Signer, transaction: dict[str, Any], patience: float | None = None
) -> Any:
    """The receipt of a transaction; TimeExhausted if none of its replacements is mined either.

    `patience` are the seconds after which it is replaced, REPLACE_AFTER if None.
    """
    patience = REPLACE_AFTER if patience is None else patience
    sent = [_send(w3, account, transaction)]
    for left in reversed(range(REPLACEMENTS + 1)):
        receipt = _receipt(w3, sent, patience)
        if receipt is not None:
            return receipt
        if left:
            transaction = dearer(transaction, w3.eth.get_block("latest").get("baseFeePerGas", 0))
            sent += _replace(w3, account, transaction)
    raise TimeExhausted(f"transaction {transaction['nonce']} of {account.address}")


def dearer(transaction: dict[str, Any], base_fee: int) -> dict[str, Any]:
    """The same with higher fees. Nodes take no replacement that adds less than an eighth."""
    tip = transaction["maxPriorityFeePerGas"] * 3 // 2
    most = max(transaction["maxFeePerGas"] * 3 // 2, 2 * base_fee + tip)
    return {**transaction, "maxPriorityFeePerGas": tip, "maxFeePerGas": most}


def _replace(w3: Web3, account: Signer, transaction: dict[str, Any]) -> list[bytes]:
    """Sends a transaction again, or ends an older one that it waits for; its hash if it did."""
    next_nonce = w3.eth.get_transaction_count(account.address, "latest")
    try:
        if next_nonce == transaction["nonce"]:
            return [_send(w3, account, transaction)]
        if next_nonce < transaction["nonce"]:
            # An earlier process left it, and nobody knows what it was: nothing takes its place.
            _send(w3, account, _nothing(w3, account, transaction, next_nonce))
    except Web3Exception:
        pass  # too cheap still, or too dear for the account, or mined meanwhile
    return []


def _nothing(w3: Web3, account: Signer, transaction: dict[str, Any], nonce: int) -> dict[str, Any]:
    fees = {key: transaction[key] for key in ("maxPriorityFeePerGas", "maxFeePerGas")}
    fields = {"to": account.address, "value": 0, "gas": 21_000, "chainId": w3.eth.chain_id}
    return {**fields, **fees, "nonce": nonce}


def _send(w3: Web3, account: Signer, transaction: dict[str, Any]) -> bytes:
    signed = account.sign_transaction(transaction)
    return w3.eth.send_raw_transaction(signed.raw_transaction)


def _receipt(w3: Web3, sent: Sequence[bytes], patience: float) -> Any:
    """The receipt of whichever was mined; None if none is before the patience is over."""
    end, pause = time.monotonic() + patience, _FASTEST
    while True:
        for one in sent:
            try:
                return w3.eth.get_transaction_receipt(one)  # type: ignore[arg-type]
            except (TransactionNotFound, TransactionIndexingInProgress):
                continue
        if time.monotonic() >= end:
            return None
        time.sleep(pause)
        pause = min(2 * pause, _SLOWEST)
