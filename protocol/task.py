# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's terms, as the market hashes them, and its life as the market tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from typing import Any, Final

from eth_utils.crypto import keccak

from protocol.chain.client import encode_abi
from protocol.rules import MAX_ROUNDS, QUORUM


class Status(IntEnum):
    """Same order as `Status` in contracts/market/MarketTypes.sol."""

    NONE = 0
    BIDDING = 1
    TRAINING = 2
    COMMITTED = 3
    STARTING = 4
    SEALING = 5
    REVEALING = 6
    WINDOW = 7
    CONVICTED = 8
    SETTLED = 9
    SLASHED = 10
    EXPIRED = 11

    @property
    def final(self) -> bool:
        """True if nothing can happen to the task any more."""
        return self >= Status.SETTLED


NO_SEAT: Final = 255
"""Instead of the number of a seat."""
NOBODY: Final = "0x" + 40 * "0"
"""The address that nobody has: as a task's solver, whoever wins the auction."""
WORK_UNIT: Final = 10**9
"""FLOPs; prices of standing asks refer to it."""
ASK_STAKE_UNIT: Final = 10**9
"""The highest stake that a standing ask may lock is given in units of this."""


class SeatState(IntEnum):
    """A drawn verifier's progress in the audit."""

    DRAWN = 0
    SEALED = 1
    ATTESTED = 2
    MISMATCHED = 3
    DISPUTING = 4
    UNAVAILABLE = 5
    SLASHED = 6


