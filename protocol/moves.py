# SPDX-License-Identifier: GPL-3.0-or-later
"""The moves of the dispute game, one dataclass each (specification, section 6).

A move is a call of `contracts/DisputeGame.sol`: `function` is the name there, `args()` gives its
arguments in ABI order. The fields below are those arguments in that order, so a class needs no more
than a list of fields. Hashes and roots are `bytes` of length 32; byte strings of lanes,
accumulators and values hold big-endian words, a chunk is tensor data.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from protocol.position import History, Segment, State
from protocol.question import Context, Proof

Hashes = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """Any move. `state` is `GameView.state`, which the move answers."""

    function: ClassVar[str]

    dispute: int
    state: State

    def args(self) -> tuple[object, ...]:
        """Return the arguments of the contract's function, structs as tuples."""
        return tuple(_abi(getattr(self, field.name)) for field in fields(self))


def _abi(value: object) -> object:
    if isinstance(value, State | History | Segment | Context | Proof):
        return value.as_abi()
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class CommitSteps(Move):
    """Defendant: the children of the step log."""

    function: ClassVar[str] = "commitSteps"

    program: bytes
    history: History
    children: Hashes


@dataclass(frozen=True, slots=True)
class CommitTrace(Move):
    """Defendant: the children of the trace of the disputed step."""

    function: ClassVar[str] = "commitTrace"

    program: bytes
    history: History
    children: Hashes


@dataclass(frozen=True, slots=True)
class Point(Move):
    """Challenger: a child of the cursor and its siblings."""

    function: ClassVar[str] = "point"

    index: int
    child: bytes
    path: Hashes


@dataclass(frozen=True, slots=True)
class Open(Move):
    """Defendant: the children of the cursor."""

    function: ClassVar[str] = "open"

    children: Hashes


@dataclass(frozen=True, slots=True)
class DoubtEnd(Move):
    """Challenger: the step log is right, but does not end in the disputed state."""

    function: ClassVar[str] = "doubtEnd"

    program: bytes
    history: History
    context: Context


@dataclass(frozen=True, slots=True)
class DoubtState(Move):
    """Challenger: the trace is right, but does not give the state that the step log has."""

    function: ClassVar[str] = "doubtState"

    program: bytes
    history: History
    context_hash: bytes
    log_root: bytes
    step_leaf: bytes


@dataclass(frozen=True, slots=True)
class Reveal(Move):
    """Defendant: the children of the tree whose root the cursor, a leaf, holds."""

    function: ClassVar[str] = "reveal"

    children: Hashes


@dataclass(frozen=True, slots=True)
class Show(Move):
    """Defendant: the doubted leaf is in the log or the trace, where it belongs. Wins."""

    function: ClassVar[str] = "show"

    program: bytes
    history: History
    proof: Hashes


@dataclass(frozen=True, slots=True)
class PointNode(Move):
    """Challenger: a leaf of the trace with its siblings, and its node in the program."""

    function: ClassVar[str] = "pointNode"

    program: bytes
    history_hash: bytes
    index: int
    child: bytes
    path: Hashes
    node: bytes
    node_proof: Hashes


@dataclass(frozen=True, slots=True)
class RevealChunk(Move):
    """Defendant: the data of the disputed chunk."""

    function: ClassVar[str] = "revealChunk"

    chunk: bytes


@dataclass(frozen=True, slots=True)
class PointElement(Move):
    """Challenger: an element of the chunk, by its offset in it, shown in eight of its words."""

    function: ClassVar[str] = "pointElement"

    offset: int
    before: int
    eight: bytes
    path: Hashes


@dataclass(frozen=True, slots=True)
class OpenLanes(Move):
    """Defendant: the sixteen lane results."""

    function: ClassVar[str] = "openLanes"

    lanes: bytes


@dataclass(frozen=True, slots=True)
class PointLane(Move):
    """Challenger: one of the lanes."""

    function: ClassVar[str] = "pointLane"

    lanes: bytes
    lane: int


@dataclass(frozen=True, slots=True)
class OpenFold(Move):
    """Defendant: the accumulators of the disputed chain, the last of which is its result."""

    function: ClassVar[str] = "openFold"

    accumulators: bytes


@dataclass(frozen=True, slots=True)
class PointFold(Move):
    """Challenger: the first wrong accumulator, shown in eight of them."""

    function: ClassVar[str] = "pointFold"

    index: int
    before: int
    eight: bytes
    path: Hashes


@dataclass(frozen=True, slots=True)
class PostValues(Move):
    """Defendant: the operands' values, then every instruction's result."""

    function: ClassVar[str] = "postValues"

    values: bytes


@dataclass(frozen=True, slots=True)
class Prove(Move):
    """Challenger: the one-step proof about the values of a MAP or FOLD."""

    function: ClassVar[str] = "prove"

    history: History
    proof: Proof


@dataclass(frozen=True, slots=True)
class ProveLeaf(Move):
    """Challenger: the one-step proof about an element that is generated, or about a root."""

    function: ClassVar[str] = "proveLeaf"

    history: History
    context: Context
    segment: Segment
    proof: Proof
