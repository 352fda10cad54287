# SPDX-License-Identifier: GPL-3.0-or-later
"""Contracts on a bare EVM, called by name: decoded results, events and custom errors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import eth_abi
from eth.abc import ComputationAPI
from eth.vm.message import Message
from eth_typing import Address
from eth_utils.crypto import keccak

from scripts.solc import CONTRACTS, Contract, compile_contracts
from tests.evm import Evm, EvmReverted

FILES = {
    "Market": "Market.sol",
    "MockGame": "mocks/MockGame.sol",
    "Referee": "Referee.sol",
    "Registry": "market/Registry.sol",
    "Remedies": "market/Remedies.sol",
    "HostileRecipient": "mocks/HostileRecipient.sol",
    "PlainToken": "mocks/Tokens.sol",
    "SilentToken": "mocks/Tokens.sol",
    "FeeToken": "mocks/Tokens.sol",
    "FalseToken": "mocks/Tokens.sol",
    "ReentrantToken": "mocks/Tokens.sol",
}
GAS = 30_000_000  # of a transaction, as much as a block of the embedded chain

Event = tuple[str, dict[str, Any]]


class Refused(Exception):
    """The contract refused a call with a custom error."""

    def __init__(self, error: str, arguments: tuple[Any, ...]) -> None:
        super().__init__(f"{error}{arguments}")
        self.error = error
        self.arguments = arguments


@functools.cache
def contract(name: str) -> Contract:
    return compile_contracts([CONTRACTS / FILES[name]])[name]


def _type(item: dict[str, Any]) -> str:
    if not item["type"].startswith("tuple"):
        return str(item["type"])
    return f"({','.join(_type(part) for part in item['components'])}){item['type'][5:]}"


def _types(items: Sequence[dict[str, Any]]) -> list[str]:
    return [_type(item) for item in items]


@functools.cache
def _entries(name: str) -> dict[str, tuple[dict[str, Any], bytes]]:
    """Functions by name; events and errors by what stands for them in logs and return data."""
    table = {}
    for item in contract(name)["abi"]:
        if "name" not in item:
            continue
        digest = keccak(text=f"{item['name']}({','.join(_types(item['inputs']))})")
        keys = {"function": item["name"], "event": digest.hex(), "error": digest[:4].hex()}
        table[keys[item["type"]]] = (item, digest)
    return table


class Done(NamedTuple):
    """What a transaction did; `gas` is what its sender pays for on a real chain."""

    gas: int
    events: list[Event]
    result: Any = None

    def all(self, name: str) -> list[dict[str, Any]]:
        return [values for found, values in self.events if found == name]

    def event(self, name: str) -> dict[str, Any]:
        (values,) = self.all(name)
        return values


class Mark(NamedTuple):
    """A state of the whole chain to come back to."""

    root: Any
    number: int
    timestamp: int


class Chain(Evm):
    """An EVM that keeps the logs of its last message and can go back in time."""

    logs: tuple[tuple[bytes, tuple[int, ...], bytes], ...] = ()
    refund: int = 0  # of the last message, for storage that it cleared
    changes: int = 0  # so far, of anything that a call could see

    def _apply(self, message: Message, *, keep: bool, warm: Sequence[bytes]) -> ComputationAPI:
        computation = super()._apply(message, keep=keep, warm=warm)
        if keep:
            self.changes += 1
            self.logs = tuple(computation.get_log_entries())
            self.refund = computation.get_gas_refund()
        return computation

    def storage(self, address: bytes, slot: int) -> int:
        return int(self._state.get_storage(Address(address), slot))

    def set_storage(self, address: bytes, slot: int, value: int) -> None:
        self._state.set_storage(Address(address), slot, value)
        self.changes += 1

    def mark(self) -> Mark:
        self._state.persist()
        return Mark(self._state.make_state_root(), self.number, self.timestamp)

    def back(self, mark: Mark) -> None:
        root, self.number, self.timestamp = mark
        self._state = self._new_state(root)
        self.changes += 1

    def mine(self, *, blocks: int = 1, seconds: int = 12) -> None:
        super().mine(blocks=blocks, seconds=seconds)
        self.changes += 1


class Deployed:
    """One contract, called by name."""

    def __init__(self, evm: Chain, name: str, *arguments: Any) -> None:
        self.evm = evm
        self.name = name
        constructors = [i for i in contract(name)["abi"] if i["type"] == "constructor"]
        types = _types(constructors[0]["inputs"]) if constructors else []
        self._views: dict[bytes, Any] = {}  # results since the last change of the chain
        self._seen = -1
        code = bytes.fromhex(contract(name)["bytecode"][2:])
        self.address = evm.deploy(code, eth_abi.encode(types, arguments))

    def calldata(self, function: str, *args: Any) -> bytes:
        item, digest = _entries(self.name)[function]
        return digest[:4] + eth_abi.encode(_types(item["inputs"]), args)

    def send(
        self, function: str, *args: Any, sender: bytes, value: int = 0, gas: int = GAS
    ) -> Done:
        """A transaction: the call, its events and its gas with the intrinsic part (EIP-7623)."""
        data = self.calldata(function, *args)
        try:
            output, used = self.evm.call(self.address, data, sender=sender, value=value, gas=gas)
        except EvmReverted as error:
            raise self.refusal(error) from None
        zeros = data.count(0)
        tokens = zeros + 4 * (len(data) - zeros)
        events = [self.event(log) for log in self.evm.logs if bytes(log[0]) == self.address]
        spent = 21_000 + 4 * tokens + used
        spent -= min(self.evm.refund, spent // 5)  # EIP-3529
        total = max(spent, 21_000 + 10 * tokens)
        return Done(total, events, self._result(function, output))

    def view(self, function: str, *args: Any) -> Any:
        """A call without effect; a single result is unwrapped."""
        data = self.calldata(function, *args)
        if self._seen != self.evm.changes:
            self._views, self._seen = {}, self.evm.changes
        if data not in self._views:
            try:
                output = self.evm.call(self.address, data, keep=False).output
            except EvmReverted as error:
                raise self.refusal(error) from None
            self._views[data] = self._result(function, output)
        return self._views[data]

    def _result(self, function: str, output: bytes) -> Any:
        values = eth_abi.decode(_types(_entries(self.name)[function][0]["outputs"]), output)
        return values[0] if len(values) == 1 else values

    def refusal(self, error: EvmReverted) -> Refused:
        for name in FILES:
            found = _entries(name).get(error.selector.hex())
            if found is not None:
                types = _types(found[0]["inputs"])
                return Refused(found[0]["name"], eth_abi.decode(types, error.output[4:]))
        return Refused(error.output.hex() or str(error), ())

    def event(self, log: tuple[bytes, tuple[int, ...], bytes]) -> Event:
        _, topics, data = log
        item, _ = _entries(self.name)[f"{topics[0]:064x}"]
        indexed = [i for i in item["inputs"] if i["indexed"]]
        plain = [i for i in item["inputs"] if not i["indexed"]]
        args = {
            i["name"]: eth_abi.decode([i["type"]], topic.to_bytes(32, "big"))[0]
            for i, topic in zip(indexed, topics[1:], strict=True)
        }
        values = eth_abi.decode(_types(plain), data)
        args |= {i["name"]: value for i, value in zip(plain, values, strict=True)}
        return item["name"], args


def raw(address: str | bytes) -> bytes:
    """An address as the EVM has it."""
    return bytes.fromhex(address[2:]) if isinstance(address, str) else address


def label(reason: str) -> bytes:
    """A reason as contracts give it."""
    return reason.encode().ljust(32, b"\0")


def as_argument(value: Any) -> Any:
    """Text and addresses as decoded errors have them."""
    is_address = isinstance(value, bytes) and len(value) == 20
    return label(value) if isinstance(value, str) else "0x" + value.hex() if is_address else value
