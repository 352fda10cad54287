# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's terms, as the market hashes them, and its life as the market tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

from eth_utils.crypto import keccak

from protocol.chain.client import encode_abi


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
    SETTLED = 8
    SLASHED = 9
    EXPIRED = 10

    @property
    def final(self) -> bool:
        """True if nothing can happen to the task any more."""
        return self >= Status.SETTLED


class SeatState(IntEnum):
    """A drawn verifier's progress in the audit."""

    DRAWN = 0
    SEALED = 1
    ATTESTED = 2
    MISMATCHED = 3
    UNAVAILABLE = 4


@dataclass(frozen=True)
class TaskSpec:
    """Terms of a task; field order is that of the Solidity struct. Amounts wei, windows seconds."""

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
    committee: int = 2
    samples: int = 2
    solver_stake: int = 5 * 10**17
    verifier_fee: int = 10**16
    bond: int = 10**17
    bid_window: int = 600
    train_window: int = 86_400
    audit_window: int = 3_600
    challenge_window: int = 3_600
    dispute_clock: int = 7_200

    def as_abi(self) -> tuple[Any, ...]:
        """The tuple that web3 encodes as the Solidity struct."""
        return tuple(getattr(self, f.name) for f in fields(self))

    @classmethod
    def from_abi(cls, values: Mapping[str, Any]) -> TaskSpec:
        """From a decoded event argument with Solidity's field names."""
        return cls(**{f.name: values[_camel(f.name)] for f in fields(cls)})

    @property
    def segments(self) -> int:
        """Number of segments; the checkpoint log has one leaf more."""
        return -(-self.steps // self.segment_steps)

    def steps_between(self, first: int, count: int) -> range:
        """Step numbers of `count` segments from segment `first` on."""
        start = first * self.segment_steps
        return range(start, min(self.steps, start + count * self.segment_steps))


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


@dataclass(frozen=True)
class Run:
    """Adjacent drawn segments, audited as one. Roots are zero until the solver has opened them."""

    first: int
    count: int
    start_root: bytes
    end_root: bytes


@dataclass(frozen=True)
class Seat:
    """One drawn verifier."""

    verifier: str
    state: SeatState


def is_lacking(seats: Sequence[Seat]) -> bool:
    """True if a round's audit counts for nothing, as the market has it: nobody attested, or most of
    the drawn could not get what they needed.
    """
    states = [seat.state for seat in seats]
    attested = SeatState.ATTESTED in states
    return not attested or 2 * states.count(SeatState.UNAVAILABLE) > len(states)


@dataclass(frozen=True)
class TaskState:
    """`getTask` of the market."""

    spec_hash: bytes
    log_root: bytes
    final_root: bytes
    submitter: str
    deadline: int
    log_size: int
    solver: str
    price: int
    escrow: int
    stake: int
    draw_block: int
    forfeited: int
    committed_block: int
    pool: int
    round: int
    open_disputes: int
    status: Status

    @classmethod
    def from_abi(cls, values: tuple[Any, ...]) -> TaskState:
        """From web3's tuple."""
        named = dict(zip((f.name for f in fields(cls)), values, strict=True))
        return cls(**{**named, "status": Status(values[-1])})


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
