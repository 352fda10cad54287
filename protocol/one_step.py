# SPDX-License-Identifier: GPL-3.0-or-later
"""The last move of a dispute: find what is wrong in one element, and prove it.

The defendant has posted all values of one element (or of one term of a FOLD). The challenger
recomputes each of them *from the posted ones before it*, so the first difference is one step of
arithmetic or one operand; `find_proof` returns the one-step proof of exactly that. It reads the
challenger's own trace: the nodes before the disputed one are agreed, so their tensors have the
roots that the defendant's trace has, and `OpenedTree` proves them there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from protocol.commitments import roots_tree, tensor_roots
from protocol.encoding import encode_node
from protocol.errors import DisputeError
from protocol.execution import Bits, Inputs
from protocol.float32 import Float32, canonical
from protocol.merkle import leaf_hash
from protocol.opened_tree import OpenedTree
from protocol.program import DType, Flat, Iota, Kind, Node, Program
from protocol.question import Context, Proof, ProofKind, Question
from protocol.referee import judge, values_length
from protocol.reference import Fetch, element_values
from protocol.tensor_tree import CHUNK_ELEMENTS, chunk, tensor_root, tensor_tree
from protocol.trace import Outputs
from protocol.views import axes, element_index, iota_value, register_dtypes

__all__ = [
    "Context",
    "Evidence",
    "OpenedTree",
    "Proof",
    "ProofKind",
    "Question",
    "TraceEvidence",
    "find_proof",
    "judge",
    "posted_values",
    "values_length",
]


class Evidence(Protocol):
    """What a challenger can show: its own trace of the step, and where it lies in the other's."""

    def element(self, node: int, index: int) -> int:
        """Return the raw pattern of one element of a node's output."""
        ...

    def opening(self, node: int, index: int) -> tuple[bytes, bytes, Sequence[bytes]]:
        """Return `(tensor root, chunk data, chunk proof)` for that element of a node's output."""
        ...

    def trace_proof(self, node: int) -> Sequence[bytes]:
        """Return the proof of an earlier node's leaf in the *defendant's* trace."""
        ...

    def tensor(self, kind: Kind, index: int) -> tuple[bytes, Sequence[bytes]]:
        """Return the root of an INPUT, CONST or DATA tensor and its proof in its tree.

        For OUTPUT, `index` is a node, and only the root counts.
        """
        ...


class TraceEvidence:
    """Evidence from tensors, hashed when they are asked for."""

    def __init__(
        self,
        state: Sequence[Bits],
        inputs: Inputs,
        outputs: Outputs,
        trace_proof: Callable[[int], Sequence[bytes]],
    ) -> None:
        """Take the state before the step, the challenger's trace, and a prover.

        `trace_proof` proves leaves in the defendant's trace: `OpenedTree.inclusion_proof` with the
        challenger's own tree filled in.
        """
        self._outputs = outputs
        self._trace_proof = trace_proof
        self._tensors = {
            Kind.INPUT: state,
            Kind.CONST: inputs.constants,
            Kind.DATA: inputs.data,
        }

    def element(self, node: int, index: int) -> int:
        """Return the raw pattern of one element of a node's output."""
        return int(self._outputs[node].reshape(-1)[index])

    def opening(self, node: int, index: int) -> tuple[bytes, bytes, Sequence[bytes]]:
        """Return `(tensor root, chunk data, chunk proof)` for that element of a node's output."""
        tree = tensor_tree(self._outputs[node])
        number = index // CHUNK_ELEMENTS
        return tree.root, chunk(self._outputs[node], number), tree.inclusion_proof(number)

    def trace_proof(self, node: int) -> Sequence[bytes]:
        """Return the proof of an earlier node's leaf in the defendant's trace."""
        return self._trace_proof(node)

    def tensor(self, kind: Kind, index: int) -> tuple[bytes, Sequence[bytes]]:
        """Return the root of the tensor that a node names, and its proof unless it is an OUTPUT."""
        if kind is Kind.OUTPUT:
            return tensor_root(self._outputs[index]), ()
        roots = tensor_roots(self._tensors[kind])
        return roots[index], roots_tree(roots).inclusion_proof(index)


