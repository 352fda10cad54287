# SPDX-License-Identifier: GPL-3.0-or-later
"""The single point that a dispute comes down to, and the proof that settles it.

These classes mirror the structs of `contracts/interfaces/IReferee.sol` field by field; `as_abi`
gives the tuple that eth_abi and web3 encode. The specification, sections 5 and 6, says what each
field means. Hashes and roots are `bytes` of length 32.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ProofKind(IntEnum):
    """What a one-step proof shows to be wrong."""

    RESULT = 0
    INSTRUCTION = 1
    OPERAND = 2
    ELEMENT = 3
    ROOT = 4


@dataclass(frozen=True, slots=True)
class Context:
    """Everything about a dispute that neither party can choose."""

    program_root: bytes
    const_root: bytes
    data_root: bytes
    seed: bytes
    start_root: bytes
    end_root: bytes
    first_step: int
    steps: int
    n_nodes: int
    n_state: int
    n_const: int
    n_data: int

    def as_abi(self) -> tuple[object, ...]:
        """Return the fields of the Solidity struct in order."""
        return (
            self.program_root, self.const_root, self.data_root, self.seed,
            self.start_root, self.end_root, self.first_step, self.steps,
            self.n_nodes, self.n_state, self.n_const, self.n_data,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """The disputed element (and term), with what the defendant claims about it."""

    state_before: bytes
    trace_root: bytes
    """Of the defendant's trace of the step."""
    cursor: bytes
    """Leaf hash that the defendant claims for the node in its trace; not for MAP and FOLD."""
    values_hash: bytes
    """keccak256 of the posted values."""
    step: int
    element: int
    term: int
    node: int
    value: int
    """Claimed pattern of the element (not of a FOLD's term)."""
    acc_before: int
    acc_after: int

    def as_abi(self) -> tuple[object, ...]:
        """Return the fields of the Solidity struct in order."""
        return (
            self.state_before, self.trace_root, self.cursor, self.values_hash,
            self.step, self.element, self.term, self.node,
            self.value, self.acc_before, self.acc_after,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Proof:
    """A one-step proof; parts that its kind does not use stay empty and are ignored."""

    kind: ProofKind
    index: int
    """Number of the instruction (INSTRUCTION) or operand (OPERAND)."""
    node: bytes
    """The node's encoding."""
    values: bytes = b""
    """What the defendant posted."""
    chunk: bytes = b""
    root: bytes = bytes(32)
    """Root of a tensor: the operand's source (OPERAND) or the one that the node names (ROOT)."""
    chunk_proof: tuple[bytes, ...] = ()
    root_proof: tuple[bytes, ...] = ()

    def as_abi(self) -> tuple[object, ...]:
        """Return the fields of the Solidity struct in order."""
        return (
            int(self.kind), self.index, self.node, self.values, self.chunk, self.root,
            list(self.chunk_proof), list(self.root_proof),
        )  # fmt: skip
