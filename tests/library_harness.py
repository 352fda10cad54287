# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions of a library on words, called through its harness on a bare EVM."""

from __future__ import annotations

from eth_utils.crypto import keccak

from scripts.solc import CONTRACTS, compile_contracts
from tests.evm import Evm


class LibraryHarness:
    """A mock contract whose functions take words and return one."""

    def __init__(self, name: str) -> None:
        contract = compile_contracts([CONTRACTS / "mocks" / f"{name}.sol"])[name]
        self._evm = Evm()
        self._address = self._evm.deploy(bytes.fromhex(contract["bytecode"][2:]))

    def __call__(self, function: str, *words: int) -> int:
        """Call a function by name; all its arguments are uint256. Raises EvmReverted."""
        signature = f"{function}({','.join(['uint256'] * len(words))})"
        data = keccak(signature.encode())[:4] + b"".join(w.to_bytes(32, "big") for w in words)
        return int.from_bytes(self._evm.call(self._address, data, keep=False).output, "big")
