# SPDX-License-Identifier: GPL-3.0-or-later
"""What every move of a dispute names: the packed state that it answers.

The contract stores one hash of it. The numbers and the packing are those of
`contracts/game/GameTypes.sol` and `contracts/game/Positions.sol`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from eth_utils.crypto import keccak

from protocol.program import Fold, Kind


class Role(IntEnum):
    """The two players."""

    DEFENDANT = 0
    CHALLENGER = 1


class Phase(IntEnum):
    """What the next move must be; same numbers as in the contract, which has not the last two."""

    NONE = 0
    COMMIT_STEPS = 1
    COMMIT_TRACE = 2
    POINT = 3
    OPEN = 4
    REVEAL = 5
    SHOW = 6
    REVEAL_CHUNK = 7
    POINT_ELEMENT = 8
    LANES = 9
    POINT_LANE = 10
    FOLD = 11
    POINT_FOLD = 12
    VALUES = 13
    PROVE_LEAF = 14
    PROVE = 15
    CONVICTED = 16
    ACQUITTED = 17


class Level(IntEnum):
    """The tree that the cursor lies in; same numbers as in the contract."""

    STEPS = 0
    TRACE = 1
    STATE = 2
    CHUNK = 3


ROOT_KINDS: Final = frozenset({Kind.INPUT, Kind.CONST, Kind.DATA, Kind.OUTPUT})
"""Nodes whose tensor is another one, so that their root decides."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the game knows of the disputed node, as `NodeFacts` in the contract."""

    kind: Kind
    fold: Fold
    lanes: int
    numel: int
    terms: int


@dataclass(frozen=True, slots=True)
class State:
    """The six words of a dispute's state."""

    turn: int
    defence: int
    challenge: int
    element: int
    claim: bytes
    past: bytes

    def as_abi(self) -> tuple[object, ...]:
        """Return the fields of the Solidity struct in order."""
        return (
            self.turn, self.defence, self.challenge, self.element, self.claim, self.past,
        )  # fmt: skip

    @property
    def digest(self) -> bytes:
        """The contract's `stateHash` of a dispute in this state."""
        words = (self.turn, self.defence, self.challenge, self.element)
        return keccak(b"".join(w.to_bytes(32, "big") for w in words) + self.claim + self.past)


@dataclass(frozen=True, slots=True)
class History:
    """What only the moves between two trees, the proof and the end of a dispute look at."""

    arbiter: str
    tree: bytes
    """Root of the step log; from the second commitment on, of the trace."""
    origin: bytes
    """Hash of the context; from then on of that, the log's root and the step's leaf."""

    def as_abi(self) -> tuple[object, ...]:
        """Return the fields of the Solidity struct in order."""
        return (self.arbiter, self.tree, self.origin)

    @property
    def digest(self) -> bytes:
        """The keccak256 of the encoded struct."""
        return keccak(address(self.arbiter).to_bytes(32, "big") + self.tree + self.origin)


@dataclass(frozen=True, slots=True)
class Segment:
    """How a leaf of the program is tied to what came before the disputed step."""

    log_root: bytes
    step_leaf: bytes
    state_before: bytes = bytes(32)
    proof: tuple[bytes, ...] = ()

    def as_abi(self) -> tuple[object, ...]:
        """Return the fields of the Solidity struct in order."""
        return (self.log_root, self.step_leaf, self.state_before, list(self.proof))


TURN_WIDTHS: Final = (5, 4, 4, 1, 1, 2, 4, 4, 1, 1, 4)
"""Bytes of a turn's fields: time of the last move, two clocks, phase, level, moves, first, count,
lane, level of the fold, item."""
DEFENCE_WIDTHS: Final = (20, 4, 4, 4)
"""Defendant, step, n_state, n_nodes."""
ELEMENT_WIDTHS: Final = (1, 1, 1, 4, 4, 4, 4, 4)
"""Kind, fold, lanes, node, numel, terms, claimed value, accumulator before it."""


def pack(fields: tuple[int, ...], widths: tuple[int, ...]) -> int:
    """Return big-endian fields of so many bytes each as one number."""
    packed = 0
    for field, width in zip(fields, widths, strict=True):
        packed = packed << 8 * width | field
    return packed


def unpack(packed: int, widths: tuple[int, ...]) -> tuple[int, ...]:
    """Return the fields of a packed number."""
    fields = []
    for width in reversed(widths):
        fields.append(packed & (1 << 8 * width) - 1)
        packed >>= 8 * width
    return tuple(reversed(fields))


def address(text: str) -> int:
    """Return an address as a number."""
    return int(text, 16)
