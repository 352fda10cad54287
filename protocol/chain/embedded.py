# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded chain: py-evm inside this process, with accounts that hold ether and time travel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.backends.pyevm.main import get_default_account_keys
from eth_tester.exceptions import TransactionFailed
from eth_utils.exceptions import ValidationError
from web3 import EthereumTesterProvider, Web3
from web3.exceptions import Web3Exception

from protocol.chain.client import Account, Chain, new_account
from protocol.chain.errors import revert_data

BLOCK_GAS_LIMIT = 30_000_000
TRANSACTION_GAS_LIMIT = 8_000_000
"""Fixed, because estimating on py-evm costs several executions."""


@dataclass(frozen=True)
class Embedded:
    """The chain and an account on it that holds a million ether."""

    chain: Chain
    faucet: Account
    tester: EthereumTester

    def request(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        """Answers one JSON-RPC request: `{"result": ...}` or `{"error": {code, message, data}}`.

        Results are Python values under JSON-RPC's names; error codes are numbers of anvil's.
        """
        w3 = self.chain.w3
        ask: Any = w3.provider.request_func(w3, w3.middleware_onion)
        try:
            response: dict[str, Any] = ask(method, params)
        except TransactionFailed as error:
            data = "0x" + revert_data(error).hex()
            return _error(_EXECUTION_REVERTED, "execution reverted", data)
        except (ValidationError, Web3Exception) as error:
            return _error(_SERVER_ERROR, str(error))
        except (TypeError, ValueError, KeyError, IndexError, NotImplementedError) as error:
            return _error(_INVALID_PARAMS, f"{method}: {error}")
        kind = "error" if "error" in response else "result"
        return {kind: response[kind]}


_EXECUTION_REVERTED = 3
_INVALID_PARAMS = -32602
_SERVER_ERROR = -32000


def _error(code: int, message: str, data: str | None = None) -> dict[str, Any]:
    error = {"code": code, "message": message}
    return {"error": error if data is None else {**error, "data": data}}


def embedded_chain() -> Embedded:
    """Starts an empty chain. Every transaction is mined at once, in a block of its own."""
    faucet = new_account(b"bitcourt embedded chain faucet!!".rjust(32, b"\0"))
    genesis = PyEVMBackend.generate_genesis_params({"gas_limit": BLOCK_GAS_LIMIT})
    # eth-tester sends view calls from its first own account, which must be able to pay for them.
    rich = [faucet.address, get_default_account_keys(1)[0].public_key.to_checksum_address()]
    backend = PyEVMBackend(
        genesis_parameters=genesis,
        genesis_state={
            bytes.fromhex(address[2:]): {"balance": 10**24, "nonce": 0, "code": b"", "storage": {}}
            for address in rich
        },
    )
    tester = EthereumTester(backend)

    def advance(seconds: int) -> None:
        now, earliest = (
            tester.get_block_by_number(block)["timestamp"] for block in ("latest", "pending")
        )
        # The clock of the machine may have gone further than the last block; never travel back.
        to = now + seconds
        tester.time_travel(max(to, earliest + 1) if seconds > 0 else to)
        tester.mine_block()

    w3 = Web3(EthereumTesterProvider(tester))
    chain = Chain(w3, gas_limit=TRANSACTION_GAS_LIMIT, advance=advance)
    return Embedded(chain, faucet, tester)