def posted_values(node: Node, e: int, k: int | None, fetch: Fetch) -> bytes:
    """Return what an honest defendant posts for element `e` (and term `k` of a FOLD).

    The values of the operands, then the results of the instructions, as big-endian words.
    """
    operands, results = element_values(node, e, k, fetch)
    return b"".join(value.to_bytes(4, "big") for value in (*operands, *results))


def find_proof(
    program: Program, question: Question, values: bytes, evidence: Evidence
) -> Proof | None:
    """Return the proof that the defendant's claim is false, or None if it is true.

    `values` is what the defendant posted for a MAP or FOLD, else empty. A claim is true if no proof
    of any kind could convict it.
    """
    number = question.node
    node = program.nodes[number]
    encoding = encode_node(node)
    if node.kind in (Kind.MAP, Kind.FOLD):
        return _find_in_values(node, encoding, question, values, evidence)
    if node.kind in (Kind.STEP, Kind.SAMPLE, Kind.RAND):
        honest = evidence.element(number, question.element)
        return None if honest == question.value else Proof(ProofKind.ELEMENT, 0, encoding)
    root, proof = evidence.tensor(node.kind, node.index)
    if leaf_hash(root) == question.cursor:
        return None
    if node.kind is Kind.OUTPUT:
        proof = evidence.trace_proof(node.index)
    return Proof(ProofKind.ROOT, 0, encoding, root=root, root_proof=tuple(proof))


def _find_in_values(
    node: Node, encoding: bytes, question: Question, values: bytes, evidence: Evidence
) -> Proof | None:
    result = Proof(ProofKind.RESULT, 0, encoding, values)
    if len(values) != values_length(node):
        return result
    for number in range(len(node.body.operands)):
        wrong = _find_operand(node, encoding, question, values, number, evidence)
        if wrong is not None:
            return wrong
    candidates = [
        Proof(ProofKind.INSTRUCTION, number, encoding, values)
        for number in range(len(node.body.instructions))
    ]
    return next((proof for proof in (*candidates, result) if _convicts(question, proof)), None)


def _convicts(question: Question, proof: Proof) -> bool:
    """Judge a proof that opens nothing, for which the context does not matter."""
    return judge(_NO_CONTEXT, question, proof)


_NO_CONTEXT = Context(*[bytes(32)] * 6, *[0] * 6)  # type: ignore[arg-type]


def _find_operand(
    node: Node,
    encoding: bytes,
    question: Question,
    values: bytes,
    number: int,
    evidence: Evidence,
) -> Proof | None:
    """Return the proof that operand `number` is not what the node reads, given those before it."""
    words = [int.from_bytes(values[at : at + 4], "big") for at in range(0, 4 * number + 4, 4)]
    *earlier, posted = words
    operand = node.body.operands[number]
    x = axes(node, question.element, question.term if node.kind is Kind.FOLD else None)
    proof = Proof(ProofKind.OPERAND, number, encoding, values)
    if isinstance(operand, Iota):
        return None if iota_value(operand, x, earlier) == posted else proof
    if isinstance(operand, Flat):
        place: int | None = question.element
        value = evidence.element(operand.source, question.element)
    else:
        place = element_index(operand, x, earlier)
        value = operand.fill if place is None else evidence.element(operand.source, place)
    if register_dtypes(node)[number] is not DType.I32:
        value, posted = canonical(Float32(value)), canonical(Float32(posted))
    if value == posted:
        return None
    if place is None:
        return proof
    if operand.source >= question.node:
        raise DisputeError(f"node {question.node} refers to node {operand.source}")
    root, data, chunk_proof = evidence.opening(operand.source, place)
    return Proof(
        ProofKind.OPERAND,
        number,
        encoding,
        values,
        data,
        root,
        tuple(chunk_proof),
        tuple(evidence.trace_proof(operand.source)),
    )
