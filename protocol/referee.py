# SPDX-License-Identifier: GPL-3.0-or-later
"""The referee in Python: the same verdicts as `contracts/Referee.sol`, on the same three structs.

A challenger judges its own proof before it pays for sending it; tests compare the two referees on
good, bad and malformed proofs. Where the contract reverts this raises DisputeError, or ProgramError
if the node itself is at fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from eth_utils.crypto import keccak

from protocol import fold as folds
from protocol.encoding import decode_node
from protocol.errors import DisputeError, ProgramError
from protocol.float32 import Float32, apply, canonical
from protocol.merkle import leaf_hash, verify_inclusion
from protocol.program import DType, Fold, Iota, Kind, Node, View
from protocol.question import Context, Proof, ProofKind, Question
from protocol.reference import element
from protocol.tensor_tree import CHUNK_ELEMENTS, ELEMENT_BYTES, chunk_count, chunk_length
from protocol.views import axes, coordinate, iota_value, register_dtypes

_NUMEL_LIMIT = 1 << 31
_EXPRESSIONS = (Kind.MAP, Kind.FOLD)
_GENERATORS = (Kind.STEP, Kind.SAMPLE, Kind.RAND)


def judge(context: Context, question: Question, proof: Proof) -> bool:
    """Return whether `proof` shows that the question's claim is false.

    Raises ProgramError if `proof.node` is no node, DisputeError if the proof does not apply, does
    not fit the sizes that follow from the node and the context, or does not lead to the roots.
    """
    node = decode_node(proof.node)
    check_header(node)
    kind = proof.kind
    computes, generates = node.kind in _EXPRESSIONS, node.kind in _GENERATORS
    if computes != (kind <= ProofKind.OPERAND) or generates != (kind == ProofKind.ELEMENT):
        raise DisputeError(f"a {kind.name} proof says nothing about a {node.kind.name} node")
    if kind is ProofKind.ROOT:
        return _root_differs(context, question, proof, node)
    if question.element >= node.numel:
        raise DisputeError(f"element {question.element} is not in 0..{node.numel - 1}")
    if kind is ProofKind.ELEMENT:
        seed, step = context.seed, question.step
        return element(node, question.element, _no_fetch, seed, step) != question.value
    if node.kind is Kind.FOLD and question.term >= node.terms:
        raise DisputeError(f"term {question.term} is not in 0..{node.terms - 1}")
    if keccak(proof.values) != question.values_hash:
        raise DisputeError("these are not the values that the defendant posted")
    if len(proof.values) != values_length(node):
        if kind is not ProofKind.RESULT:
            raise DisputeError(f"{len(proof.values)} bytes of values: prove their length wrong")
        return True
    registers = _registers(node, proof.values)
    if kind is ProofKind.RESULT:
        return _result_differs(question, node, registers)
    if kind is ProofKind.INSTRUCTION:
        return _instruction_differs(proof.index, node, registers)
    return _operand_differs(context, question, proof, node, registers)


def values_length(node: Node) -> int:
    """Return how many bytes the defendant posts for one element or term of a MAP or FOLD."""
    return ELEMENT_BYTES * (len(node.body.operands) + len(node.body.instructions))


def check_header(node: Node) -> None:
    """Raise ProgramError for what the referee refuses of a node whose layout is sound.

    Sizes are positive and below 2**31, a bound is not 0, a fold has dims, and lanes that it may
    have. `protocol.validate` knows all rules; these are the ones that the referee needs.
    """
    for shape in (node.shape, node.reduce):
        if 0 in shape or math.prod(shape) >= _NUMEL_LIMIT:
            raise ProgramError(f"a {node.kind.name} node has the shape {shape}")
    if node.kind is Kind.SAMPLE and node.bound == 0:
        raise ProgramError("a SAMPLE node has the bound 0")
    if node.kind is Kind.FOLD:
        if not node.reduce:
            raise ProgramError("a FOLD node reduces no dim")
        if node.lanes != 1 and (node.lanes != folds.LANES or node.fold is not Fold.SUM):
            raise ProgramError(f"a {node.fold.name} fold has {node.lanes} lanes")


def _registers(node: Node, values: bytes) -> list[int]:
    """Return all registers: posted operands, the node's immediates, posted results."""
    words = [
        int.from_bytes(values[at : at + ELEMENT_BYTES], "big")
        for at in range(0, len(values), ELEMENT_BYTES)
    ]
    operands = len(node.body.operands)
    return [*words[:operands], *node.body.immediates, *words[operands:]]


def _read(registers: Sequence[int], register: int, limit: int) -> int:
    if register >= limit:
        raise DisputeError(f"register {register} is not below {limit}")
    return registers[register]


