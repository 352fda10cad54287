# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that the referee calls faulty: with one of them anybody can void a task (`voidProgram`).

They break the rules by themselves, given the counts in the terms: an encoding of no node, an
output that is not among the last nodes, a tensor that is not there, a reference that leads nowhere.
What `protocol.validate` asks beyond that, such as matching shapes, the contract does not look at:
honest parties refuse such a program, and that is all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from protocol.errors import ProgramError
from protocol.merkle import Tree, leaf_hash
from protocol.node_encoding import decode_node
from protocol.program import Expression, Fold, Iota, Kind, Node, Shape
from protocol.task import TaskSpec
from protocol.validate import MAX_NUMEL


class Counts(NamedTuple):
    """What a task's terms say of its program."""

    n_nodes: int
    n_state: int
    n_const: int
    n_data: int

    @classmethod
    def of(cls, spec: TaskSpec) -> Counts:
        """Those of these terms."""
        return cls(spec.n_nodes, spec.n_state, spec.n_const, spec.n_data)

    def tensors(self, kind: Kind) -> int | None:
        """How many tensors nodes of a kind can read; None for kinds that read none."""
        return {
            Kind.INPUT: self.n_state,
            Kind.CONST: self.n_const,
            Kind.DATA: self.n_data,
        }.get(kind)


class Fault(NamedTuple):
    """A faulty node, and its inclusion proof in the program."""

    place: int
    node: bytes
    proof: list[bytes]


def find_fault(nodes: Sequence[bytes], counts: Counts) -> Fault | None:
    """The first faulty node of a program, given the encodings of all; None if there is none."""
    for index, node in enumerate(nodes):
        if is_faulty(node, index, counts):
            tree = Tree([leaf_hash(other) for other in nodes])
            return Fault(index, node, tree.inclusion_proof(index))
    return None


def is_faulty(encoding: bytes, index: int, counts: Counts) -> bool:
    """Whether these bytes break the rules in that place of a program: `Referee.isFaulty`."""
    try:
        node = decode_node(encoding)
    except ProgramError:
        return True
    if not _is_size(node.shape) or (node.kind is Kind.FOLD and not _is_fold(node)):
        return True
    if (node.kind is Kind.OUTPUT) != (index + counts.n_state >= counts.n_nodes):
        return True
    tensors = counts.tensors(node.kind)
    if tensors is not None:
        return node.index >= tensors
    if node.kind is Kind.OUTPUT:
        return node.index >= index
    if node.kind is Kind.SAMPLE:
        return node.bound == 0
    return node.expression is not None and _leads_nowhere(node.expression, index)


def _is_size(shape: Shape) -> bool:
    return all(size >= 1 for size in shape) and math.prod(shape) <= MAX_NUMEL


def _is_fold(node: Node) -> bool:
    """Whether a fold has terms, and lanes that its kind may have."""
    lanes = (1, 16) if node.fold is Fold.SUM else (1,)
    return bool(node.reduce) and _is_size(node.reduce) and node.lanes in lanes


def _leads_nowhere(code: Expression, index: int) -> bool:
    """Whether an operand, an instruction or a result refers to what is not before it."""
    if any(not isinstance(o, Iota) and o.source >= index for o in code.operands):
        return True
    filled = code.first_result
    for instruction in code.instructions:
        if any(register >= filled for register in instruction.args):
            return True
        filled += 1
    return any(register >= filled for register in code.results)
