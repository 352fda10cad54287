# SPDX-License-Identifier: GPL-3.0-or-later
"""Salts and nonces, derived from the account's key so that a restart finds them again."""

from __future__ import annotations

from eth_utils.crypto import keccak

from protocol.chain.client import Account, encode_abi


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

    def salt(self, task: int, checkpoint: int) -> bytes:
        """Salt of a checkpoint's leaf; leaf 0 has the zero salt (specification, section 4)."""
        return bytes(32) if checkpoint == 0 else self.derive("salt", task, checkpoint)

    def nonce(self, task: int, audit_round: int) -> bytes:
        """Nonce of a verifier's seal."""
        return self.derive("nonce", task, audit_round)

    def bid_nonce(self, task: int) -> bytes:
        """Nonce of a sealed bid."""
        return self.derive("bid", task)

    def challenge_nonce(self, task: int, first: int, count: int, attestor: int) -> bytes:
        """Nonce of a sealed challenge."""
        return self.derive("challenge", task, first, count, attestor)
