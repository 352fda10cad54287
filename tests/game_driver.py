# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays whole dispute games: the contract on a bare EVM, two players in Python, a view from events.

    court = Court()                       # DisputeGame on the toy referee, with an arbiter
    game = court.open(context)
    outcome = game.play(honest(witness, Role.DEFENDANT), honest(own, Role.CHALLENGER))

A player is a function from a view to a move. One that returns None, or whose move the contract
refuses, has lost its turn: the driver lets its clock run out and calls `timeout`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import eth_abi
from eth.abc import ComputationAPI
from eth.vm.message import Message
from eth_utils.crypto import keccak

from protocol.dispute import GameView, Phase, Role, next_move, turn_of
from protocol.errors import DisputeError
from protocol.moves import Move
from protocol.question import Context
from protocol.witness import Witness
from scripts.solc import CONTRACTS, Contract, compile_contracts
from tests.evm import Evm, EvmReverted

DEFENDANT = b"\xde" * 20
CHALLENGER = b"\xca" * 20
STRANGER = b"\x57" * 20
CLOCK = 3600
BLOCK_SECONDS = 12
TX_GAS = 21_000
CONTRACT_FILES = (
    "DisputeGame.sol", "Referee.sol", "mocks/ToyReferee.sol", "mocks/VerdictRecorder.sol",
)  # fmt: skip

Player = Callable[[GameView], Move | None]
Event = tuple[str, dict[str, Any]]


class Refused(Exception):
    """The contract refused a call with a custom error (`error` and its decoded `arguments`)."""

    def __init__(self, error: str, arguments: tuple[Any, ...], gas: int) -> None:
        super().__init__(f"{error}{arguments}")
        self.error = error
        self.arguments = arguments
        self.gas = gas


@functools.cache
def contract(name: str) -> Contract:
    files = [CONTRACTS / file for file in CONTRACT_FILES if file.endswith(f"{name}.sol")]
    return compile_contracts(files)[name]


def abi_type(item: dict[str, Any]) -> str:
    if not item["type"].startswith("tuple"):
        return str(item["type"])
    inner = ",".join(abi_type(component) for component in item["components"])
    return f"({inner}){item['type'][5:]}"


def types_of(items: Sequence[dict[str, Any]]) -> list[str]:
    return [abi_type(item) for item in items]


@functools.cache
def entries(name: str) -> dict[str, dict[str, Any]]:
    """Functions by name, events and errors by the first bytes of their hash."""
    table = {}
    for item in contract(name)["abi"]:
        if "name" in item:
            signature = f"{item['name']}({','.join(types_of(item['inputs']))})"
            digest = keccak(text=signature)
            key = item["name"] if item["type"] == "function" else digest.hex()
            table[key if item["type"] != "error" else digest[:4].hex()] = {
                **item, "digest": digest,
            }  # fmt: skip
    return table


def transaction_gas(calldata: bytes, execution: int) -> int:
    """Gas of a transaction: intrinsic and execution, or the floor of EIP-7623 if more."""
    zeros = calldata.count(0)
    tokens = zeros + 4 * (len(calldata) - zeros)
    return TX_GAS + max(4 * tokens + execution, 10 * tokens)


class LoggingEvm(Evm):
    """Keeps the logs of the last successful message."""

    logs: tuple[tuple[bytes, tuple[int, ...], bytes], ...] = ()

    def _apply(self, message: Message, *, keep: bool, warm: Sequence[bytes]) -> ComputationAPI:
        computation = super()._apply(message, keep=keep, warm=warm)
        if keep:
            self.logs = tuple(computation.get_log_entries())
        return computation


class Deployed:
    """One contract at an address, called by name."""

    def __init__(self, evm: LoggingEvm, name: str, *arguments: Any, types: Sequence[str] = ()):
        self.evm = evm
        self.name = name
        code = bytes.fromhex(contract(name)["bytecode"][2:])
        self.address = evm.deploy(code, eth_abi.encode(list(types), list(arguments)))

    def calldata(self, function: str, *args: Any) -> bytes:
        entry = entries(self.name)[function]
        return entry["digest"][:4] + eth_abi.encode(types_of(entry["inputs"]), list(args))

    def send(
        self, function: str, *args: Any, sender: bytes = STRANGER, gas: int = 30_000_000
    ) -> tuple[int, list[Event]]:
        """Send a transaction: its gas as on a real chain, and the events of this contract."""
        data = self.calldata(function, *args)
        try:
            _, used = self.evm.call(self.address, data, sender=sender, gas=gas)
        except EvmReverted as error:
            raise self.refusal(error) from None
        logs = [log for log in self.evm.logs if bytes(log[0]) == self.address]
        return transaction_gas(data, used), [self.event(log) for log in logs]

    def view(self, function: str, *args: Any) -> Any:
        """Call without effect; a single result is unwrapped."""
        data = self.calldata(function, *args)
        output, _ = self.evm.call(self.address, data, sender=STRANGER, keep=False)
        outputs = entries(self.name)[function]["outputs"]
        values = eth_abi.decode(types_of(outputs), output)
        return values[0] if len(values) == 1 else values

    def refusal(self, error: EvmReverted) -> Refused:
        entry = entries(self.name).get(error.selector.hex())
        if entry is None:
            return Refused(error.output.hex() or str(error), (), error.gas_used)
        arguments = eth_abi.decode(types_of(entry["inputs"]), error.output[4:])
        return Refused(entry["name"], arguments, error.gas_used)

    def event(self, log: tuple[bytes, tuple[int, ...], bytes]) -> Event:
        _, topics, data = log
        entry = entries(self.name)[f"{topics[0]:064x}"]
        indexed = [item for item in entry["inputs"] if item["indexed"]]
        plain = [item for item in entry["inputs"] if not item["indexed"]]
        args = {
            item["name"]: eth_abi.decode([item["type"]], topic.to_bytes(32, "big"))[0]
            for item, topic in zip(indexed, topics[1:], strict=True)
        }
        values = eth_abi.decode(types_of(plain), data)
        args |= {item["name"]: value for item, value in zip(plain, values, strict=True)}
        return entry["name"], args