@dataclass(frozen=True)
class TaskSpec:
    """Terms of a task: the Solidity struct of this name. Amounts wei, windows seconds."""

    program_root: bytes
    const_root: bytes
    data_root: bytes
    seed: bytes
    initial_root: bytes
    n_nodes: int
    n_state: int
    n_const: int
    n_data: int
    steps: int
    segment_steps: int
    window_segments: int
    """Segments of a progress window, which is audited and paid by itself."""
    submitter: str
    work: int = 0
    """Of the whole training, in units of WORK_UNIT, rounded up."""
    memory_mib: int = 0
    committee: int = 2
    samples: int = 2
    second_audit: int = 0
    """Chance of a second audit of each progress window, in 256ths."""
    solver: str = NOBODY
    budget: int = 10**18
    solver_stake: int = 5 * 10**17
    verifier_fee: int = 10**16
    bond: int = 10**17
    late_cost: int = 0
    bid_window: int = 600
    train_window: int = 86_400
    audit_window: int = 3_600
    challenge_window: int = 3_600
    dispute_clock: int = 7_200

    def as_abi(self) -> tuple[Any, ...]:
        """The tuple that web3 encodes as the Solidity struct."""
        return tuple(getattr(self, name) for name in _SOLIDITY_ORDER)

    @classmethod
    def from_abi(cls, values: Mapping[str, Any]) -> TaskSpec:
        """From a decoded event argument with Solidity's field names."""
        return cls(**{name: values[_camel(name)] for name in _SOLIDITY_ORDER})

    @cached_property
    def hash(self) -> bytes:
        """What the market keeps of the terms. It binds every byte that a task is computed from."""
        return bytes(keccak(b"".join(map(_word, self.as_abi()))))

    @property
    def segments(self) -> int:
        """Number of segments; the checkpoint log has one leaf more."""
        return -(-self.steps // self.segment_steps)

    @property
    def windows(self) -> int:
        """Number of progress windows."""
        return -(-self.segments // self.window_segments)

    @property
    def escrow(self) -> int:
        """What the submitter pays when it posts: the market's `escrowOf`."""
        audits = 2 if self.second_audit else 1
        return self.budget + self.windows * audits * self.committee * MAX_ROUNDS * self.verifier_fee

    def complete(self, settled: int) -> int:
        """Leaves of the log at the end of the progress window after `settled` segments."""
        return min(self.segments, settled + self.window_segments) + 1

    def steps_between(self, first: int, count: int) -> range:
        """Step numbers of `count` segments from segment `first` on."""
        start = first * self.segment_steps
        return range(start, min(self.steps, start + count * self.segment_steps))


_SOLIDITY_ORDER: Final = (
    *("program_root", "const_root", "data_root", "seed", "initial_root"),
    *("n_nodes", "n_state", "n_const", "n_data"),
    *("steps", "segment_steps", "window_segments", "work", "memory_mib"),
    *("committee", "samples", "second_audit", "submitter", "solver"),
    *("budget", "solver_stake", "verifier_fee", "bond", "late_cost"),
    *("bid_window", "train_window", "audit_window", "challenge_window", "dispute_clock"),
)


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join("MiB" if part == "mib" else part.capitalize() for part in tail)


def _word(value: bytes | str | int) -> bytes:
    """One field as the ABI encodes it; addresses are text."""
    if isinstance(value, bytes):
        return value.rjust(32, b"\0")
    return (int(value, 16) if isinstance(value, str) else value).to_bytes(32)


@dataclass(frozen=True)
class Run:
    """Adjacent drawn segments, audited as one by the verifiers of a round."""

    first: int
    count: int
    round: int


@dataclass(frozen=True)
class Seat:
    """One drawn verifier. Its number is its place in the market's list of seats."""

    verifier: str
    state: SeatState
    round: int


@dataclass(frozen=True)
class Record:
    """What is known of a solver, and its standing ask: the Solidity struct of this name."""

    settled: int
    defaulted: int
    slashed_at: int
    capacity: int
    memory_mib: int
    ask_price: int
    max_stake: int
    """In units of ASK_STAKE_UNIT."""

    def asks(self, spec: TaskSpec) -> bool:
        """True if the ask may be entered for a task."""
        fits = spec.memory_mib <= self.memory_mib
        fits &= spec.solver_stake <= self.max_stake * ASK_STAKE_UNIT
        return self.capacity > 0 and fits and self.ask_price * spec.work <= spec.budget


@dataclass(frozen=True)
class Demand:
    """A chunk of a checkpoint that the solver must post until the deadline."""

    id: int
    task: int
    asker: str
    leaf: int
    tensor: int
    chunk: int
    numel: int
    deadline: int
    price: int


def is_lacking(seats: Sequence[Seat], audit_round: int) -> bool:
    """True if a round's audit counts for nothing, as the market has it: fewer than QUORUM attested,
    or so many could not get what they needed that the solver may have chosen who audits it.
    """
    states = [seat.state for seat in seats if seat.round == audit_round]
    attested = states.count(SeatState.ATTESTED)
    return attested < QUORUM or 2 * states.count(SeatState.UNAVAILABLE) >= attested


def is_audited_again(spec: TaskSpec, state: TaskState, seats: Sequence[Seat]) -> bool:
    """True if another audit follows the open window, unless the solver is convicted: this one
    counts for nothing, or somebody has objected, so that no second audit was drawn yet.
    """
    owes_second = spec.second_audit != 0 and state.agreed == 0
    return owes_second or is_lacking(seats, state.round)


@dataclass(frozen=True)
class TaskState:
    """`getTask` of the market: the Solidity struct `Task`, in its order."""

    spec_hash: bytes
    status: Status
    round: int
    retries: int
    agreed: int
    open: int
    demands: int
    seats: int
    runs: int
    first_run: int
    deadline: int
    draw_block: int
    committed_block: int
    pool: int
    log_size: int
    settled: int
    solver: str
    price: int
    paid: int
    forfeited: int
    by_ask: bool
    challenges: int
    accusations: int
    log_root: bytes
    ends_hash: bytes

    @classmethod
    def from_abi(cls, values: tuple[Any, ...]) -> TaskState:
        """From web3's tuple."""
        named = dict(zip((f.name for f in fields(cls)), values, strict=True))
        return cls(**{**named, "status": Status(named["status"])})


def bid_digest(
    chain_id: int, market: str, task: int, bidder: str, price: int, nonce: bytes
) -> bytes:
    """What a bidder seals; equal to the market's `bidDigest`."""
    types = ["string", "uint256", "address", "uint256", "address", "uint256", "bytes32"]
    return bytes(keccak(encode_abi(types, ["bid", chain_id, market, task, bidder, price, nonce])))


def challenge_digest(
    chain_id: int,
    market: str,
    task: int,
    challenger: str,
    first: int,
    count: int,
    attestor: int,
    nonce: bytes,
) -> bytes:
    """What a challenger seals; equal to the market's `challengeDigest`."""
    types = ["string", "uint256", "address", "uint256", "address"]
    types += ["uint32", "uint32", "uint8", "bytes32"]
    values = ["challenge", chain_id, market, task, challenger, first, count, attestor, nonce]
    return bytes(keccak(encode_abi(types, values)))


def receipt_salt(chain_id: int, market: str, task: int, audit_round: int, verifier: str) -> bytes:
    """What a verifier puts before each chunk of its receipt: 32 bytes that name the two."""
    types = ["string", "uint256", "address", "uint256", "uint8", "address"]
    values = ["receipt", chain_id, market, task, audit_round, verifier]
    return bytes(keccak(encode_abi(types, values)))


def seal_digest(
    chain_id: int,
    market: str,
    task: int,
    audit_round: int,
    verifier: str,
    nonce: bytes,
    state_roots: list[bytes],
) -> bytes:
    """What a verifier seals; equal to `sealOf` of the market."""
    types = ["uint256", "address", "uint256", "uint8", "address", "bytes32", "bytes32[]"]
    values = [chain_id, market, task, audit_round, verifier, nonce, state_roots]
    return bytes(keccak(encode_abi(types, values)))
