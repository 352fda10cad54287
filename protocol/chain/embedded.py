# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded chain: py-evm inside this process, with accounts that hold ether and time travel."""

from __future__ import annotations

from dataclasses import dataclass

from eth_tester import EthereumTester, PyEVMBackend
from web3 import EthereumTesterProvider, Web3

from protocol.chain.client import Account, Chain, new_account

BLOCK_GAS_LIMIT = 30_000_000
TRANSACTION_GAS_LIMIT = 8_000_000
"""Fixed, because estimating on py-evm costs several executions."""


@dataclass(frozen=True)
class Embedded:
    """The chain and an account on it that holds a million ether."""

    chain: Chain
    faucet: Account
    tester: EthereumTester


def embedded_chain() -> Embedded:
    """Starts an empty chain. Every transaction is mined at once, in a block of its own."""
    faucet = new_account(b"bitcourt embedded chain faucet!!".rjust(32, b"\0"))
    genesis = PyEVMBackend.generate_genesis_params({"gas_limit": BLOCK_GAS_LIMIT})
    state = {
        faucet.address: {
            "balance": 10**24,
            "nonce": 0,
            "code": b"",
            "storage": {},
        }
    }
    backend = PyEVMBackend(
        genesis_parameters=genesis,
        genesis_state={bytes.fromhex(a[2:]): account for a, account in state.items()},
    )
    tester = EthereumTester(backend)

    def advance(seconds: int) -> None:
        now = tester.get_block_by_number("latest")["timestamp"]
        tester.time_travel(now + seconds)
        tester.mine_block()

    w3 = Web3(EthereumTesterProvider(tester))
    chain = Chain(w3, gas_limit=TRANSACTION_GAS_LIMIT, advance=advance)
    return Embedded(chain, faucet, tester)
