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

from protocol.question import Context, Proof

Hashes = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """Any move. `answers` is `GameView.position`, the position that the move answers."""

    function: ClassVar[str]

    dispute: int
    answers: bytes

    def args(self) -> tuple[object, ...]:
        """Return the arguments of the contract's function, structs as tuples."""
        return tuple(_abi(getattr(self, field.name)) for field in fields(self))


def _abi(value: object) -> object:
    if isinstance(value, Context | Proof):
        return value.as_abi()
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class CommitSteps(Move):
    """Defendant: the root of the step log, a proof that it ends in `end_root`, its children."""

    function: ClassVar[str] = "commitSteps"

    context: Context
    log_root: bytes
    last_proof: Hashes
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
class RevealStep(Move):
    """Defendant: the disputed state root and its children, the root before it with its proof."""

    function: ClassVar[str] = "revealStep"

    context: Context
    state_after: bytes
    state_before: bytes
    proof: Hashes
    children: Hashes


@dataclass(frozen=True, slots=True)
class RevealTensor(Move):
    """Defendant: the disputed state tensor's root, the trace that ends in it, its children."""

    function: ClassVar[str] = "revealTensor"

    context: Context
    tensor_root: bytes
    trace_root: bytes
    proof: Hashes
    children: Hashes


@dataclass(frozen=True, slots=True)
class PointNode(Move):
    """Challenger: a leaf of the trace with its siblings, and its node in the program."""

    function: ClassVar[str] = "pointNode"

    context: Context
    index: int
    child: bytes
    path: Hashes
    node: bytes
    node_proof: Hashes


@dataclass(frozen=True, slots=True)
class RevealNode(Move):
    """Defendant: the root of the disputed node's tensor and its children."""

    function: ClassVar[str] = "revealNode"

    tensor_root: bytes
    children: Hashes


@dataclass(frozen=True, slots=True)
class RevealChunk(Move):
    """Defendant: the data of the disputed chunk."""

    function: ClassVar[str] = "revealChunk"

    chunk: bytes


@dataclass(frozen=True, slots=True)
class PointElement(Move):
    """Challenger: an element of the chunk, by its offset in it."""

    function: ClassVar[str] = "pointElement"

    chunk: bytes
    offset: int


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
    """Defendant: the accumulators of the disputed chain; below the top also its result, `item`."""

    function: ClassVar[str] = "openFold"

    item: int
    accumulators: bytes


@dataclass(frozen=True, slots=True)
class PointFold(Move):
    """Challenger: the first wrong accumulator."""

    function: ClassVar[str] = "pointFold"

    accumulators: bytes
    index: int


@dataclass(frozen=True, slots=True)
class PostValues(Move):
    """Defendant: the operands' values, then every instruction's result."""

    function: ClassVar[str] = "postValues"

    values: bytes


@dataclass(frozen=True, slots=True)
class Prove(Move):
    """Challenger: the one-step proof."""

    function: ClassVar[str] = "prove"

    context: Context
    proof: Proof