def _result_differs(question: Question, node: Node, registers: Sequence[int]) -> bool:
    results = [_read(registers, r, len(registers)) for r in node.body.results]
    if node.kind is Kind.FOLD:
        return folds.step(node.fold, question.acc_before, results) != question.acc_after
    value = canonical(Float32(results[0])) if node.dtype is DType.F32 else results[0]
    return value != question.value


def _instruction_differs(index: int, node: Node, registers: Sequence[int]) -> bool:
    if index >= len(node.body.instructions):
        raise DisputeError(f"there is no instruction {index}")
    instruction = node.body.instructions[index]
    own = node.body.first_result + index
    operands = [_read(registers, register, own) for register in instruction.args]
    return apply(instruction.op, *operands) != registers[own]


def _operand_differs(
    context: Context, question: Question, proof: Proof, node: Node, registers: Sequence[int]
) -> bool:
    if proof.index >= len(node.body.operands):
        raise DisputeError(f"there is no operand {proof.index}")
    operand, posted = node.body.operands[proof.index], registers[proof.index]
    k = question.term if node.kind is Kind.FOLD else None
    x, earlier = axes(node, question.element, k), registers[: proof.index]
    if isinstance(operand, Iota):
        try:
            return iota_value(operand, x, earlier) != posted
        except IndexError:
            raise ProgramError("an IOTA operand has an axis that does not exist") from None
    if isinstance(operand, View):
        place, numel = _place(operand, x, earlier)
        value = operand.fill
    elif node.kind is Kind.FOLD:
        raise ProgramError("a FOLD node has a FLAT operand")
    else:
        place, numel, value = question.element, node.numel, 0
    if place is not None:
        value = _open(context, question, proof, operand.source, place, numel)
    if register_dtypes(node)[proof.index] is DType.I32:
        return value != posted
    return canonical(Float32(value)) != canonical(Float32(posted))


def _place(view: View, x: Sequence[int], values: Sequence[int]) -> tuple[int | None, int]:
    """Return the flat index (None: outside) and the number of elements of the source."""
    index, numel = 0, 1
    for dim in view.dims:
        numel *= dim.size
        bounds = dim.lo < dim.hi <= dim.size and dim.dilation > 0
        if not (0 < numel < _NUMEL_LIMIT and bounds):
            raise ProgramError(f"{dim} is no dim of a view")
        try:
            place = coordinate(dim, x, values)
        except IndexError:
            raise ProgramError(f"{dim} has an axis that does not exist") from None
        if place is None:
            return None, numel
        index = index * dim.size + place
    return index, numel


def _open(
    context: Context, question: Question, proof: Proof, source: int, place: int, numel: int
) -> int:
    """Return the element that the proof opens in the defendant's trace."""
    if source >= question.node:
        raise DisputeError(f"node {question.node} refers to node {source}")
    index, offset = divmod(place, CHUNK_ELEMENTS)
    if len(proof.chunk) != chunk_length(numel, index):
        raise DisputeError(f"chunk {index} of {numel} elements has not {len(proof.chunk)} bytes")
    leaf, chunks = leaf_hash(proof.chunk), chunk_count(numel)
    if not verify_inclusion(proof.root, chunks, index, leaf, proof.chunk_proof):
        raise DisputeError(f"the chunk is not leaf {index} of {chunks} of the tensor")
    _require_leaf(question.trace_root, context.n_nodes, source, proof)
    start = ELEMENT_BYTES * offset
    return int.from_bytes(proof.chunk[start : start + ELEMENT_BYTES], "little")


def _root_differs(context: Context, question: Question, proof: Proof, node: Node) -> bool:
    trees = {
        Kind.INPUT: (question.state_before, context.n_state),
        Kind.CONST: (context.const_root, context.n_const),
        Kind.DATA: (context.data_root, context.n_data),
        Kind.OUTPUT: (question.trace_root, context.n_nodes),
    }
    if node.kind is Kind.OUTPUT and node.index >= question.node:
        raise DisputeError(f"node {question.node} is an alias of node {node.index}")
    root, size = trees[node.kind]
    return _require_leaf(root, size, node.index, proof) != question.cursor


def _require_leaf(root: bytes, size: int, index: int, proof: Proof) -> bytes:
    """Return the leaf hash of the proof's tensor root, which must be leaf `index` of the tree."""
    leaf = leaf_hash(proof.root)
    if not verify_inclusion(root, size, index, leaf, proof.root_proof):
        raise DisputeError(f"the tensor root is not leaf {index} of {size}")
    return leaf


def _no_fetch(_source: int, _index: int) -> int:
    raise DisputeError("a generated element reads no operand")
