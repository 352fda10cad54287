# SPDX-License-Identifier: GPL-3.0-or-later
"""Salts and nonces, derived from the account's key so that a restart finds them again.

They are bound to a task's terms and not to its number alone: after a reorganization of the chain
the number may be another task's, and what was shown for one must hide nothing of the other.
"""

from __future__ import annotations

from eth_utils.crypto import keccak

from protocol.chain.client import Account, encode_abi
from protocol.market import Posted


class Secrets:
    """Hidden values of one account at one market."""

    def __init__(self, account: Account, chain_id: int, market: str) -> None:
        self._base = keccak(
            b"bitcourt secret"
            + bytes(account.key)
            + encode_abi(["uint256", "address"], [chain_id, market])
        )

    def derive(self, purpose: str, *numbers: int) -> bytes:
        """32 bytes that nobody without the key can guess."""
        tail = encode_abi(["string", "uint256[]"], [purpose, list(numbers)])
        return bytes(keccak(self._base + tail))

    def salt(self, task: Posted, checkpoint: int) -> bytes:
        """Salt of a checkpoint's leaf; leaf 0 has the zero salt (specification, section 4)."""
        return bytes(32) if checkpoint == 0 else self.derive("salt", *_bound(task), checkpoint)

    def nonce(self, task: Posted, audit_round: int) -> bytes:
        """Nonce of a verifier's seal."""
        return self.derive("nonce", *_bound(task), audit_round)

    def bid_nonce(self, task: Posted) -> bytes:
        """Nonce of a sealed bid."""
        return self.derive("bid", *_bound(task))

    def challenge_nonce(self, task: Posted, first: int, count: int, attestor: int) -> bytes:
        """Nonce of a sealed challenge."""
        return self.derive("challenge", *_bound(task), first, count, attestor)


def _bound(task: Posted) -> tuple[int, int]:
    return task.id, int.from_bytes(task.spec.hash)