class Court:
    """A game contract with a referee and an arbiter."""

    def __init__(self, referee: str = "ToyReferee") -> None:
        self.evm = LoggingEvm()
        self.referee = Deployed(self.evm, referee)
        self.game = Deployed(self.evm, "DisputeGame", self.referee.address, types=["address"])
        self.arbiter = Deployed(self.evm, "VerdictRecorder", self.game.address, types=["address"])

    def open(
        self,
        context: Context,
        *,
        defendant_clock: int = CLOCK,
        challenger_clock: int = CLOCK,
        defendant: bytes = DEFENDANT,
        challenger: bytes = CHALLENGER,
        arbitrated: bool = True,
    ) -> Game:
        """Have the arbiter open a dispute, or an account without code if not `arbitrated`."""
        data = self.arbiter.calldata(
            "create", context.as_abi(), defendant, challenger, defendant_clock, challenger_clock
        )
        opener = self.arbiter if arbitrated else self.game
        _, used = self.evm.call(opener.address, data, gas=30_000_000)
        ((name, args),) = [
            self.game.event(log) for log in self.evm.logs if bytes(log[0]) == self.game.address
        ]
        assert name == "DisputeCreated"
        view = GameView.created(args)
        parties = {Role.DEFENDANT: defendant, Role.CHALLENGER: challenger}
        game = Game(self, view, parties, [("create", transaction_gas(data, used))])
        game.check_view()
        return game


@dataclass
class Outcome:
    """How a game ended and what each of its transactions cost."""

    convicted: bool
    timed_out: bool
    gas: list[tuple[str, int]]
    refusals: list[str] = field(default_factory=list)
    """Custom errors of the moves that the contract refused."""

    @property
    def functions(self) -> list[str]:
        return [function for function, _ in self.gas]


@dataclass
class Game:
    """One dispute on chain and the view that its events give."""

    court: Court
    view: GameView
    parties: dict[Role, bytes]
    gas: list[tuple[str, int]]
    strict: bool = True
    """Compare the view with the hash that the contract stored after every move."""
    pace: int = BLOCK_SECONDS
    """Seconds that a player takes for a move."""

    def send(self, move: Move, sender: bytes | None = None) -> None:
        """Send a move as the party whose turn it is; raise Refused and change nothing, or apply."""
        turn = turn_of(self.view.phase)
        if sender is None:
            assert turn is not None
            sender = self.parties[turn]
        used, events = self.court.game.send(move.function, *move.args(), sender=sender)
        self._apply(move.function, used, events)

    def timeout(self) -> None:
        view = self.view
        answers = (view.state.as_abi(), view.program, view.history.as_abi())
        used, events = self.court.game.send("timeout", view.dispute, *answers)
        self._apply("timeout", used, events)

    def _apply(self, function: str, used: int, events: list[Event]) -> None:
        self.gas.append((function, used))
        for name, args in events:
            assert args.pop("id") == self.view.dispute
            self.view.apply(name, args)
        if self.strict:
            self.check_view()

    def wait(self, seconds: int) -> None:
        self.court.evm.mine(seconds=seconds)

    def stored(self) -> bytes:
        """The contract's whole record of the dispute: a hash, zero once it is finished."""
        return bytes(self.court.game.view("stateHash", self.view.dispute))

    def check_view(self) -> None:
        """What the events told must be what the contract has stored."""
        assert self.stored() == (bytes(32) if self.view.finished else self.view.state.digest)

    def play(self, defendant: Player, challenger: Player, limit: int = 200) -> Outcome:
        """Play to the end, which must come within `limit` moves."""
        players = {Role.DEFENDANT: defendant, Role.CHALLENGER: challenger}
        refusals = []
        for _ in range(limit):
            turn = turn_of(self.view.phase)
            if turn is None:
                break
            move = players[turn](self.view)
            if self.pace:
                self.wait(self.pace)
            if move is not None:
                try:
                    self.send(move)
                    continue
                except Refused as refused:
                    refusals.append(refused.error)
            self.wait(1 + max(self.view.clocks))
            self.timeout()
        assert self.view.finished
        return Outcome(self.view.phase is Phase.CONVICTED, self.view.timed_out, self.gas, refusals)


def honest(witness: Witness, role: Role) -> Player:
    """Plays by the book; a challenger that finds nothing wrong gives up."""

    def player(view: GameView) -> Move | None:
        try:
            return next_move(view, witness, role)
        except DisputeError:
            return None

    return player


def stops_after(player: Player, moves: int) -> Player:
    """Plays like another player, but falls silent once the game has that many moves."""
    return lambda view: player(view) if view.moves < moves else None


def replayed(move: Move, **changes: Any) -> Move:
    """The same move with some arguments changed."""
    return replace(move, **changes)
