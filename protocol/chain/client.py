# SPDX-License-Identifier: GPL-3.0-or-later
"""A small client over web3.py: calls, transactions, events, decoded custom errors.

Accounts are private keys held in this process; the chain never signs for us. Every failure is a
ChainError that names what failed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import requests
from eth_abi import abi as eth_abi
from eth_account import Account as EthAccount
from eth_account.signers.local import LocalAccount
from eth_tester.exceptions import TransactionFailed
from eth_typing import HexStr
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.exceptions import ContractLogicError, TimeExhausted, Web3Exception, Web3RPCError
from web3.types import RPCEndpoint

from protocol import artifacts
from protocol.chain.errors import abi_type, decode_revert, revert_data
from protocol.chain.sending import send_until_mined
from protocol.chain.strings import admit_any_string
from protocol.errors import ChainError, InsufficientFunds, TransactionReverted

Account = LocalAccount

CONFIRMATIONS: Final = 2
"""Blocks above an event before an agent believes it, on any chain but a local one.

Reorganizations of one block come every day on Ethereum, deeper ones hardly ever. Every move waits
for so many blocks, and the clock of whoever makes it runs meanwhile.
"""
LOCAL_CHAINS: Final = frozenset({1337, 31337, 131277322940537})
"""Ids of ganache, of anvil and hardhat, and of the embedded chain: nobody reorganizes them."""


@dataclass(frozen=True)
class Receipt:
    """What a mined transaction did: `gas` includes the intrinsic gas, `events` are decoded."""

    hash: str
    block: int
    gas: int
    function: str
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def event(self, name: str) -> dict[str, Any]:
        """Arguments of the first event of that name; ChainError if there is none."""
        for found, arguments in self.events:
            if found == name:
                return arguments
        raise ChainError(f"{self.function} emitted no {name} event (transaction {self.hash})")


class Log(NamedTuple):
    """One event of a contract, and the hash of the transaction that emitted it."""

    block: int
    name: str
    values: dict[str, Any]
    transaction: str


def new_account(private_key: bytes | str | None = None) -> Account:
    """An account from a private key, or a fresh one."""
    account = EthAccount.create() if private_key is None else EthAccount.from_key(private_key)
    assert isinstance(account, LocalAccount)  # noqa: S101 - narrows the library's type
    return account


@dataclass
class _Known:
    """Events read so far: up to block `last`, which had the hash `seal` then."""

    last: int
    seal: bytes
    events: list[Log]


@contextmanager
def _explained(action: str, abi: Sequence[Any] = ()) -> Iterator[None]:
    """Turns the many errors of web3 and its providers into ChainError."""
    try:
        yield
    except ContractLogicError as error:
        name, arguments, text = decode_revert(error.data, error.message, abi)
        raise TransactionReverted(f"{action}: {text}", name, arguments) from None
    except TransactionFailed as error:
        name, arguments, text = decode_revert(revert_data(error), str(error), abi)
        raise TransactionReverted(f"{action}: {text}", name, arguments) from None
    except (Web3RPCError, ValidationError) as error:
        text = str(error)
        if "insufficient funds" in text.lower() or "does not have enough balance" in text.lower():
            raise InsufficientFunds(f"{action}: the account cannot pay for it ({text})") from None
        raise ChainError(f"{action}: {text}") from None
    except json.JSONDecodeError:
        raise ChainError(f"{action}: the RPC endpoint does not speak JSON-RPC") from None
    except (requests.RequestException, OSError) as error:
        raise ChainError(f"{action}: the RPC endpoint does not answer ({_reason(error)})") from None
    except TimeExhausted as error:
        raise ChainError(f"{action}: not mined in time ({error})") from None
    except Web3Exception as error:
        raise ChainError(f"{action}: {error}") from None


class Chain:
    """One chain, reached through web3.

    `gas_limits` maps a function's name to a gas limit; a function without one is estimated, with a
    fifth added. `confirmations` is how many blocks deep an event must lie before it is believed.
    """

    def __init__(
        self,
        w3: Web3,
        *,
        confirmations: int = 0,
        gas_limit: int | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self.w3 = w3
        admit_any_string(w3)
        self.confirmations = confirmations
        self.gas_limit = gas_limit
        self._advance = advance
        with _explained("asking the chain for its id"):
            answer: Any = w3.eth.chain_id
            if not isinstance(answer, int):
                raise Web3Exception(f"the RPC endpoint answered {answer!r}")
            self.chain_id = answer
        self._contracts: dict[tuple[str, str], Contract] = {}
        self._known: dict[tuple[str, int, str], _Known] = {}

    @classmethod
    def connect(cls, url: str, *, chain_id: int | None = None, confirmations: int = 0) -> Chain:
        """Connects to a JSON-RPC endpoint, and checks the chain id if one is given."""
        if not url.startswith(("http://", "https://")):
            raise ChainError(f"{url!r} is not an http(s) RPC URL")
        provider = HTTPProvider(
            url, request_kwargs={"timeout": 30}, exception_retry_configuration=None
        )
        chain = cls(Web3(provider), confirmations=confirmations)
        if chain_id is not None and chain.chain_id != chain_id:
            raise ChainError(
                f"{url} is chain {chain.chain_id}, not {chain_id}: use the RPC URL of that chain"
            )
        return chain

    @property
    def usual_confirmations(self) -> int:
        """How deep an event must lie before an agent's owner should let it be believed."""
        return 0 if self.chain_id in LOCAL_CHAINS else CONFIRMATIONS

    @classmethod
    def connect_test(cls, url: str) -> Chain:
        """Connects to a local test chain (`bitcourt chain` or anvil), whose time can travel."""
        chain = cls.connect(url)

        def advance(seconds: int) -> None:
            for method, params in (("evm_increaseTime", [seconds]), ("evm_mine", [])):
                with _explained(f"{method} on {url}, which is no test chain"):
                    response = chain.w3.provider.make_request(RPCEndpoint(method), params)
                if "error" in response:
                    raise ChainError(f"{url} has no {method}: it is no test chain")

        chain._advance = advance
        return chain

    def contract(self, name: str, address: str, abi: Sequence[Any] | None = None) -> Contract:
        """The deployed contract `name` at an address; ChainError if no code lies there.

        `abi` is that of the shipped contract of this name unless it is given.
        """
        key = (name, address)
        if key not in self._contracts:
            with _explained(f"reading the code at {address}"):
                code = self.w3.eth.get_code(to_checksum_address(address))
            if not code:
                raise ChainError(
                    f"no contract lies at {address} on chain {self.chain_id}: deploy first, or use "
                    f"the deployment file of this chain"
                )
            abi = artifacts.load(name).abi if abi is None else abi
            self._contracts[key] = self.w3.eth.contract(to_checksum_address(address), abi=abi)
        return self._contracts[key]

    def call(self, contract: Contract, function: str, *args: Any) -> Any:
        """Result of a view function."""
        with _explained(f"calling {function}", contract.abi):
            return contract.functions[function](*args).call()

    def send(
        self, account: Account, contract: Contract, function: str, *args: Any, value: int = 0
    ) -> Receipt:
        """Signs, sends and waits for one transaction; raises TransactionReverted if it failed."""
        call = contract.functions[function](*args)
        with _explained(function, contract.abi):
            receipt = self._transact(account, call.build_transaction, value)
        events = self._decode(contract, receipt["logs"])
        return Receipt(
            receipt["transactionHash"].to_0x_hex(),
            receipt["blockNumber"],
            receipt["gasUsed"],
            function,
            events,
        )

    def deploy(self, account: Account, name: str, *args: Any) -> tuple[Contract, Receipt]:
        """Deploys a shipped contract."""
        artifact = artifacts.load(name)
        factory = self.w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
        with _explained(f"deploying {name}", artifact.abi):
            receipt = self._transact(account, factory.constructor(*args).build_transaction, 0)
        sent, block = receipt["transactionHash"].to_0x_hex(), receipt["blockNumber"]
        done = Receipt(sent, block, receipt["gasUsed"], f"deploy {name}")
        return self.contract(name, receipt["contractAddress"]), done

    def transfer(self, account: Account, to: str, value: int) -> None:
        """Sends plain wei."""

        def build(fields: dict[str, Any]) -> dict[str, Any]:
            return {**fields, "to": to_checksum_address(to), "chainId": self.chain_id}

        with _explained(f"sending {value} wei to {to}"):
            self._transact(account, build, value, gas=21_000)

    def _transact(
        self, account: Account, build: Callable[[Any], Any], value: int, gas: int | None = None
    ) -> Any:
        latest = self.w3.eth.get_block("latest")
        base_fee = latest.get("baseFeePerGas", 0)
        fields: dict[str, Any] = {
            "from": account.address,
            "value": value,
            "nonce": self.w3.eth.get_transaction_count(account.address, "pending"),
            "maxPriorityFeePerGas": 10**9,
            "maxFeePerGas": 2 * base_fee + 10**9,
        }
        limit = gas or self.gas_limit
        # Before the gas is estimated: nodes say in many ways that an account cannot pay.
        self._check_funds(account, value + (limit or 21_000) * fields["maxFeePerGas"])
        if limit is not None:
            fields["gas"] = limit
        transaction = build(fields)
        if limit is None:
            transaction["gas"] = min(transaction["gas"] * 6 // 5, latest["gasLimit"])
            self._check_funds(account, value + transaction["gas"] * transaction["maxFeePerGas"])
        if self.gas_limit is not None and gas is None and "to" in transaction:
            # With a fixed gas limit nothing was simulated yet: this call raises the revert reason.
            call: Any = {k: v for k, v in transaction.items() if k != "nonce"}
            self.w3.eth.call(call)
        receipt = send_until_mined(self.w3, account, transaction)
        if receipt["status"] != 1:
            sent = receipt["transactionHash"].to_0x_hex()
            raise TransactionReverted(f"transaction {sent} failed on chain")
        return receipt

    def _check_funds(self, account: Account, needed: int) -> None:
        balance = self.w3.eth.get_balance(account.address)
        if balance < needed:
            raise InsufficientFunds(
                f"{account.address} needs {needed} wei for this transaction and its gas, and has "
                f"{balance}"
            )

    def _decode(self, contract: Contract, logs: Sequence[Any]) -> list[tuple[str, dict[str, Any]]]:
        decoded = []
        for log in logs:
            for other in (contract, *self._contracts.values()):
                if other.address == log["address"]:
                    found = decode_log(other, log)
                    if found is not None:
                        decoded.append(found)
                    break
        return decoded

    def logs(self, contract: Contract, from_block: int, topics: Sequence[Any] = ()) -> list[Log]:
        """Confirmed events of a contract, oldest first.

        Only blocks that were not read before are asked for. Should the last of those that were have
        another hash now, the chain was reorganized, and all is read again.
        """
        key = (str(contract.address), from_block, repr(topics))
        with _explained("reading events"):
            last = self.w3.eth.block_number - self.confirmations
            if last < from_block:
                return []
            known = self._known.get(key)
            if known is None or last < known.last or self._seal(known.last) != known.seal:
                known = _Known(from_block - 1, b"", [])
            if last > known.last:
                seal = self._seal(last)
                found = self.w3.eth.get_logs(
                    {
                        "address": contract.address,
                        "fromBlock": known.last + 1,
                        "toBlock": last,
                        "topics": list(topics),
                    }
                )
                events = [
                    Log(int(log["blockNumber"]), *event, log["transactionHash"].to_0x_hex())
                    for log in found
                    if (event := decode_log(contract, log)) is not None
                ]
                known = _Known(last, seal, known.events + events)
                self._known[key] = known
        return list(known.events)

    def call_of(self, contract: Contract, transaction: str) -> tuple[str, dict[str, Any]]:
        """Function and arguments of a transaction that was sent to a contract itself."""
        with _explained(f"reading transaction {transaction}"):
            sent: Any = self.w3.eth.get_transaction(HexStr(transaction))
            function, arguments = contract.decode_function_input(sent["input"])
            return str(function.fn_name), dict(arguments)

    def _seal(self, block: int) -> bytes:
        """Hash of a block."""
        return bytes(self.w3.eth.get_block(block).get("hash", b""))

    @property
    def block(self) -> int:
        """Number of the latest block."""
        with _explained("reading the block number"):
            return int(self.w3.eth.block_number)

    @property
    def now(self) -> int:
        """Timestamp of the latest block, seconds since 1970."""
        with _explained("reading the latest block"):
            return int(self.w3.eth.get_block("latest")["timestamp"])

    def balance(self, address: str) -> int:
        """Wei that an address holds outside of the contracts."""
        with _explained(f"reading the balance of {address}"):
            return int(self.w3.eth.get_balance(to_checksum_address(address)))

    def wait(self, seconds: int) -> None:
        """Lets chain time pass: travels on a test chain, sleeps on any other."""
        if self._advance is not None:
            self._advance(seconds)
        else:
            time.sleep(seconds)


def _reason(error: BaseException) -> str:
    """The innermost cause: the outer ones only say that a request failed."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error)


def decode_log(contract: Contract, log: Any) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of one log entry, or None if the contract's ABI has no such event."""
    for item in contract.abi:
        if item["type"] != "event" or not log["topics"]:
            continue
        if event_topic(item) != bytes(log["topics"][0]):
            continue
        event = contract.events[item["name"]]()
        return item["name"], dict(event.process_log(log)["args"])
    return None


def event_topic(item: Any) -> bytes:
    """Topic 0 of an event of an ABI."""
    return keccak(text=f"{item['name']}({','.join(abi_type(i) for i in item['inputs'])})")


def encode_abi(types: Sequence[str], values: Sequence[Any]) -> bytes:
    """Plain ABI encoding, as `abi.encode` in Solidity."""
    return eth_abi.encode(list(types), list(values))
