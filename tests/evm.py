# SPDX-License-Identifier: GPL-3.0-or-later
"""A bare EVM for contract tests: py-evm (Cancun rules) without blocks, signatures or fees.

Messages run directly on one in-memory state, so a call costs microseconds of overhead and may have
any gas limit. What it leaves out is exactly what a transaction adds: the intrinsic gas and calldata
floor, nonces of the sender, and blocks. Tests of money and clocks belong on a real chain.

    evm = Evm()
    address = evm.deploy(creation_code)
    output, gas = evm.call(address, calldata)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from eth.abc import ComputationAPI, StateAPI
from eth.constants import CREATE_CONTRACT_ADDRESS
from eth.db.atomic import AtomicDB
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.cancun.state import CancunState
from eth.vm.message import Message
from eth_typing import Address, BlockNumber, Hash32
from eth_utils.crypto import keccak

CHAIN_ID: Final = 1337
DEFAULT_GAS: Final = 10**12
DEFAULT_SENDER: Final = b"\x11" * 20
EMPTY_TRIE_ROOT: Final = keccak(b"\x80")
ETHER: Final = 10**18


class EvmReverted(Exception):
    """The outermost call failed. `output` is its return data: empty unless it was a REVERT.

    `selector` is the first four bytes of it: `keccak("UnknownPrimitive(uint8)")[:4]` and so on.
    """

    def __init__(self, reason: str, output: bytes, gas_used: int) -> None:
        super().__init__(f"{reason}: 0x{output.hex()} after {gas_used} gas")
        self.output = output
        self.gas_used = gas_used

    @property
    def selector(self) -> bytes:
        """The four bytes that name the custom error (empty when there is no return data)."""
        return self.output[:4]


class CallResult(NamedTuple):
    """What a call returned and the gas its execution used (no intrinsic cost, no refund)."""

    output: bytes
    gas_used: int


class Evm:
    """One state, one block. `number` and `timestamp` may be moved between calls with `mine`."""

    def __init__(self, *, number: int = 1000, timestamp: int = 1_700_000_000) -> None:
        self._database = AtomicDB()
        self._nonce = 0
        self.number = number
        self.timestamp = timestamp
        self._state = self._new_state(Hash32(EMPTY_TRIE_ROOT))
        self.set_balance(DEFAULT_SENDER, 10**9 * ETHER)

    def _new_state(self, root: Hash32) -> StateAPI:
        ancestors = tuple(
            Hash32(keccak(block.to_bytes(32, "big")))
            for block in range(self.number - 1, max(self.number - 257, -1), -1)
        )
        context = ExecutionContext(
            coinbase=Address(b"\xc0" * 20),
            timestamp=self.timestamp,
            block_number=BlockNumber(self.number),
            difficulty=0,
            mix_hash=Hash32(keccak(b"randao" + self.number.to_bytes(32, "big"))),
            gas_limit=DEFAULT_GAS,
            prev_hashes=ancestors,
            chain_id=CHAIN_ID,
            base_fee_per_gas=0,
            excess_blob_gas=0,
        )
        return CancunState(self._database, context, root)

    def mine(self, *, blocks: int = 1, seconds: int = 12) -> None:
        """Move to a later block; the state stays."""
        self._state.persist()
        root = self._state.make_state_root()
        self.number += blocks
        self.timestamp += seconds
        self._state = self._new_state(root)

    def set_balance(self, address: bytes, wei: int) -> None:
        """Give `address` exactly `wei`."""
        self._state.set_balance(Address(address), wei)

    def balance(self, address: bytes) -> int:
        """The balance of `address` in wei."""
        return int(self._state.get_balance(Address(address)))

    def code(self, address: bytes) -> bytes:
        """The runtime bytecode at `address`."""
        return bytes(self._state.get_code(Address(address)))

    def deploy(
        self,
        creation_code: bytes,
        arguments: bytes = b"",
        *,
        value: int = 0,
        sender: bytes = DEFAULT_SENDER,
        gas: int = DEFAULT_GAS,
    ) -> bytes:
        """Run `creation_code || arguments` as a constructor and return the new contract's address.

        Raises EvmReverted when the constructor fails or the code is over the EIP-170 limit.
        """
        self._nonce += 1
        address = keccak(b"deploy" + sender + self._nonce.to_bytes(8, "big"))[12:]
        self._apply(
            Message(
                gas=gas,
                to=CREATE_CONTRACT_ADDRESS,
                sender=Address(sender),
                value=value,
                data=b"",
                code=creation_code + arguments,
                create_address=Address(address),
            ),
            keep=True,
            warm=(sender, address),
        )
        return address

    def call(
        self,
        to: bytes,
        data: bytes,
        *,
        value: int = 0,
        sender: bytes = DEFAULT_SENDER,
        gas: int = DEFAULT_GAS,
        keep: bool = True,
    ) -> CallResult:
        """Call a contract as a transaction of its own (cold storage); `keep=False` is `eth_call`.

        Raises EvmReverted with the return data when the call fails.
        """
        message = Message(
            gas=gas,
            to=Address(to),
            sender=Address(sender),
            value=value,
            data=data,
            code=self._state.get_code(Address(to)),
        )
        computation = self._apply(message, keep=keep, warm=(sender, to))
        return CallResult(bytes(computation.output), int(computation.get_gas_used()))

    def _apply(self, message: Message, *, keep: bool, warm: Sequence[bytes]) -> ComputationAPI:
        state = self._state
        state.lock_changes()
        state.clear_transient_storage()
        snapshot = state.snapshot()
        for address in warm:
            state.mark_address_warm(Address(address))
        origin = state.get_transaction_context_class()(gas_price=0, origin=message.sender)
        computation_class = state.computation_class
        apply = (
            computation_class.apply_create_message
            if message.is_create
            else computation_class.apply_message
        )
        computation = apply(state, message, origin)
        if keep and computation.is_success:
            state.commit(snapshot)
        else:
            state.revert(snapshot)
        if computation.is_error:
            reason = type(computation.error).__name__
            raise EvmReverted(reason, bytes(computation.output), int(computation.get_gas_used()))
        return computation
